"""Blocks against their equations, as both families use them, and what a rematerialised block computes again."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from src_pure.conformance import random_params
from src_pure.models.agalite import AGaLiTe
from src_pure.models.blocks import (
    BLOCKS,
    PRE_NORM,
    REMATERIALISED_BLOCKS,
    FeedForward,
    GatedBlock,
    feed_forward,
    layer_norm,
)
from src_pure.models.transformer import normalise
from tests.models import oracles

T, B, D, D_FFC = 4, 2, 6, 5


class AddsUp(nn.Module):
    """A memory of one number per feature, the sum of what it has read; `third` multiplies the inputs."""

    @nn.compact
    def __call__(self, carry, x, third):
        carry = carry + jnp.sum(x * third[..., None], axis=0)
        return carry, nn.Dense(D)(x * third[..., None])


def numpy_block(params, residual, x, third, linear):
    """out [T, B, D] by the oracle; linear: whether parameters have the names of the linear family."""
    norms = iter(("LayerNorm_0", "LayerNorm_1"))
    attention_norm = partial(oracles.layer_norm, params[next(norms)]) if linear and residual in PRE_NORM else None
    ffc_norm = partial(oracles.layer_norm, params[next(norms)]) if residual in PRE_NORM else None
    first, second = (params["ffc_in"], params["ffc_out"]) if linear else (params["ffc"]["in"], params["ffc"]["out"])

    def ffc(x):
        return oracles.dense(second, oracles.relu(oracles.dense(first, x)))

    def of_token(x, third):
        def attention(x):
            return oracles.dense(params["attention"]["Dense_0"], x * third)

        norm = attention_norm or oracles.normalise
        return oracles.residual_block(params, residual, x, attention, ffc, norm, ffc_norm)

    return np.stack([[of_token(x[t, b], third[t, b]) for b in range(B)] for t in range(T)])


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("residual", BLOCKS)
def test_block_is_its_equation(residual, linear):
    attention = AddsUp(parent=None)
    if linear:
        ffc = partial(feed_forward, d_ffc=D_FFC, precision="float32")
        block = REMATERIALISED_BLOCKS[residual](attention, layer_norm, ffc)
    else:
        block = BLOCKS[residual](attention, normalise, FeedForward(D_FFC, "float32", parent=None))
    rng = np.random.default_rng(0)
    x, third = rng.normal(size=(T, B, D)), rng.normal(size=(T, B))
    arguments = (jnp.zeros((B, D)), jnp.float32(x), jnp.float32(third))
    params = random_params(block, *arguments)
    carry, out = jax.jit(block.apply)(params, *arguments)
    wanted = numpy_block(jax.tree.map(np.float64, params["params"]), residual, x, third, linear)
    np.testing.assert_allclose(out, wanted, rtol=1e-4, atol=1e-5)
    assert carry.shape == (B, D) and np.any(carry)


def test_rematerialised_blocks_compute_no_product_again(monkeypatch):
    model = AGaLiTe(num_layers=1, d_model=8, d_head=4, d_ffc=8)
    carry, inputs, reset = model.initialize_carry(2), jnp.ones((32, 2, 3)), jnp.zeros((32, 2), bool)
    params = jax.eval_shape(model.init, jax.random.key(0), carry, inputs, reset)

    def num_products():
        gradient = jax.grad(lambda params: jnp.sum(model.apply(params, carry, inputs, reset)[1]))
        return str(jax.make_jaxpr(gradient)(params)).count("dot_general[")

    rematerialised = num_products()
    monkeypatch.setitem(REMATERIALISED_BLOCKS, "gated", GatedBlock)
    assert rematerialised == num_products() > 20
