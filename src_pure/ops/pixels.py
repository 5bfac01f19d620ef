"""Pixels as numbers."""

import jax.numpy as jnp

from src_pure.types import Array


def as_float(obs: Array) -> Array:
    """float32; pixels, which are uint8, between 0 and 1."""
    return obs.astype(jnp.float32) / 255.0 if obs.dtype == jnp.uint8 else obs.astype(jnp.float32)
