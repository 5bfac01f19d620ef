"""Categorical distribution over the last axis of logits [..., A]."""

import jax
import jax.numpy as jnp

from src_pure.types import Array, Key


def sample(key: Key, logits: Array) -> Array:
    return jax.random.categorical(key, logits)


def log_prob(logits: Array, action: Array) -> Array:
    log_probs = jax.nn.log_softmax(logits)
    return jnp.take_along_axis(log_probs, action[..., None], axis=-1)[..., 0]


def entropy(logits: Array) -> Array:
    log_probs = jax.nn.log_softmax(logits)
    return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
