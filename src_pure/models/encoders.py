"""Encoders: an observation [T, B, ...] -> features [T, B, D]; ValueError if the observation does not fit."""

from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp
from annotated_types import MaxLen
from jax import lax

from src_pure.models.layers import dense
from src_pure.ops.pixels import as_float
from src_pure.types import Array, PositiveInt

Sizes = Annotated[tuple[PositiveInt, ...], MaxLen(100)]  # one per layer


def flatten(obs: Array) -> Array:
    """[T, B, ...] -> [T, B, D] float32."""
    return as_float(obs).reshape(*obs.shape[:2], -1)


class Flatten(nn.Module):
    """The flat observation; the memory model has its own first layer."""

    def __call__(self, obs: Array) -> Array:
        return flatten(obs)


class MLPEncoder(nn.Module):
    sizes: Sizes = (128,)

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        x = flatten(obs)
        for size in self.sizes:
            x = nn.relu(dense(size)(x))
        return x


class ConvEncoder(nn.Module):
    """Convolutions without padding, each with a relu, flattened (Mnih et al., 2015); obs [T, B, width, height, C]."""

    channels: Sizes = (32, 64, 64)
    kernels: Sizes = (8, 4, 3)
    strides: Sizes = (4, 2, 1)

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
            x = Convolution(channels, kernel, stride)(x)
        return flatten(x)


class ImpalaEncoder(nn.Module):
    """The residual network of IMPALA (Espeholt et al., arXiv:1802.01561, figure 3); obs [T, B, height, width, C].

    For each entry of `channels` a convolution, a maximum over 3 x 3 pixels at every second one, and two residual blocks
    of two convolutions; all are 3 x 3. Then a dense layer of `size` features. Convolutions are XLA's own: fast on an
    accelerator, slow on a CPU, where ConvEncoder is the choice.
    """

    channels: Sizes = (16, 32, 32)
    size: PositiveInt = 256

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        needed = 2 ** len(self.channels)
        if obs.ndim != 5 or min(obs.shape[2:4]) < needed:
            raise ValueError(
                f"impala needs pixels [height, width, channels] of at least {needed} x {needed}, but the task's "
                f"observation has shape {list(obs.shape[2:])}; choose encoder=mlp or encoder=none"
            )
        x = as_float(obs).reshape(-1, *obs.shape[2:])
        for channels in self.channels:
            x = nn.max_pool(_convolution(channels)(x), (3, 3), strides=(2, 2), padding="SAME")
            for _ in range(2):
                residual = _convolution(channels)(nn.relu(x))
                x += _convolution(channels)(nn.relu(residual))
        x = nn.relu(x).reshape(*obs.shape[:2], -1)
        return nn.relu(dense(self.size)(x))


def _convolution(channels: int) -> nn.Conv:
    """3 x 3 pixels, as many as before."""
    kernel_init = nn.initializers.orthogonal(2.0**0.5)
    return nn.Conv(channels, (3, 3), kernel_init=kernel_init, precision=lax.Precision.HIGHEST)


class Convolution(nn.Module):
    """relu of a convolution without padding, [T, B, W, H, C] -> [T, B, W', H', channels], as one matrix product.

    On CPU, XLA's own convolution takes 25 times as long if its gradient is inside a loop, as in training (52 instead of
    2 ms for an 84 x 84 frame). With a different kernel for each run it becomes a grouped one, which is slower still.
    """

    channels: int
    kernel: int
    stride: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return nn.relu(dense(self.channels)(patches(x, self.kernel, self.stride)))


def patches(x: Array, size: int, stride: int) -> Array:
    """[T, B, W, H, C] -> [T, B, W', H', size * size * C]: the squares that a convolution reads.

    Features count the pixels of a square downwards (H) first, then across (W), then their channels.
    """
    for axis in (2, 3):
        last = (x.shape[axis] - size) // stride * stride
        shifted = [lax.slice_in_dim(x, start, start + last + 1, stride, axis) for start in range(size)]
        x = jnp.concatenate(shifted, axis=-1)
    return x
