"""Made-up observations of Craftax-Symbolic, written number by number."""

import numpy as np


def craftax_views(count, seed):
    """Observations [count, 8268], and the same packed [count, 843]."""
    random = np.random.default_rng(seed)
    full, packed = [], []
    for _ in range(count):
        ones, integers = [], []
        for _ in range(9 * 11):
            block, item, lit = random.integers(37), random.integers(5), random.random() < 0.7
            mobs = [[kind for kind in range(8) if random.random() < 0.2] for _ in range(5)]
            tile = [0.0] * 83
            if lit:
                for channel in (block, 37 + item, 82, *(42 + 8 * i + kind for i in range(5) for kind in mobs[i])):
                    tile[channel] = 1.0
            ones += tile
            integers += [block + 1, item + 1, *(sum(2**kind for kind in x) for x in mobs), 1] if lit else [0] * 8
        scalars = list(random.random(51))
        full.append(ones + scalars)
        packed.append(integers + scalars)
    return np.array(full, np.float32), np.array(packed, np.float32)
