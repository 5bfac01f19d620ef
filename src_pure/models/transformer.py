"""Transformers with memory: GTrXL, Transformer-XL, ReZero and the canonical one, by residual and positions.

    gtrxl         residual gated      positions relative    Parisotto et al., arXiv:1910.06764
    trxl          residual post_norm  positions relative    Dai et al., arXiv:1901.02860
    transformer   residual post_norm  positions absolute    Vaswani et al., arXiv:1706.03762, counted in the episode
    rezero        residual rezero     positions relative    Bachlechner et al., arXiv:2003.04887

A step attends to itself and to the last `memory_len` steps of its own episode, in acting and in learning alike.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from src_pure.models.layers import Precision, dense, episode_time, full, head_size
from src_pure.models.transformer_blocks import BLOCKS, Positions, Residual
from src_pure.ops.attention import sinusoids
from src_pure.types import Array, Depth, PositiveInt


class TransformerCarry(NamedTuple):
    memory: tuple[Array, ...]  # [B, M, D] of each layer: a ring of its inputs
    time: Array  # [B] int32, steps of the episode so far; says what of the memory is valid


def initial_carry(batch_size: int, num_layers: int, memory_len: int, d_model: int) -> TransformerCarry:
    memory = tuple(jnp.zeros((batch_size, memory_len, d_model)) for _ in range(num_layers))
    return TransformerCarry(memory, jnp.zeros(batch_size, jnp.int32))


def check_sizes(d_model: int, num_heads: int, d_head: int | None, memory_len: int) -> None:
    """Raises ValueError where no transformer has these sizes."""
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
        block = BLOCKS[self.residual]
        time = episode_time(carry.time, reset)
        seen = time - 1
        x = full(nn.relu(dense(self.d_model, precision=self.precision, name="embed")(inputs)))
        if self.positions == "absolute":
            x = x + sinusoids(seen, self.d_model)
        memories = []
        for i, memory in enumerate(carry.memory):
            layer = block(self.num_heads, d_head, self.d_ffc, self.positions, self.precision, name=f"block_{i}")
            memory, x = layer(memory, x, seen)
            memories.append(memory)
        return TransformerCarry(tuple(memories), time[-1]), x
