"""Distributions over actions by their parameters [..., A]: categorical by logits, or an independent Gaussian per entry.

An action of the first is an integer [...], one of the second a vector [..., A]; log_prob and entropy are [...].
"""

import math

import jax
import jax.numpy as jnp

from src_pure.ops.precision import in_32_bits
from src_pure.types import Array, Gaussian, Key

LOG_SQRT_2_PI = 0.5 * math.log(2.0 * math.pi)


@in_32_bits
def sample(key: Key, params: Array | Gaussian) -> Array:
    """An action, drawn in 32 bits also in a 64-bit program."""
    if isinstance(params, Gaussian):
        return params.mean + jnp.exp(params.log_std) * jax.random.normal(key, params.mean.shape)
    return jax.random.categorical(key, params)


def mode(params: Array | Gaussian) -> Array:
    """The likeliest action."""
    return params.mean if isinstance(params, Gaussian) else jnp.argmax(params, axis=-1)


def log_prob(params: Array | Gaussian, action: Array) -> Array:
    """Log of the probability of an action, or of its density."""
    if isinstance(params, Gaussian):
        z = (action - params.mean) * jnp.exp(-params.log_std)
        return jnp.sum(-0.5 * jnp.square(z) - params.log_std - LOG_SQRT_2_PI, axis=-1)
    log_probs = jax.nn.log_softmax(params)
    return jnp.take_along_axis(log_probs, action[..., None], axis=-1)[..., 0]


def entropy(params: Array | Gaussian) -> Array:
    """Entropy in nats; that of a density may be negative."""
    if isinstance(params, Gaussian):
        return jnp.sum(params.log_std + 0.5 + LOG_SQRT_2_PI, axis=-1)
    log_probs = jax.nn.log_softmax(params)
    return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
