"""LRU, the linear recurrent unit (Orvieto et al., arXiv:2303.06349, section 3). One layer, N complex states:

    h_t = lambda h_{t-1} + exp(gamma) (B x_t),    lambda = exp(-exp(nu) + i exp(theta)),    y_t = Re(C h_t) + D x_t

so that |lambda| < 1 whatever is learned. At first lambda is uniform on the ring between r_min and r_max, exp(gamma) =
sqrt(1 - |lambda|^2) keeps the size of the inputs, and B, C and D are normal. Around it the paper's block, a residual
GLU(gelu(y)), with LayerNorm instead of batch normalisation, which would mix the rows of a batch.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from src_pure.models.blocks import REMATERIALISED_GLU_BLOCK, stack
from src_pure.models.layers import Precision, ToComplex, ToReal
from src_pure.ops.complex_recurrence import Pair, complex_recurrence, polar, scaled, zeros
from src_pure.types import Array, Depth, PositiveFloat, PositiveInt, UnitFloat

SMALLEST = 1e-6  # of uniform numbers whose logarithm is taken

# variances are those of B, 1 / (2 D) for each part, and C, 1 / N
normal = partial(nn.initializers.variance_scaling, mode="fan_in", distribution="normal")


def ring(r_min: float, r_max: float):
    """Initialiser of nu = log(-log |lambda|), with |lambda|^2 uniform between the squares of r_min and r_max."""

    def initialize(key, shape):
        uniform = jax.random.uniform(key, shape, minval=SMALLEST)
        return jnp.log(-0.5 * jnp.log(uniform * (r_max**2 - r_min**2) + r_min**2))

    return initialize


def phase(max_phase: float):
    """Initialiser of theta, the logarithm of an angle that is uniform up to max_phase."""
    return lambda key, shape: jnp.log(max_phase * jax.random.uniform(key, shape, minval=SMALLEST))


def check_ring(r_min: float, r_max: float) -> None:
    if r_min >= r_max:
        raise ValueError(f"r_min must be less than r_max, got {r_min} and {r_max}; the moduli start between the two")


class LRUMemory(nn.Module):
    """The recurrence of one layer between its dense layers."""

    d_state: int
    r_min: float
    r_max: float
    max_phase: float
    precision: Precision

    @nn.compact
    def __call__(self, carry: Pair, x: Array, reset: Array) -> tuple[Pair, Array]:
        nu = self.param("nu", ring(self.r_min, self.r_max), (self.d_state,))
        theta = self.param("theta", phase(self.max_phase), (self.d_state,))
        gamma = self.param("gamma", lambda key: 0.5 * jnp.log(-jnp.expm1(-2.0 * jnp.exp(nu))))
        skip = self.param("skip", nn.initializers.normal(1.0), (x.shape[-1],))

        inputs = ToComplex(self.d_state, normal(0.5), self.precision, name="in")(x)
        decay = polar(-jnp.exp(nu), jnp.exp(theta))
        states = complex_recurrence("identity", carry, decay, 1.0 - reset, scaled(jnp.exp(gamma), inputs))
        read = ToReal(x.shape[-1], normal(2.0), self.precision, name="out")(states)
        return jax.tree.map(lambda h: h[-1], states), read + skip * x


class LRU(nn.Module):
    """A stack of layers; the first dense layer accepts any D_in."""

    num_layers: Depth = 4
    d_model: PositiveInt = 128
    d_state: PositiveInt = 128  # complex
    r_min: UnitFloat = 0.9
    r_max: UnitFloat = 0.999
    max_phase: PositiveFloat = 6.28
    precision: Precision = "float32"

    def __post_init__(self):
        check_ring(self.r_min, self.r_max)
        super().__post_init__()

    def initialize_carry(self, batch_size: int) -> tuple[Pair, ...]:
        return (zeros(batch_size, self.d_state),) * self.num_layers

    @nn.compact
    def __call__(self, carry: tuple[Pair, ...], inputs: Array, reset: Array) -> tuple[tuple[Pair, ...], Array]:
        def block(name):
            memory = LRUMemory(self.d_state, self.r_min, self.r_max, self.max_phase, self.precision, parent=None)
            return REMATERIALISED_GLU_BLOCK(memory, self.precision, name=name)

        return stack(block, carry, inputs, reset, self.d_model, self.precision)
