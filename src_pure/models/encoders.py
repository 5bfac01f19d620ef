"""Encoders: an observation [T, B, ...] -> features [T, B, D]."""

import flax.linen as nn
import jax.numpy as jnp

from src_pure.models.layers import dense
from src_pure.types import Array, PositiveInt


def flatten(obs: Array) -> Array:
    """[T, B, ...] -> [T, B, D] float32."""
    return obs.reshape(*obs.shape[:2], -1).astype(jnp.float32)


class Flatten(nn.Module):
    """The observation itself; the memory model has a first layer of its own."""

    def __call__(self, obs: Array) -> Array:
        return flatten(obs)


class MLPEncoder(nn.Module):
    sizes: tuple[PositiveInt, ...] = (128,)

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        x = flatten(obs)
        for size in self.sizes:
            x = nn.relu(dense(size)(x))
        return x
