"""Transformers that apply one shared block again and again, until each token halts.

    universal     residual post_norm     positions absolute    Dehghani et al., arXiv:1807.03819
    integrated    residual gated_rezero  positions relative    Makkink 2021: memory of Transformer-XL, gates, ReZero

Adaptive computation time (Graves, arXiv:1603.08983): after iteration n a token in state s_n halts with probability
p_n = sigmoid(w . s_n + b). It stops at the first N where p_1 + ... + p_N reaches the threshold, and is

    sum_n weight_n s_n,    weight_n = p_n for n < N,    weight_N = 1 - p_1 - ... - p_{N-1}.

From then on its state is copied, so that a token that thinks longer can attend to it. There is no penalty on N.
"""

import flax.linen as nn
import jax.numpy as jnp

from src_pure.models.blocks import Residual
from src_pure.models.layers import Precision, as_float32, dense, episode_time, head_size
from src_pure.models.transformer import Positions, TransformerCarry, attention_block, check_sizes, initial_carry
from src_pure.ops.attention import sinusoids
from src_pure.ops.precision import FULL
from src_pure.types import Array, PositiveInt, UnitFloat


class AdaptiveTransformer(nn.Module):
    """One block, applied at most `max_iterations` times; the memory keeps the inputs of each iteration.

    Sows N [T, B], the iterations that each token took, as `ponder_steps` among the intermediates.
    """

    max_iterations: PositiveInt = 6
    halting_threshold: UnitFloat = 0.9
    d_model: PositiveInt = 128
    num_heads: PositiveInt = 4
    d_head: PositiveInt | None = 64  # None: d_model / num_heads
    d_ffc: PositiveInt = 128
    memory_len: PositiveInt = 128
    residual: Residual = "post_norm"
    positions: Positions = "absolute"
    precision: Precision = "float32"

    def __post_init__(self):
        check_sizes(self.d_model, self.num_heads, self.d_head, self.memory_len)
        super().__post_init__()

    def initialize_carry(self, batch_size: int) -> TransformerCarry:
        return initial_carry(batch_size, self.max_iterations, self.memory_len, self.d_model)

    @nn.compact
    def __call__(self, carry: TransformerCarry, inputs: Array, reset: Array) -> tuple[TransformerCarry, Array]:
        d_head = head_size(self.d_model, self.num_heads, self.d_head)
        block = attention_block(
            self.residual, self.num_heads, d_head, self.d_ffc, self.positions, self.precision, name="block"
        )
        orthogonal, ones = nn.initializers.orthogonal(), nn.initializers.ones
        halting = nn.Dense(1, precision=FULL, kernel_init=orthogonal, bias_init=ones, name="halting")
        time = episode_time(carry.time, reset)
        x = as_float32(nn.relu(dense(self.d_model, precision=self.precision, name="embed")(inputs)))

        mean = jnp.zeros_like(x)
        halted_mass = jnp.zeros(reset.shape)  # p_1 + ... + p_n
        running = jnp.ones(reset.shape, bool)
        ponder_steps = jnp.zeros(reset.shape)
        memories = []
        for n, memory in enumerate(carry.memory):
            memory, new = block(memory, x + self.coordinates(time - 1, n), time - 1)
            memories.append(memory)
            x = jnp.where(running[..., None], new, x)
            probability = nn.sigmoid(halting(x))[..., 0]
            last = (halted_mass + probability >= self.halting_threshold) | (n + 1 == self.max_iterations)
            weight = jnp.where(last, 1.0 - halted_mass, probability) * running
            mean += weight[..., None] * x
            ponder_steps += running
            halted_mass += weight
            running &= ~last
        self.sow("intermediates", "ponder_steps", ponder_steps)
        return TransformerCarry(tuple(memories), time[-1]), mean

    def coordinates(self, seen: Array, iteration: int) -> Array | float:
        """The code of step and iteration, [T, B, D]; 0 with relative positions, which do not need it."""
        if self.positions == "relative":
            return 0.0
        return sinusoids(seen, self.d_model) + sinusoids(jnp.asarray(iteration), self.d_model)
