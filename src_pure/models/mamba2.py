"""Mamba-2: a linear recurrence whose decay depends on the input (Dao & Gu, arXiv:2405.21060, section 7).

One head of P values and a state of N features; key and query (the paper's B and C) are shared by all heads:

    value, key, query = silu(convolution(projections of the tokens t-3..t))
    step = softplus(projection + bias)      a = exp(-exp(log_rate) step)        one of each for a head
    S_t = a S_{t-1} + step value (x) key    [P, N]
    y = S_t query + skip value              out = Dense(scale . RMSNorm(y . silu(gate)))    norm over all heads

As in the released code the projections have no bias, the convolution has one; step starts between 0.001 and 0.1,
exp(log_rate) between 1 and 16, the convolution's kernel between -1/2 and 1/2. Its carry is the last 3 projections.

Departure: this layer stands in the blocks of this package, with a feed-forward layer; the paper stacks it alone.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from src_pure.models.blocks import Residual, residual_block, stack
from src_pure.models.layers import Precision, as_float32, dense, head_size, heads
from src_pure.models.parts import KERNEL, ShortConvolution, StepSize, rms_normalise
from src_pure.ops.scalar_decay import ScalarInputs, scalar_readout
from src_pure.types import Array, Depth, PositiveInt


class Mamba2Carry(NamedTuple):
    matrix: Array  # S [B, H, P, N]
    tokens: Array  # [B, 3, H P + 2 N]: what the convolution sees of earlier steps


class Mamba2Layer(nn.Module):
    """The mixer: projections, convolution, recurrence, gated norm and the output projection."""

    d_model: int
    num_heads: int
    d_head: int
    d_state: int
    precision: Precision

    @nn.compact
    def __call__(self, carry: Mamba2Carry, inputs: Array, reset: Array) -> tuple[Mamba2Carry, Array]:
        size = self.num_heads * self.d_head
        width = 2 * size + 2 * self.d_state
        projected = dense(width, use_bias=False, precision=self.precision, name="inputs")(inputs)
        gate, tokens = jnp.split(as_float32(projected), [size], axis=-1)
        past, tokens = ShortConvolution(use_bias=True, name="convolution")(carry.tokens, tokens, reset)
        value, key, query = jnp.split(jax.nn.silu(tokens), [size, size + self.d_state], axis=-1)
        value = heads(value, self.num_heads)
        # always float32: a rounded exponent is a relative error of the memory
        step, log_decay = StepSize(name="step")(dense(self.num_heads, use_bias=False, name="steps")(inputs))
        scaled = step[..., None] * value
        shared = ScalarInputs(reset, log_decay, scaled, key[:, :, None], query[:, :, None])
        matrix, readout = scalar_readout(carry.matrix, shared)
        skip = self.param("skip", nn.initializers.ones, (self.num_heads,))
        out = (readout + skip[:, None] * value).reshape(*gate.shape)
        out = self.param("scale", nn.initializers.ones, (size,)) * rms_normalise(out * jax.nn.silu(gate))
        out = dense(self.d_model, use_bias=False, precision=self.precision, name="out")(out)
        return Mamba2Carry(matrix, past), out


class Mamba2(nn.Module):
    """A stack of blocks around Mamba-2 layers; the first dense layer accepts any D_in."""

    num_layers: Depth = 4
    d_model: PositiveInt = 128
    num_heads: PositiveInt = 4
    d_head: PositiveInt | None = 64  # None: d_model / num_heads
    d_state: PositiveInt = 64
    d_ffc: PositiveInt = 128
    residual: Residual = "gated"
    precision: Precision = "float32"

    def __post_init__(self):
        head_size(self.d_model, self.num_heads, self.d_head)
        super().__post_init__()

    def initialize_carry(self, batch_size: int) -> tuple[Mamba2Carry, ...]:
        d_head = head_size(self.d_model, self.num_heads, self.d_head)
        matrix = jnp.zeros((batch_size, self.num_heads, d_head, self.d_state))
        tokens = jnp.zeros((batch_size, KERNEL - 1, self.num_heads * d_head + 2 * self.d_state))
        return (Mamba2Carry(matrix, tokens),) * self.num_layers

    @nn.compact
    def __call__(self, carry, inputs: Array, reset: Array) -> tuple[tuple[Mamba2Carry, ...], Array]:
        d_head = head_size(self.d_model, self.num_heads, self.d_head)

        def block(name):
            layer = Mamba2Layer(self.d_model, self.num_heads, d_head, self.d_state, self.precision, parent=None)
            return residual_block(self.residual, layer, self.d_ffc, self.precision, name)

        return stack(block, carry, inputs, reset, self.d_model, self.precision)
