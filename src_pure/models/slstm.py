"""sLSTM: exponential gates and memory mixing within heads (Beck et al., arXiv:2405.04517, eq. 8-18).

One head of D units, x the projections of a token and R [D, 4 D] the head's own kernel; all states start at 0:

    i, f, z, o = split(x + h_{t-1} R + bias)
    m_t = max(log sigmoid(f) + m_{t-1}, i), or i at the first step        the stabiliser: the largest exponent so far
    c_t = exp(log sigmoid(f) + m_{t-1} - m_t) c_{t-1} + exp(i - m_t) tanh(z)
    n_t = exp(log sigmoid(f) + m_{t-1} - m_t) n_{t-1} + exp(i - m_t)
    h_t = sigmoid(o) c_t / n_t        out = LayerNorm_head(h_t)

h does not depend on m, so m is a constant in the gradient. The forget gate is a sigmoid, one of the paper's two choices
and that of the released code. f starts with a bias of 3 to 6 over the units of a head, as in mLSTM; the released code
has a power law that also depends on the place of the block.

Departure: this layer stands in the blocks of this package, with a dense layer after its norm; the convolution before
the gates, optional in the paper, is left out.
"""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from src_pure.models.blocks import Residual, residual_block, stack
from src_pure.models.layers import Precision, as_float32, dense, head_size, heads, stacked_orthogonal
from src_pure.ops.recurrence import recurrent_scan
from src_pure.types import Array, Depth, PositiveInt


class SLSTMCarry(NamedTuple):
    hidden: Array  # h [B, H, D]
    cell: Array  # c [B, H, D]
    normaliser: Array  # n [B, H, D]
    maximum: Array  # m [B, H, D]


def slstm_cell(inputs: Array, recurrent: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
    """(h, c, n, m) after one step; n is at least 1 from the first step on."""
    _, c, n, m = state
    i, f, z, o = jnp.split(inputs + recurrent, 4, axis=-1)
    log_forget = jax.nn.log_sigmoid(f)
    m = lax.stop_gradient(m)
    new_m = lax.stop_gradient(jnp.where(n == 0.0, i, jnp.maximum(log_forget + m, i)))
    # the first step forgets nothing, because c and n are 0, but its exponent may be too large
    forget, write = jnp.exp(jnp.where(n == 0.0, 0.0, log_forget + m - new_m)), jnp.exp(i - new_m)
    c = forget * c + write * jnp.tanh(z)
    n = forget * n + write
    return jax.nn.sigmoid(o) * c / n, c, n, new_m


def forget_bias(key, shape: tuple[int, int]) -> Array:
    """[H, 4 D]: 3 to 6 over the units of the forget gate of each head, else 0."""
    bias = jnp.zeros((shape[0], 4, shape[1] // 4))
    return bias.at[:, 1].set(jnp.linspace(3.0, 6.0, shape[1] // 4)).reshape(shape)


def head_kernels(key, shape: tuple[int, int, int]) -> Array:
    """[D, H, 4 D]: square orthogonal kernels."""
    size, num_heads, width = shape
    return stacked_orthogonal(1.0)(key, (size, num_heads * width)).reshape(shape)


class SLSTMLayer(nn.Module):
    """Projections, the recurrence of each head, its norm and the output projection."""

    d_model: int
    num_heads: int
    d_head: int
    precision: Precision

    @nn.compact
    def __call__(self, carry: SLSTMCarry, inputs: Array, reset: Array) -> tuple[SLSTMCarry, Array]:
        num_heads, d_head = self.num_heads, self.d_head
        width = 4 * num_heads * d_head
        x = dense(width, scale=1.0, use_bias=False, precision=self.precision, name="inputs")(inputs)
        kernel = self.param("kernel", head_kernels, (d_head, num_heads, 4 * d_head))
        bias = self.param("bias", forget_bias, (num_heads, 4 * d_head))
        of_heads = jax.vmap(partial(recurrent_scan, slstm_cell), in_axes=(1, 0, 1, 2, None), out_axes=(1, 2))
        state, hidden = of_heads(kernel, bias, tuple(carry), heads(as_float32(x), num_heads), 1.0 - reset)
        out = nn.LayerNorm(use_scale=False, use_bias=False)(hidden)  # of each head
        out = self.param("scale", nn.initializers.ones, (num_heads, d_head)) * out
        out = dense(self.d_model, precision=self.precision, name="out")(out.reshape(*out.shape[:2], -1))
        return SLSTMCarry(*state), out


class SLSTM(nn.Module):
    """A stack of blocks around sLSTM layers; the first dense layer accepts any D_in."""

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

    def initialize_carry(self, batch_size: int) -> tuple[SLSTMCarry, ...]:
        d_head = head_size(self.d_model, self.num_heads, self.d_head)
        zeros = jnp.zeros((batch_size, self.num_heads, d_head))
        return (SLSTMCarry(zeros, zeros, zeros, zeros),) * self.num_layers

    @nn.compact
    def __call__(self, carry, inputs: Array, reset: Array) -> tuple[tuple[SLSTMCarry, ...], Array]:
        d_head = head_size(self.d_model, self.num_heads, self.d_head)

        def block(name):
            layer = SLSTMLayer(self.d_model, self.num_heads, d_head, self.precision, parent=None)
            return residual_block(self.residual, layer, self.d_ffc, self.precision, name)

        return stack(block, carry, inputs, reset, self.d_model, self.precision)
