"""The norm of gradients as one sum, which only GPUs use, equals the usual one."""

import numpy as np
import optax

from src_pure.algos.optimizer import _joined_norm, global_norm


def test_norm_as_one_sum():
    rng = np.random.default_rng(0)
    tree = {"kernel": rng.normal(size=(7, 5)), "bias": rng.normal(size=5), "scale": np.float64(3.0)}
    tree = {name: np.asarray(x, np.float32) for name, x in tree.items()}
    np.testing.assert_allclose(_joined_norm(tree), optax.tree.norm(tree), rtol=1e-6)
    np.testing.assert_array_equal(global_norm(tree), optax.tree.norm(tree))
