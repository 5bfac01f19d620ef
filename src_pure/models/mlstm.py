"""mLSTM: a matrix memory with exponential gates (Beck et al., arXiv:2405.04517, eq. 19-27 and appendix A.3).

One head of size D over the projections of a token; i and f are numbers before their gates, C, n and m start at 0:

    m_t = max(log sigmoid(f) + m_{t-1}, i)        the stabiliser: the largest exponent so far
    a = exp(log sigmoid(f) + m_{t-1} - m_t)       b = exp(i - m_t)
    C_t = a C_{t-1} + b value (x) key / sqrt D    [D, D]
    n_t = a n_{t-1} + b key / sqrt D              [D]
    out = sigmoid(o) . LayerNorm_head(C_t q / (max(|n_t . q|, exp(-m_t)) + eps))

out does not depend on m but through eps, so m is a constant in the gradient. n is one more row of C. The forget gate is
a sigmoid, one of the paper's two choices and that of the released code, whose eps, bias of f (3 to 6 over the heads)
and norm (a scale, no offset) these are.

Departure: this layer stands in the blocks of this package, like the mixer of xLSTM 7B (arXiv:2503.13427). The paper's
own block, with its projection to twice the width, convolution, skip and second gate, is left out.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from src_pure.models.blocks import Residual, residual_block, stack
from src_pure.models.layers import Precision, as_float32, dense, head_size, heads
from src_pure.ops.dense import SAVED
from src_pure.ops.scalar_decay import ScalarInputs, scalar_readout
from src_pure.types import Array, Depth, PositiveInt

EPS = 1e-6


class MLSTMCarry(NamedTuple):
    matrix: Array  # C, and n as its last row: [B, H, D + 1, D]
    maximum: Array  # m [B, H]


def initial_carry(batch_size: int, num_heads: int, d_head: int) -> MLSTMCarry:
    return MLSTMCarry(jnp.zeros((batch_size, num_heads, d_head + 1, d_head)), jnp.zeros((batch_size, num_heads)))


def stabiliser(maximum: Array, log_forget: Array, input_gate: Array, reset: Array) -> Array:
    """m [T, B, H]"""

    def step(maximum, x):
        log_forget, input_gate, reset = x
        maximum = jnp.maximum(log_forget + jnp.where(reset[:, None], 0.0, maximum), input_gate)
        return maximum, maximum

    constants = lax.stop_gradient((maximum, (log_forget, input_gate, reset)))
    return checkpoint_name(lax.scan(step, *constants)[1], SAVED)


def mlstm_memory(
    carry: MLSTMCarry, query: Array, key: Array, value: Array, input_gate: Array, forget_gate: Array, reset: Array
) -> tuple[MLSTMCarry, Array]:
    """(carry, C q / max(|n . q|, exp(-m)) [T, B, H, D]); query, key, value: [T, B, H, D]; gates i, f: [T, B, H]."""
    log_forget = jax.nn.log_sigmoid(forget_gate)
    maximum = stabiliser(carry.maximum, log_forget, input_gate, reset)
    previous = jnp.concatenate([lax.stop_gradient(carry.maximum)[None], maximum[:-1]])
    written = jnp.concatenate([value, jnp.ones_like(value[..., :1])], axis=-1)
    inputs = ScalarInputs(
        reset=reset,
        log_decay=log_forget + previous - maximum,
        value=jnp.exp(input_gate - maximum)[..., None] * written,
        key=key * key.shape[-1] ** -0.5,
        query=query,
    )
    matrix, readout = scalar_readout(carry.matrix, inputs)
    normaliser = jnp.maximum(jnp.abs(readout[..., -1:]), jnp.exp(-maximum)[..., None]) + EPS
    return MLSTMCarry(matrix, maximum[-1]), readout[..., :-1] / normaliser


class MLSTMLayer(nn.Module):
    """Projections, mlstm_memory, its norm and output gate, and the output projection."""

    d_model: int
    num_heads: int
    d_head: int
    precision: Precision

    @nn.compact
    def __call__(self, carry: MLSTMCarry, inputs: Array, reset: Array) -> tuple[MLSTMCarry, Array]:
        width = self.num_heads * self.d_head
        tokens = as_float32(dense(4 * width, precision=self.precision, name="qkvo")(inputs))
        query, key, value, output_gate = jnp.split(heads(tokens, self.num_heads), 4, axis=-1)
        # always float32: a rounded exponent is a relative error of the memory
        gates = dense(2 * self.num_heads, scale=1.0, use_bias=False, name="gates")(inputs)
        input_gate, forget_gate = jnp.split(gates, 2, axis=-1)
        input_bias = self.param("input_bias", nn.initializers.zeros, (self.num_heads,))
        forget_bias = self.param("forget_bias", lambda _, shape: jnp.linspace(3.0, 6.0, *shape), (self.num_heads,))
        gates = input_gate + input_bias, forget_gate + forget_bias
        carry, out = mlstm_memory(carry, query, key, value, *gates, reset)
        out = nn.LayerNorm(use_scale=False, use_bias=False)(out)  # of each head
        scale = self.param("scale", nn.initializers.ones, (self.num_heads, self.d_head))
        out = jax.nn.sigmoid(output_gate) * scale * out
        return carry, dense(self.d_model, precision=self.precision, name="out")(out.reshape(*out.shape[:2], -1))


class MLSTM(nn.Module):
    """A stack of blocks around mLSTM layers; the first dense layer accepts any D_in."""

    num_layers: Depth = 4
    d_model: PositiveInt = 128
    num_heads: PositiveInt = 4
    d_head: PositiveInt | None = 64  # None: d_model / num_heads
    d_ffc: PositiveInt = 128
    residual: Residual = "gated"
    precision: Precision = "float32"

    def __post_init__(self):
        head_size(self.d_model, self.num_heads, self.d_head)
        super().__post_init__()

    def initialize_carry(self, batch_size: int) -> tuple[MLSTMCarry, ...]:
        d_head = head_size(self.d_model, self.num_heads, self.d_head)
        return (initial_carry(batch_size, self.num_heads, d_head),) * self.num_layers

    @nn.compact
    def __call__(self, carry, inputs: Array, reset: Array) -> tuple[tuple[MLSTMCarry, ...], Array]:
        d_head = head_size(self.d_model, self.num_heads, self.d_head)

        def block(name):
            layer = MLSTMLayer(self.d_model, self.num_heads, d_head, self.precision, parent=None)
            return residual_block(self.residual, layer, self.d_ffc, self.precision, name)

        return stack(block, carry, inputs, reset, self.d_model, self.precision)
