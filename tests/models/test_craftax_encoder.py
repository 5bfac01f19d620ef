"""The encoder of Craftax: sums of rows, the same from both forms of an observation, and one line for any other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from src_pure.models.craftax_encoder import CraftaxEncoder
from tests.ops.craftax_views import craftax_views

T, B, SIZE = 2, 2, 3


def test_features_are_sums_of_rows_and_scalars():
    full, packed = (x.reshape(T, B, -1) for x in craftax_views(T * B, seed=0))
    encoder = CraftaxEncoder(SIZE)
    params = encoder.init(jax.random.key(0), full)
    assert sum(x.size for x in jax.tree.leaves(params)) == 83 * SIZE
    table = np.asarray(params["params"]["table"])
    features = np.asarray(encoder.apply(params, full))
    assert features.shape == (T, B, 99 * SIZE + 51)
    for time, env in np.ndindex(T, B):
        tiles = full[time, env, :-51].reshape(99, 83)
        rows = [sum((table[c] for c in np.flatnonzero(tile)), np.zeros(SIZE)) for tile in tiles]
        np.testing.assert_allclose(features[time, env, :-51], np.concatenate(rows), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(features[time, env, -51:], full[time, env, -51:])
    np.testing.assert_array_equal(encoder.apply(params, packed), features)


def test_gradients_of_both_forms_agree():
    """Each row's gradient is the sum of those of the tiles that show it."""
    full, packed = (x.reshape(T, B, -1) for x in craftax_views(T * B, seed=1))
    encoder = CraftaxEncoder(SIZE)
    params = encoder.init(jax.random.key(0), full)
    slope = np.random.default_rng(0).normal(size=(T, B, 99 * SIZE + 51)).astype(np.float32)
    loss = jax.grad(lambda params, obs: jnp.sum(slope * encoder.apply(params, obs)))
    found = [np.asarray(loss(params, obs)["params"]["table"]) for obs in (full, packed)]
    wanted = np.zeros((83, SIZE))
    for tile, tile_slope in zip(full[..., :-51].reshape(-1, 83), slope[..., :-51].reshape(-1, SIZE), strict=True):
        wanted[np.flatnonzero(tile)] += tile_slope
    for gradient in found:
        np.testing.assert_allclose(gradient, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(1345,), (8268 + 43,), (130, 110, 3)])
def test_other_observations_are_refused(shape):
    with pytest.raises(ValueError, match=r"craftax needs the observation of Craftax-Symbolic-v1, .* has shape \["):
        jax.eval_shape(CraftaxEncoder().init, jax.random.key(0), jnp.zeros((T, B, *shape)))
