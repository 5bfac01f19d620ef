"""Parts that Mamba-2 and Gated DeltaNet share."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from src_pure.models.layers import uniform
from src_pure.types import Array

KERNEL = 4  # steps that a short convolution sees, as published for both models that have one


class ShortConvolution(nn.Module):
    """(last inputs, out_t = sum_j kernel_j * x_{t-j}, j = 0..3): each feature on its own, within an episode.

    The carry [B, 3, D] holds the last inputs of the episode, the newest last, and zeros before its start.
    """

    use_bias: bool

    @nn.compact
    def __call__(self, carry: Array, x: Array, reset: Array) -> tuple[Array, Array]:
        num_steps, batch_size, size = x.shape
        kernel = self.param("kernel", uniform(-0.5, 0.5), (KERNEL, size))  # as torch: 1 / sqrt 4
        past = jnp.moveaxis(carry, 1, 0)  # [3, B, D]
        keep = jnp.concatenate([jnp.ones((KERNEL - 1, batch_size)), 1.0 - reset])[..., None]
        tokens = jnp.concatenate([past, x])  # [3 + T, B, D]
        reached = jnp.ones((num_steps, batch_size, 1))  # 0 where an episode began in between
        kept = [x[-1]]
        out = kernel[0] * x
        for j in range(1, KERNEL):
            reached = reached * keep[KERNEL - j : KERNEL - j + num_steps]
            earlier = reached * tokens[KERNEL - 1 - j : KERNEL - 1 - j + num_steps]  # x_{t-j}
            out = out + kernel[j] * earlier
            if j < KERNEL - 1:
                kept.append(earlier[-1])
        if self.use_bias:
            out = out + self.param("bias", nn.initializers.zeros, (size,))
        return jnp.stack(kept[::-1], axis=1), out


def _inverse_softplus_step(key, shape, dtype=jnp.float32) -> Array:
    """softplus of it is a step between 0.001 and 0.1, uniform on a logarithmic scale."""
    step = jnp.exp(uniform(math.log(1e-3), math.log(0.1))(key, shape, dtype))
    return step + jnp.log(-jnp.expm1(-step))


class StepSize(nn.Module):
    """(step, log a) [T, B, H] of Mamba-2: step = softplus(x + bias), log a = -exp(log_rate) step."""

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        shape = x.shape[-1:]
        step = jax.nn.softplus(x + self.param("bias", _inverse_softplus_step, shape))
        log_rate = self.param("log_rate", lambda *args: jnp.log(uniform(1.0, 16.0)(*args)), shape)
        return step, -jnp.exp(log_rate) * step


def rms_normalise(x: Array, eps: float = 1e-5) -> Array:
    """x [..., D] divided by its root mean square."""
    return x * lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + eps)
