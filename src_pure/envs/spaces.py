"""Spaces: what an observation or an action looks like. Static, so that networks can be built from them."""

from typing import NamedTuple

import jax.numpy as jnp


class Discrete(NamedTuple):
    """Integers 0 .. n - 1, int32."""

    n: int

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    @property
    def dtype(self) -> jnp.dtype:
        return jnp.dtype(jnp.int32)


class Box(NamedTuple):
    """Arrays of one shape and dtype, each entry between low and high."""

    low: float
    high: float
    shape: tuple[int, ...]
    dtype: jnp.dtype = jnp.dtype(jnp.float32)


Space = Discrete | Box
