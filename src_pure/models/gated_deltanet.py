"""Gated DeltaNet: a matrix memory that replaces what a key reads (Yang et al., arXiv:2412.06464, eq. 10 and figure 1).

One head with keys of size K and values of size D:

    query, key, value = silu(convolution(projections of the tokens t-3..t))
    q = query / |query| / sqrt K     k = key / |key|     b = sigmoid(projection)     a = exp(-exp(log_rate) step)
    S_t = a S_{t-1} (1 - b k (x) k) + b value (x) k   [D, K]                    step = softplus(projection + bias)
    out = Dense(scale . RMSNorm_head(S_t q) . silu(gate))

Nothing has a bias but step, as in the released code; step starts between 0.001 and 0.1 and exp(log_rate) between 1 and
16, as in Mamba-2 (the released code: 0 and 16), the convolution's kernel between -1/2 and 1/2. Its carry is the last 3
projections.

Departure: this layer stands in the blocks of this package, whose feed-forward layer is not a SwiGLU.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from src_pure.models.blocks import Residual, residual_block, stack
from src_pure.models.layers import Precision, as_float32, dense, head_size, heads
from src_pure.models.parts import KERNEL, ShortConvolution, StepSize, rms_normalise
from src_pure.ops.delta_rule import DeltaInputs, delta_readout
from src_pure.types import Array, Depth, PositiveInt


class DeltaCarry(NamedTuple):
    matrix: Array  # S [B, H, D, K]
    tokens: Array  # [B, 3, H (2 K + D)]: what the convolution sees of earlier steps


def unit(x: Array) -> Array:
    """x [..., K] with length 1; the eps is the released code's."""
    return x * lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-6)


class GatedDeltaLayer(nn.Module):
    """The mixer: projections, convolution, delta rule, gated norm and the output projection."""

    d_model: int
    num_heads: int
    d_head: int
    d_value: int
    precision: Precision

    @nn.compact
    def __call__(self, carry: DeltaCarry, inputs: Array, reset: Array) -> tuple[DeltaCarry, Array]:
        keys, values = self.num_heads * self.d_head, self.num_heads * self.d_value
        width = 2 * (keys + values)
        projected = dense(width, use_bias=False, precision=self.precision, name="qkv_gate")(inputs)
        tokens, gate = jnp.split(as_float32(projected), [2 * keys + values], axis=-1)
        past, tokens = ShortConvolution(use_bias=False, name="convolution")(carry.tokens, tokens, reset)
        tokens = jnp.split(jax.nn.silu(tokens), [keys, 2 * keys], axis=-1)
        query, key, value = (heads(x, self.num_heads) for x in tokens)
        # always float32: a rounded exponent is a relative error of the memory
        rates = dense(2 * self.num_heads, use_bias=False, name="rates")(inputs)
        rate, step = jnp.split(rates, 2, axis=-1)
        _, log_decay = StepSize(name="step")(step)
        delta = DeltaInputs(reset, log_decay, jax.nn.sigmoid(rate), value, unit(key), unit(query) * self.d_head**-0.5)
        matrix, out = delta_readout(carry.matrix, delta)
        out = self.param("scale", nn.initializers.ones, (self.d_value,)) * rms_normalise(out)
        out = out.reshape(*gate.shape) * jax.nn.silu(gate)
        out = dense(self.d_model, use_bias=False, precision=self.precision, name="out")(out)
        return DeltaCarry(matrix, past), out


class GatedDeltaNet(nn.Module):
    """A stack of blocks around Gated DeltaNet layers; the first dense layer accepts any D_in."""

    num_layers: Depth = 4
    d_model: PositiveInt = 128
    num_heads: PositiveInt = 4
    d_head: PositiveInt | None = 64  # of keys and queries; None: d_model / num_heads
    d_value: PositiveInt = 64  # of the values of a head
    d_ffc: PositiveInt = 128
    residual: Residual = "gated"
    precision: Precision = "float32"

    def __post_init__(self):
        head_size(self.d_model, self.num_heads, self.d_head)
        super().__post_init__()

    def initialize_carry(self, batch_size: int) -> tuple[DeltaCarry, ...]:
        d_head = head_size(self.d_model, self.num_heads, self.d_head)
        matrix = jnp.zeros((batch_size, self.num_heads, self.d_value, d_head))
        tokens = jnp.zeros((batch_size, KERNEL - 1, self.num_heads * (2 * d_head + self.d_value)))
        return (DeltaCarry(matrix, tokens),) * self.num_layers

    @nn.compact
    def __call__(self, carry, inputs: Array, reset: Array) -> tuple[tuple[DeltaCarry, ...], Array]:
        d_head = head_size(self.d_model, self.num_heads, self.d_head)

        def block(name):
            layer = GatedDeltaLayer(self.d_model, self.num_heads, d_head, self.d_value, self.precision, parent=None)
            return residual_block(self.residual, layer, self.d_ffc, self.precision, name)

        return stack(block, carry, inputs, reset, self.d_model, self.precision)
