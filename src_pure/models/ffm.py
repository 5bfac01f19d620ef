"""FFM, fast and forgetful memory (Morad et al., arXiv:2310.04128, section 4). Its state S [M, C] is complex:

    S_t = exp(a + i w) S_{t-1} + (l1(x_t) sigmoid(l2(x_t))) 1^T         exp(a + i w) [M, C], a [M] and w [C] learned
    y_t = LN(l3(Re S_t, Im S_t)) g + l4(x_t) (1 - g),    g = sigmoid(l5(x_t))

l are dense layers and LN a LayerNorm without parameters. The trace a is at most -1e-6, so that no state grows. At first
the M traces lie evenly from -e to -1e-6 and the C periods 2 pi / w evenly from 1 to `max_period` steps, as in the
authors' JAX code. Each input is written into C columns alike, so its gradient is their sum.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from src_pure.models.layers import Precision, as_float32, dense
from src_pure.ops.complex_recurrence import Pair, complex_recurrence, polar, zeros
from src_pure.types import Array, PositiveFloat, PositiveInt

LARGEST_TRACE = -1e-6


class FFM(nn.Module):
    d_model: PositiveInt = 128  # outputs
    memory_size: PositiveInt = 32  # M
    context_size: PositiveInt = 4  # C
    max_period: PositiveFloat = 1024.0
    precision: Precision = "float32"

    def initialize_carry(self, batch_size: int) -> Pair:
        return zeros(batch_size, self.memory_size, self.context_size)

    @nn.compact
    def __call__(self, carry: Pair, inputs: Array, reset: Array) -> tuple[Pair, Array]:
        memory, width = self.memory_size, self.d_model
        raw = dense(2 * (memory + width), scale=1.0, precision=self.precision, name="inputs")(inputs)
        written, through, gate_in, gate_out = jnp.split(
            as_float32(raw), (memory, memory + width, 2 * memory + width), axis=-1
        )
        states = self.aggregate(carry, written * nn.sigmoid(gate_in), 1.0 - reset)
        re, im = (part.reshape(*reset.shape, -1) for part in states)  # [T, B, M C]
        read = as_float32(dense(width, scale=1.0, precision=self.precision, name="mix_re")(re))
        read += as_float32(dense(width, scale=1.0, use_bias=False, precision=self.precision, name="mix_im")(im))
        gate = nn.sigmoid(gate_out)
        out = gate * nn.LayerNorm(use_scale=False, use_bias=False)(read) + (1.0 - gate) * through
        return jax.tree.map(lambda s: s[-1], states), out

    def aggregate(self, carry: Pair, written: Array, keep: Array) -> Pair:
        """The states [T, B, M, C] after writing [T, B, M]."""
        traces = np.linspace(-np.e, LARGEST_TRACE, self.memory_size)
        frequencies = 2.0 * np.pi / np.linspace(1.0, self.max_period, self.context_size)
        a = self.param("trace", lambda key: jnp.float32(traces))
        w = self.param("frequency", lambda key: jnp.float32(frequencies))
        decay = polar(jnp.minimum(a, LARGEST_TRACE)[:, None], w)  # [M, C]
        column = written[..., None]  # the same in all C columns, and real
        return complex_recurrence("identity", carry, decay, keep, Pair(column, jnp.zeros_like(column)))
