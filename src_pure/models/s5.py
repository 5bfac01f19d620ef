"""S5, a diagonal state space layer (Smith et al., arXiv:2208.04933) whose state is cleared with the episode (Lu et al.,
arXiv:2303.03982). One layer, N / 2 complex states that stand for themselves and their conjugates:

    h_t = exp(lambda delta) h_{t-1} + (exp(lambda delta) - 1) / lambda (B x_t)        y_t = 2 Re(C h_t) + D x_t

with learned time scales delta and lambda = -exp(log_decay) + i imaginary, so that no state grows (S4D, 2206.11893; the
authors learn Re lambda itself and may clip it, which leaves no gradient there). At first lambda are eigenvalues of the
normal part of HiPPO-LegS, and B (real) and C are random in the basis of its eigenvectors; with several blocks, of as
many smaller ones. Around it LayerNorm and a residual GLU(gelu(y)) as in both papers. The code of Lu et al. also
normalises y, with the parameters of that LayerNorm; this does not.
"""

from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from src_pure.models.blocks import REMATERIALISED_GLU_BLOCK, stack
from src_pure.models.layers import Precision, ToComplex, ToReal, uniform
from src_pure.ops.complex_recurrence import Pair, complex_recurrence, polar, times, zeros
from src_pure.ops.precision import einsum
from src_pure.types import Array, Depth, PositiveFloat, PositiveInt


@cache
def hippo(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues [size / 2] and eigenvectors [size, size / 2] of HiPPO-LegS without its part of rank 1: complex.

    They come in conjugate pairs; these are the ones above the real axis.
    """
    n = np.arange(size)
    root = np.sqrt(2.0 * n + 1.0)
    legs = np.tril(np.outer(root, root)) - np.diag(n)
    skew = 0.5 * np.outer(root, root) - legs + 0.5 * np.eye(size)  # the normal part is skew - 1/2
    imaginary, vectors = np.linalg.eigh(-1j * skew)
    return -0.5 + 1j * imaginary[size // 2 :], vectors[:, size // 2 :]


def check_scales(delta_min: float, delta_max: float) -> None:
    if delta_min > delta_max:
        raise ValueError(f"delta_min must be at most delta_max, got {delta_min} and {delta_max}; exchange them")


def check_blocks(d_state: int, num_blocks: int) -> None:
    if d_state % (2 * num_blocks):
        raise ValueError(
            f"d_state must be a multiple of 2 num_blocks, as states come in conjugate pairs, got {d_state} and "
            f"{num_blocks}; change one of them"
        )


def in_basis(num_blocks: int):
    """Initialiser of ToComplex: a real normal B of variance 1 / D, in the basis of the eigenvectors of each block."""

    def initialize(key, shape):
        size, width = shape  # [D, N]: N / 2 states, each with Re and Im
        _, vectors = hippo(width // num_blocks)
        b = size**-0.5 * jax.random.normal(key, (size, num_blocks, len(vectors)))
        parts = [einsum("djn,np->djp", b, jnp.float32(x)) for x in (vectors.real, -vectors.imag)]
        return jnp.concatenate([x.reshape(size, -1) for x in parts], axis=1)

    return initialize


def out_of_basis(num_blocks: int):
    """Initialiser of ToReal: a complex normal C whose parts have variance 1 / N, in the same basis."""

    def initialize(key, shape):
        width, size = shape
        _, vectors = hippo(width // num_blocks)
        re, im = width**-0.5 * jax.random.normal(key, (2, num_blocks, len(vectors), size))
        v_re, v_im = jnp.float32(vectors.real), jnp.float32(vectors.imag)
        by_vector = partial(einsum, "jnd,np->jpd")
        parts = [by_vector(re, v_re) - by_vector(im, v_im), -by_vector(re, v_im) - by_vector(im, v_re)]
        return jnp.concatenate([x.reshape(-1, size) for x in parts])

    return initialize


def discretized(real: Array, imaginary: Array, delta: Array) -> tuple[Pair, Pair]:
    """(exp(lambda delta), (exp(lambda delta) - 1) / lambda): a zero-order hold."""
    growth, angle = real * delta, imaginary * delta
    decay = polar(growth, angle)
    less_one = jnp.expm1(growth) * jnp.cos(angle) - 2.0 * jnp.square(jnp.sin(angle / 2.0))  # without cancellation
    square = jnp.square(real) + jnp.square(imaginary)
    return decay, times(Pair(less_one, decay.im), Pair(real / square, -imaginary / square))


class S5Memory(nn.Module):
    """The recurrence of one layer between its dense layers."""

    d_state: int
    num_blocks: int
    delta_min: float
    delta_max: float
    precision: Precision

    @nn.compact
    def __call__(self, carry: Pair, x: Array, reset: Array) -> tuple[Pair, Array]:
        size, width = self.d_state // 2, x.shape[-1]
        eigenvalues = np.tile(hippo(self.d_state // self.num_blocks)[0], self.num_blocks)
        log_decay = self.param("log_decay", lambda key: jnp.log(jnp.float32(-eigenvalues.real)))
        imaginary = self.param("imaginary", lambda key: jnp.float32(eigenvalues.imag))
        log_delta = self.param("log_delta", uniform(np.log(self.delta_min), np.log(self.delta_max)), (size,))
        skip = self.param("skip", nn.initializers.normal(1.0), (width,))

        decay, held = discretized(-jnp.exp(log_decay), imaginary, jnp.exp(log_delta))
        inputs = times(held, ToComplex(size, in_basis(self.num_blocks), self.precision, name="in")(x))
        states = complex_recurrence("identity", carry, decay, 1.0 - reset, inputs)
        read = ToReal(width, out_of_basis(self.num_blocks), self.precision, name="out")(states)
        return jax.tree.map(lambda h: h[-1], states), 2.0 * read + skip * x


class S5(nn.Module):
    """A stack of layers; the first dense layer accepts any D_in."""

    num_layers: Depth = 4
    d_model: PositiveInt = 256
    d_state: PositiveInt = 256  # N: the numbers in the state of a layer
    num_blocks: PositiveInt = 1
    delta_min: PositiveFloat = 0.001
    delta_max: PositiveFloat = 0.1
    precision: Precision = "float32"

    def __post_init__(self):
        check_blocks(self.d_state, self.num_blocks)
        check_scales(self.delta_min, self.delta_max)
        super().__post_init__()

    def initialize_carry(self, batch_size: int) -> tuple[Pair, ...]:
        return (zeros(batch_size, self.d_state // 2),) * self.num_layers

    @nn.compact
    def __call__(self, carry: tuple[Pair, ...], inputs: Array, reset: Array) -> tuple[tuple[Pair, ...], Array]:
        def block(name):
            scales = self.delta_min, self.delta_max
            memory = S5Memory(self.d_state, self.num_blocks, *scales, self.precision, parent=None)
            return REMATERIALISED_GLU_BLOCK(memory, self.precision, name=name)

        return stack(block, carry, inputs, reset, self.d_model, self.precision)
