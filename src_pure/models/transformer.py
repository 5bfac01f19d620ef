"""Transformers with memory: GTrXL, Transformer-XL, ReZero and the canonical one, by residual and positions.

    gtrxl         residual gated      positions relative    Parisotto et al., arXiv:1910.06764
    trxl          residual post_norm  positions relative    Dai et al., arXiv:1901.02860
    transformer   residual post_norm  positions absolute    Vaswani et al., arXiv:1706.03762, counted in the episode
    rezero        residual rezero     positions relative    Bachlechner et al., arXiv:2003.04887

A step attends to itself and to the last `memory_len` steps of its own episode, in acting and in learning alike.

The memory of a layer is the last M inputs of its attention, [B, M, D]. If a LayerNorm precedes attention, these are
normalised inputs before its affine part: their statistics need no parameters, so old inputs are never normalised again.
"""

from typing import Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from src_pure.models.blocks import BLOCKS, PRE_NORM, FeedForward, Residual
from src_pure.models.layers import Precision, as_float32, dense, episode_time, head_size, heads
from src_pure.ops.attention import Reader, Relative, attend, sinusoids
from src_pure.ops.dense import product
from src_pure.ops.precision import matmul
from src_pure.types import Array, Depth, PositiveInt

NORM_EPS = 1e-6  # as nn.LayerNorm

Positions = Literal["relative", "absolute"]


def normalise(x: Array) -> Array:
    """LayerNorm of [..., D] without its affine part."""
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    return centred * lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + NORM_EPS)


class MemoryAttention(nn.Module):
    """Projections around `ops.attention.attend`: (memory, out [T, B, D]) of tokens [T, B, D], seen [T, B].

    With `affine` it projects tokens * scale + offset, both learned: the affine part of the LayerNorm before it.
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
        query = heads(as_float32(product(normed, kernel)), self.num_heads)
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
            distances=heads(matmul(sinusoids(falling, size), self.kernel("distance", size)), self.num_heads),
        )


def attention_block(
    residual: Residual,
    num_heads: int,
    d_head: int,
    d_ffc: int,
    positions: Positions,
    precision: Precision,
    name: str,
) -> nn.Module:
    """A block around MemoryAttention, a submodule of the model that calls this."""
    attention = MemoryAttention(num_heads, d_head, positions, precision, affine=residual in PRE_NORM, parent=None)
    return BLOCKS[residual](attention, normalise, FeedForward(d_ffc, precision, parent=None), precision, name=name)


class TransformerCarry(NamedTuple):
    memory: tuple[Array, ...]  # [B, M, D] of each layer: a ring of its inputs
    time: Array  # [B] int32, steps of the episode so far: shows which slots of the memory are valid


def initial_carry(batch_size: int, num_layers: int, memory_len: int, d_model: int) -> TransformerCarry:
    memory = tuple(jnp.zeros((batch_size, memory_len, d_model)) for _ in range(num_layers))
    return TransformerCarry(memory, jnp.zeros(batch_size, jnp.int32))


def check_sizes(d_model: int, num_heads: int, d_head: int | None, memory_len: int) -> None:
    """Raises ValueError for sizes that a transformer cannot have."""
    head_size(d_model, num_heads, d_head)
    if d_model % 2:
        raise ValueError(f"d_model must be even, a sine and a cosine for each frequency of a position, got {d_model}")
    if memory_len < 1:
        raise ValueError(f"memory_len must be at least 1, got {memory_len}; model=mlp is the model without memory")


class Transformer(nn.Module):
    """A stack of transformer layers; the first dense layer accepts any D_in."""

    num_layers: Depth = 4
    d_model: PositiveInt = 128
    num_heads: PositiveInt = 4
    d_head: PositiveInt | None = 64  # None: d_model / num_heads
    d_ffc: PositiveInt = 128
    memory_len: PositiveInt = 128
    residual: Residual = "gated"
    positions: Positions = "relative"
    precision: Precision = "float32"

    def __post_init__(self):
        check_sizes(self.d_model, self.num_heads, self.d_head, self.memory_len)
        super().__post_init__()

    def initialize_carry(self, batch_size: int) -> TransformerCarry:
        return initial_carry(batch_size, self.num_layers, self.memory_len, self.d_model)

    @nn.compact
    def __call__(self, carry: TransformerCarry, inputs: Array, reset: Array) -> tuple[TransformerCarry, Array]:
        d_head = head_size(self.d_model, self.num_heads, self.d_head)
        time = episode_time(carry.time, reset)
        seen = time - 1
        x = as_float32(nn.relu(dense(self.d_model, precision=self.precision, name="embed")(inputs)))
        if self.positions == "absolute":
            x = x + sinusoids(seen, self.d_model)
        memories = []
        for i, memory in enumerate(carry.memory):
            layer = attention_block(
                self.residual, self.num_heads, d_head, self.d_ffc, self.positions, self.precision, name=f"block_{i}"
            )
            memory, x = layer(memory, x, seen)
            memories.append(memory)
        return TransformerCarry(tuple(memories), time[-1]), x
