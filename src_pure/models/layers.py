"""Layers that several memory models share, all initialised alike: orthogonal kernels and zero biases.

The scale of a kernel is sqrt 2, or 1 where no relu follows, as in LSTM and GRU. Only the gates of GTrXL and the layer
that halts start with other biases. The kernels around a complex state have the initialisation of their papers.

`precision` is that of dense layers: of the factors of their products and of the result. Parameters, residuals, norms,
gates, scores, softmax and recurrences (including the product with h in GRU and LSTM) are always float32, and so are
carries and outputs of a memory model.
"""

from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.nn.initializers import Initializer

from src_pure.ops.complex_recurrence import Pair
from src_pure.ops.dense import product
from src_pure.types import Array

Precision = Literal["float32", "bfloat16"]
GATE_BIAS = 2.0  # the gate starts mostly closed, so that a block starts close to the identity


def _dot_general(x: Array, kernel: Array, dimension_numbers, precision) -> Array:
    """`product` with the arguments that flax passes; for a dense layer the last two are always the same."""
    return product(x, kernel)


_Dense = partial(nn.Dense, dot_general=_dot_general)


def dense(
    features: int,
    *,
    scale: float = 2.0**0.5,
    use_bias: bool = True,
    precision: Precision = "float32",
    name: str | None = None,
) -> nn.Dense:
    kernel_init = nn.initializers.orthogonal(scale)
    return _Dense(features, use_bias=use_bias, dtype=jnp.dtype(precision), kernel_init=kernel_init, name=name)


def as_float32(x: Array) -> Array:
    """The result of a dense layer as float32, in which sums are made."""
    return x.astype(jnp.float32)


def stacked_orthogonal(scale: float = 2.0**0.5):
    """Initialiser of n square kernels next to each other, [D, n D], each orthogonal on its own."""
    orthogonal = nn.initializers.orthogonal(scale)

    def initialize(key, shape, dtype=jnp.float32):
        size, width = shape
        keys = jax.random.split(key, width // size)
        return jnp.concatenate([orthogonal(key, (size, size), dtype) for key in keys], axis=1)

    return initialize


def uniform(low: float, high: float):
    """Initialiser of numbers uniform between two others."""
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, low, high)


class ToComplex(nn.Module):
    """B x as a float32 pair; the kernel [D, 2 N] is Re B next to Im B."""

    size: int  # N
    kernel_init: Initializer
    precision: Precision = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Pair:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], 2 * self.size))
        x, kernel = x.astype(self.precision), kernel.astype(self.precision)
        return Pair(*(as_float32(product(x, half)) for half in jnp.split(kernel, 2, axis=1)))


class ToReal(nn.Module):
    """Re(C h) as float32; the kernel [2 N, D] is Re C above -Im C."""

    size: int  # D
    kernel_init: Initializer
    precision: Precision = "float32"

    @nn.compact
    def __call__(self, h: Pair) -> Array:
        kernel = self.param("kernel", self.kernel_init, (2 * h.re.shape[-1], self.size)).astype(self.precision)
        halves = zip(h, jnp.split(kernel, 2), strict=True)
        re, im = (as_float32(product(x.astype(self.precision), half)) for x, half in halves)
        return re + im


def episode_time(time: Array, reset: Array) -> Array:
    """[T, B] step counter, 1 at the first step of an episode; time [B] is its value before the sequence."""
    steps = jnp.arange(1, reset.shape[0] + 1)[:, None]
    started = lax.cummax(jnp.where(reset, steps, 0))
    return jnp.where(started > 0, steps - started + 1, time + steps)


def heads(x: Array, num_heads: int) -> Array:
    """[..., H * K] -> [..., H, K]: neighbouring features belong to one head."""
    return x.reshape(*x.shape[:-1], num_heads, -1)


class GRUGate(nn.Module):
    """Gated residual of GTrXL (Parisotto et al., arXiv:1910.06764, eq. 9): (1 - z) x + z n.

    r = sigmoid(Wr y + Ur x), z = sigmoid(Wz y + Uz x - bias), n = tanh(Wg y + Ug (r x)); W and U without bias.
    """

    precision: Precision = "float32"

    @nn.compact
    def __call__(self, x: Array, y: Array) -> Array:
        size = x.shape[-1]
        from_y = as_float32(self.projection(3 * size, "w")(y))
        from_x = as_float32(self.projection(2 * size, "u")(x))
        bias = self.param("bias", nn.initializers.constant(GATE_BIAS), (size,))
        y_r, y_z, y_n = jnp.split(from_y, 3, axis=-1)
        x_r, x_z = jnp.split(from_x, 2, axis=-1)
        r = nn.sigmoid(y_r + x_r)
        z = nn.sigmoid(y_z + x_z - bias)
        x_n = as_float32(self.projection(size, "u_n")(r * x))
        out = x + z * (jnp.tanh(y_n + x_n) - x)
        # without the barrier XLA computes the gradient again for each use, all the way from the last gate
        return lax.optimization_barrier(out)

    def projection(self, features: int, name: str) -> nn.Dense:
        dtype = jnp.dtype(self.precision)
        return _Dense(features, use_bias=False, dtype=dtype, kernel_init=stacked_orthogonal(), name=name)


def head_size(d_model: int, num_heads: int, d_head: int | None) -> int:
    """d_head, or if it is None d_model / num_heads; raises ValueError if that is not an integer."""
    if d_head is None and d_model % num_heads:
        raise ValueError(
            f"d_model must be a multiple of num_heads where d_head is null, got {d_model} and {num_heads}; "
            "change one of them or set d_head"
        )
    return d_model // num_heads if d_head is None else d_head
