"""Transformer layers with memory: one attention, and the ways to put its result beside its input.

A layer's memory is the last M of its inputs, [B, M, D]; where there is a LayerNorm before attention, normalised inputs
before the affine part of that layer: their statistics need no parameters, so nothing old is ever computed again.
"""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from src_pure.models.layers import GRUGate, Precision, dense, full, heads
from src_pure.ops.attention import Reader, Relative, attend, sinusoids
from src_pure.ops.dense import product
from src_pure.types import Array

NORM_EPS = 1e-6  # as nn.LayerNorm

Positions = Literal["relative", "absolute"]
Residual = Literal["gated", "post_norm", "rezero", "gated_rezero"]


def normalise(x: Array) -> Array:
    """LayerNorm of [..., D] without its affine part."""
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    return centred * lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + NORM_EPS)


class MemoryAttention(nn.Module):
    """Projections around `ops.attention.attend`: (memory, out [T, B, D]) of tokens [T, B, D], seen [T, B].

    `affine`: tokens are normalised inputs, and what is projected is tokens * scale + offset, both learned.
    """

    num_heads: int
    d_head: int
    positions: Positions
    precision: Precision
    affine: bool

    @nn.compact
    def __call__(self, memory: Array, tokens: Array, seen: Array) -> tuple[Array, Array]:
        size = tokens.shape[-1]
        scale, offset = jnp.ones(size), jnp.zeros(size)
        if self.affine:
            scale = self.param("scale", nn.initializers.ones, (size,))
            offset = self.param("offset", nn.initializers.zeros, (size,))
        dtype = jnp.dtype(self.precision)
        normed, kernel = (tokens * scale + offset).astype(dtype), self.kernel("query", size).astype(dtype)
        query = heads(full(product(normed, kernel)), self.num_heads)
        relative = self.relative(memory.shape[1], size) if self.positions == "relative" else None
        key, value = (heads(self.kernel(name, size), self.num_heads) for name in ("key", "value"))
        reader = Reader(scale, offset, key, value, relative)
        memory, out = attend(memory, seen, query, tokens, reader)
        return memory, dense(size, precision=self.precision, name="out")(out.reshape(*out.shape[:2], -1))

    def kernel(self, name: str, size: int) -> Array:
        return self.param(name, nn.initializers.orthogonal(2.0**0.5), (size, self.num_heads * self.d_head))

    def relative(self, memory_len: int, size: int) -> Relative:
        shape = (self.num_heads, self.d_head)
        falling = jnp.arange(memory_len, -1, -1)
        return Relative(
            content_bias=self.param("content_bias", nn.initializers.zeros, shape),
            position_bias=self.param("position_bias", nn.initializers.zeros, shape),
            distances=heads(sinusoids(falling, size) @ self.kernel("distance", size), self.num_heads),
        )


class FeedForward(nn.Module):
    """dense(relu(dense(x)))"""

    d_ffc: int
    precision: Precision

    @nn.compact
    def __call__(self, x: Array) -> Array:
        hidden = nn.relu(dense(self.d_ffc, precision=self.precision, name="in")(x))
        return dense(x.shape[-1], precision=self.precision, name="out")(hidden)


class GatedBlock(nn.Module):
    """GTrXL (Parisotto et al., arXiv:1910.06764).

    h = Gate(x, relu(attention(LN x))), out = Gate(h, relu(ffc(LN h)))
    """

    num_heads: int
    d_head: int
    d_ffc: int
    positions: Positions
    precision: Precision

    @nn.compact
    def __call__(self, memory: Array, x: Array, seen: Array) -> tuple[Array, Array]:
        attention = MemoryAttention(
            self.num_heads, self.d_head, self.positions, self.precision, affine=True, name="attention"
        )
        memory, attended = attention(memory, normalise(x), seen)
        x = GRUGate(self.precision, name="gate_attention")(x, nn.relu(attended))
        hidden = FeedForward(self.d_ffc, self.precision, name="ffc")(nn.LayerNorm()(x))
        return memory, GRUGate(self.precision, name="gate_ffc")(x, nn.relu(hidden))


class PostNormBlock(nn.Module):
    """Transformer (Vaswani et al., arXiv:1706.03762): h = LN(x + attention(x)), out = LN(h + ffc(h))."""

    num_heads: int
    d_head: int
    d_ffc: int
    positions: Positions
    precision: Precision

    @nn.compact
    def __call__(self, memory: Array, x: Array, seen: Array) -> tuple[Array, Array]:
        attention = MemoryAttention(
            self.num_heads, self.d_head, self.positions, self.precision, affine=False, name="attention"
        )
        memory, attended = attention(memory, x, seen)
        x = nn.LayerNorm()(x + attended)
        return memory, nn.LayerNorm()(x + FeedForward(self.d_ffc, self.precision, name="ffc")(x))


class ReZeroBlock(nn.Module):
    """ReZero (Bachlechner et al., arXiv:2003.04887): h = x + a attention(x), out = h + b ffc(h); a = b = 0 at first."""

    num_heads: int
    d_head: int
    d_ffc: int
    positions: Positions
    precision: Precision

    @nn.compact
    def __call__(self, memory: Array, x: Array, seen: Array) -> tuple[Array, Array]:
        attention = MemoryAttention(
            self.num_heads, self.d_head, self.positions, self.precision, affine=False, name="attention"
        )
        alpha_attention = self.param("alpha_attention", nn.initializers.zeros, ())
        alpha_ffc = self.param("alpha_ffc", nn.initializers.zeros, ())
        memory, attended = attention(memory, x, seen)
        x = x + alpha_attention * attended
        return memory, x + alpha_ffc * FeedForward(self.d_ffc, self.precision, name="ffc")(x)


class GatedReZeroBlock(nn.Module):
    """h = Gate(x, a relu(attention(x))), out = Gate(h, b relu(ffc(h))); a = b = 0 at first, no LayerNorm.

    Of the Integrated Transformer (Makkink 2021): the gate of GTrXL around the residual of ReZero.
    """

    num_heads: int
    d_head: int
    d_ffc: int
    positions: Positions
    precision: Precision

    @nn.compact
    def __call__(self, memory: Array, x: Array, seen: Array) -> tuple[Array, Array]:
        attention = MemoryAttention(
            self.num_heads, self.d_head, self.positions, self.precision, affine=False, name="attention"
        )
        alpha_attention = self.param("alpha_attention", nn.initializers.zeros, ())
        alpha_ffc = self.param("alpha_ffc", nn.initializers.zeros, ())
        memory, attended = attention(memory, x, seen)
        x = GRUGate(self.precision, name="gate_attention")(x, alpha_attention * nn.relu(attended))
        hidden = FeedForward(self.d_ffc, self.precision, name="ffc")(x)
        return memory, GRUGate(self.precision, name="gate_ffc")(x, alpha_ffc * nn.relu(hidden))


BLOCKS = {
    "gated": GatedBlock,
    "post_norm": PostNormBlock,
    "rezero": ReZeroBlock,
    "gated_rezero": GatedReZeroBlock,
}
