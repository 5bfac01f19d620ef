"""RTU, recurrent trace units (Elelimy et al., arXiv:2409.01449). With e = relu(Dense(x)) and f = relu, N complex units:

    linear       h_t = lambda h_{t-1} + sqrt(1 - |lambda|^2) W e_t,     out = f(Re h_t), f(Im h_t)
    nonlinear    h_t = f(lambda h_{t-1} + sqrt(1 - |lambda|^2) W e_t)   out = Re h_t, Im h_t,    f of both parts

lambda = exp(-exp(nu) + i exp(theta)) as in an LRU; what differs is that the size of the inputs follows from lambda and
that no matrix mixes the units, so that real-time learning costs no more than a step. Here they learn from rollouts, by
backpropagation through time as all models do. The authors' kernels are LeCun normal, these are orthogonal.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from src_pure.models.layers import Precision, ToComplex, as_float32, dense
from src_pure.models.lru import check_ring, phase, ring
from src_pure.ops.complex_recurrence import Pair, complex_recurrence, polar, scaled, zeros
from src_pure.types import Array, PositiveFloat, PositiveInt, UnitFloat

Recurrence = Literal["linear", "nonlinear"]


class RTU(nn.Module):
    size: PositiveInt = 128  # outputs; N is half of it
    recurrence: Recurrence = "linear"
    r_min: UnitFloat = 0.0
    r_max: UnitFloat = 1.0
    max_phase: PositiveFloat = 6.28
    precision: Precision = "float32"

    def __post_init__(self):
        if self.size % 2:
            raise ValueError(f"size must be even, got {self.size}; a complex unit has two outputs")
        check_ring(self.r_min, self.r_max)
        super().__post_init__()

    def initialize_carry(self, batch_size: int) -> Pair:
        return zeros(batch_size, self.size // 2)

    @nn.compact
    def __call__(self, carry: Pair, inputs: Array, reset: Array) -> tuple[Pair, Array]:
        x = nn.relu(dense(self.size, precision=self.precision, name="embed")(inputs))
        nu = self.param("nu", ring(self.r_min, self.r_max), (self.size // 2,))
        theta = self.param("theta", phase(self.max_phase), (self.size // 2,))
        size_of_inputs = jnp.sqrt(-jnp.expm1(-2.0 * jnp.exp(nu)))
        x = ToComplex(self.size // 2, nn.initializers.orthogonal(1.0), self.precision, name="in")(as_float32(x))
        activation = "relu" if self.recurrence == "nonlinear" else "identity"
        decay = polar(-jnp.exp(nu), jnp.exp(theta))
        states = complex_recurrence(activation, carry, decay, 1.0 - reset, scaled(size_of_inputs, x))
        out = nn.relu(jnp.concatenate(states, axis=-1))  # changes nothing if the recurrence did it
        return jax.tree.map(lambda h: h[-1], states), out
