"""The packed view of Craftax against observations that a loop writes number by number."""

import jax
import numpy as np

from src_pure.ops.craftax_view import pack, unpack
from tests.ops.craftax_views import craftax_views


def test_packing_gives_the_integers_and_loses_nothing():
    full, packed = craftax_views(5, seed=0)
    assert full.shape == (5, 8268) and packed.shape == (5, 843)
    np.testing.assert_array_equal(jax.jit(pack)(full), packed)
    np.testing.assert_array_equal(jax.jit(unpack)(packed), full)
    mobs = packed[:, : 9 * 11 * 8].reshape(-1, 8)[:, 2:7].astype(int)
    assert np.isin([0, 128, 3], mobs).all()  # none, the last type alone, two of one class on a tile


def test_full_and_dark_views():
    """Every channel of every tile set as far as tiles allow, and nothing at all."""
    full, _ = craftax_views(1, seed=1)
    for tile in (np.zeros(83, np.float32), np.eye(83)[[36, 41, *range(42, 83)]].sum(0).astype(np.float32)):
        full[:, : 99 * 83] = np.tile(tile, 99)
        np.testing.assert_array_equal(unpack(pack(full)), full)
