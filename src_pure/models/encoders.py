"""Encoders: an observation [T, B, ...] -> features [T, B, D]; ValueError for an observation that does not fit."""

import flax.linen as nn
import jax.numpy as jnp

from src_pure.models.layers import dense
from src_pure.types import Array, PositiveInt


def as_float(obs: Array) -> Array:
    """float32; pixels, which are uint8, between 0 and 1."""
    return obs.astype(jnp.float32) / 255.0 if obs.dtype == jnp.uint8 else obs.astype(jnp.float32)


def flatten(obs: Array) -> Array:
    """[T, B, ...] -> [T, B, D] float32."""
    return as_float(obs).reshape(*obs.shape[:2], -1)


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


class ConvEncoder(nn.Module):
    """Convolutions without padding, each with a relu, flattened (Mnih et al., 2015); obs [T, B, width, height, C]."""

    channels: tuple[PositiveInt, ...] = (32, 64, 64)
    kernels: tuple[PositiveInt, ...] = (8, 4, 3)
    strides: tuple[PositiveInt, ...] = (4, 2, 1)

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        if not len(self.channels) == len(self.kernels) == len(self.strides):
            sizes = (self.channels, self.kernels, self.strides)
            raise ValueError(f"channels, kernels and strides need one number per layer, got {sizes}")
        if obs.ndim != 5:
            raise ValueError(
                "conv needs pixels [width, height, channels], but the task's observation has shape "
                f"{list(obs.shape[2:])}; choose encoder=mlp or encoder=none"
            )
        x = as_float(obs)
        for channels, kernel, stride in zip(self.channels, self.kernels, self.strides, strict=True):
            if min(x.shape[2:4]) < kernel:
                raise ValueError(
                    f"a kernel of {kernel} is larger than what is left of the observation {list(obs.shape[2:])}, "
                    f"{list(x.shape[2:4])}; choose smaller encoder.kernels or encoder.strides"
                )
            kernel_init = nn.initializers.orthogonal(2.0**0.5)
            conv = nn.Conv(channels, (kernel, kernel), stride, padding="VALID", kernel_init=kernel_init)
            x = nn.relu(conv(x))
        return flatten(x)
