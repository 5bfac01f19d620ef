"""Distributions over actions, as small pytrees of arrays.

An action is an integer [...] or a vector [..., A]; log_prob and entropy are [...].
"""

import math
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from src_pure.bits import in_32_bits

LOG_SQRT_2_PI = 0.5 * math.log(2.0 * math.pi)


@runtime_checkable
class Distribution(Protocol):
    """The distribution that a policy draws its actions from; a pytree."""

    def sample(self, key: jax.Array) -> jax.Array:
        """A sampled action; the same in a 64-bit program, which by default would draw other random bits."""

    def mode(self) -> jax.Array:
        """The likeliest action."""

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Log-probability of an action, or log-density if actions are continuous."""

    def entropy(self) -> jax.Array:
        """Entropy in nats; of a density it may be negative."""


class Categorical(NamedTuple):
    """Integers with the given logits."""

    logits: jax.Array  # [..., A]

    @in_32_bits
    def sample(self, key: jax.Array) -> jax.Array:
        return jax.random.categorical(key, self.logits)

    def mode(self) -> jax.Array:
        return jnp.argmax(self.logits, axis=-1)

    def log_prob(self, action: jax.Array) -> jax.Array:
        log_probs = jax.nn.log_softmax(self.logits)
        return jnp.take_along_axis(log_probs, action[..., None], axis=-1)[..., 0]

    def entropy(self) -> jax.Array:
        log_probs = jax.nn.log_softmax(self.logits)
        return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)


class Gaussian(NamedTuple):
    """Vectors of independent entries."""

    mean: jax.Array  # [..., A]
    log_std: jax.Array  # [..., A]

    @in_32_bits
    def sample(self, key: jax.Array) -> jax.Array:
        return self.mean + jnp.exp(self.log_std) * jax.random.normal(key, self.mean.shape)

    def mode(self) -> jax.Array:
        return self.mean

    def log_prob(self, action: jax.Array) -> jax.Array:
        z = (action - self.mean) * jnp.exp(-self.log_std)
        return jnp.sum(-0.5 * jnp.square(z) - self.log_std - LOG_SQRT_2_PI, axis=-1)

    def entropy(self) -> jax.Array:
        return jnp.sum(self.log_std + 0.5 + LOG_SQRT_2_PI, axis=-1)


class EpsilonGreedy(NamedTuple):
    """Integers: the one with the largest value, or with probability epsilon a uniformly random one."""

    values: jax.Array  # [..., A]
    epsilon: jax.Array  # [...]

    @in_32_bits
    def sample(self, key: jax.Array) -> jax.Array:
        key_explore, key_action = jax.random.split(key)
        shape, num_actions = self.values.shape[:-1], self.values.shape[-1]
        any_action = jax.random.randint(key_action, shape, 0, num_actions)
        return jnp.where(jax.random.uniform(key_explore, shape) < self.epsilon, any_action, self.mode())

    def mode(self) -> jax.Array:
        return jnp.argmax(self.values, axis=-1)

    def log_prob(self, action: jax.Array) -> jax.Array:
        greedy, other = self._probs()
        return jnp.log(jnp.where(action == self.mode(), greedy, other))

    def entropy(self) -> jax.Array:
        greedy, other = self._probs()
        return -jax.scipy.special.xlogy(greedy, greedy) - (self.values.shape[-1] - 1) * jax.scipy.special.xlogy(
            other, other
        )

    def _probs(self) -> tuple[jax.Array, jax.Array]:
        """(probability of the greedy action, of each other action), both [...]."""
        other = self.epsilon / self.values.shape[-1]
        return 1.0 - self.epsilon + other, other
