"""Both decays of GaLiTe's matrix have the gradients of a plain scan where gates are exactly 0 or 1."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from src_pure.ops.matrix_recurrence import Factored, FactoredInputs, MatrixState, Readout, scan_readout
from src_pure.ops.product_decay import product_decay, product_readout
from src_pure.ops.released_decay import released_decay, released_readout

T, B, H, D, ETA = 37, 2, 2, 3, 2


@pytest.mark.parametrize(
    ("readout", "decay"),
    [(product_readout, product_decay), (released_readout, released_decay)],
    ids=["product", "released"],
)
def test_gradients_at_gates_of_exactly_0_and_1(readout, decay):
    """Against a plain scan, from a used state, with cotangents of every output; two resets in a row."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    def gates(*shape):
        return jnp.asarray(np.clip(rng.uniform(-0.5, 1.5, size=shape), 0.0, 1.0), jnp.float32)

    def factored(draw):
        return Factored(draw(T, B, H, ETA), draw(T, B, H, D))

    keep = jnp.ones((T, B)).at[jnp.array([0, 7, 8, 15]), 0].set(0.0)
    inputs = FactoredInputs(keep, gates(T, B, H, D), factored(gates), normal(T, B, H, D), *map(factored, [normal] * 2))
    state = MatrixState(normal(B, H, D, ETA * D), normal(B, H, ETA * D))
    targets = (state, Readout(normal(T, B, H, D), normal(T, B, H)))

    def gradient(readout):
        def loss(state, inputs):
            return sum(
                jnp.vdot(x, y) for x, y in zip(*map(jax.tree.leaves, (readout(state, inputs), targets)), strict=True)
            )

        return jax.jit(jax.grad(loss, argnums=(0, 1)))(state, inputs)

    ours, plain = gradient(readout), gradient(partial(scan_readout, decay=decay))
    for a, b in zip(*map(jax.tree.leaves, ((x[0], x[1]._replace(keep=None)) for x in (ours, plain))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.max(np.abs(b)))
