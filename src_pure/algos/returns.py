"""Advantages and returns. `terminated` ends the value, `terminated | truncated` the trace: keep the two apart."""

import chex
import jax.numpy as jnp
from jax import lax

from src_pure.types import Array, Number


def gae(
    reward: Array, terminated: Array, truncated: Array, value: Array, last_value: Array, gamma: Number, lam: Number
) -> Array:
    """Advantages A_t = delta_t + gamma lam (1 - end_t) A_{t+1}  (Schulman et al., arXiv:1506.02438).

    delta_t = r_t + gamma (1 - terminated_t) v_{t+1} - v_t, end_t = terminated_t or truncated_t. After a truncation
    v_{t+1} must be the value of the episode's final observation. All are [T, B], except last_value [B]; returns [T, B].
    """
    chex.assert_equal_shape([reward, terminated, truncated, value])
    next_value = jnp.concatenate([value[1:], last_value[None]])
    delta = reward + gamma * jnp.where(terminated, 0.0, next_value) - value
    decay = jnp.where(terminated | truncated, 0.0, gamma * lam)

    def step(advantage, x):
        delta, decay = x
        advantage = delta + decay * advantage
        return advantage, advantage

    return lax.scan(step, jnp.zeros_like(last_value), (delta, decay), reverse=True)[1]


def lambda_returns(
    reward: Array, terminated: Array, truncated: Array, value: Array, last_value: Array, gamma: Number, lam: Number
) -> Array:
    """Targets G_t = r_t + gamma (1 - terminated_t) ((1 - lam_t) v_{t+1} + lam_t G_{t+1})  (Sutton & Barto 2018, 12.2).

    lam_t is lam, but 0 at a truncation; v_T and G_T are last_value. Equal to gae + value; same arguments and shapes.
    """
    chex.assert_equal_shape([reward, terminated, truncated, value])
    next_value = jnp.concatenate([value[1:], last_value[None]])

    def step(target, x):
        reward, terminated, truncated, next_value = x
        mixed = jnp.where(truncated, next_value, (1.0 - lam) * next_value + lam * target)
        target = reward + gamma * jnp.where(terminated, 0.0, mixed)
        return target, target

    return lax.scan(step, last_value, (reward, terminated, truncated, next_value), reverse=True)[1]


def masked_mean(x: Array, mask: Array) -> Array:
    """Mean of x over the entries where mask (bool) is set, even if others are NaN; 0 if none is set."""
    return jnp.sum(jnp.where(mask, x, 0.0)) / jnp.maximum(jnp.sum(mask), 1)
