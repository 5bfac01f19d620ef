"""Spaces: shapes, dtypes and bounds of observations and actions. Static, so that networks can be built from them."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from src_pure.ops.pixels import as_float
from src_pure.types import Array, Key, Number


class Discrete(NamedTuple):
    """Integers 0 .. n - 1, int32."""

    n: int

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    @property
    def dtype(self) -> jnp.dtype:
        return jnp.dtype(jnp.int32)

    @property
    def flat(self) -> "Box":
        """The space of what `flatten` returns: [D]."""
        return Box(0.0, 1.0, (self.n,))

    def flatten(self, x: Array) -> Array:
        """x as a one-hot vector, float32 [n]."""
        return jax.nn.one_hot(x, self.n)

    def clip(self, x: Array) -> Array:
        """x, unchanged."""
        return x

    def sample(self, key: Key) -> Array:
        """A uniformly random one."""
        return jax.random.randint(key, (), 0, self.n)


class Box(NamedTuple):
    """Arrays of one shape and dtype, each entry between low and high."""

    low: Number
    high: Number
    shape: tuple[int, ...]
    dtype: jnp.dtype = jnp.dtype(jnp.float32)

    @property
    def flat(self) -> "Box":
        """The space of what `flatten` returns: [D]."""
        bounds: Any = np.array([self.low, self.high], self.dtype)
        low, high = as_float(bounds)
        return Box(float(low), float(high), (math.prod(self.shape),))

    def flatten(self, x: Array) -> Array:
        """The entries of x as a vector, float32 [D]; pixels, which are uint8, are scaled to [0, 1]."""
        return as_float(x).reshape(-1)

    def clip(self, x: Array) -> Array:
        """x with every entry between low and high."""
        return jnp.clip(x, self.low, self.high)

    def sample(self, key: Key) -> Array:
        """Entries uniform between low and high, which must be finite."""
        return jax.random.uniform(key, self.shape, minval=self.low, maxval=self.high)


Space = Discrete | Box
