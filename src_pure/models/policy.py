"""Policies, encoder -> memory -> heads: their base class, and the actor-critic."""

from typing import TYPE_CHECKING, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from src_pure.bits import in_32_bits
from src_pure.distributions import Categorical, Distribution, Gaussian
from src_pure.models.layers import dense
from src_pure.types import Array, Carry, Params, PolicyOutput, PositiveInt

ACTIVATIONS = {"tanh": nn.tanh, "relu": nn.relu}


class Policy(nn.Module):
    """Base of all policies: __call__(carry, obs [T, B, ...], reset [T, B]) -> (carry, PolicyOutput).

    An action is an integer below num_actions, or if `continuous` a vector of num_actions numbers. Heads have one hidden
    layer of head_size units, or none if head_size is None.
    """

    encoder: nn.Module
    memory: nn.Module
    num_actions: int
    head_size: PositiveInt | None = 128
    head_activation: Literal["tanh", "relu"] = "tanh"
    continuous: bool = False

    if TYPE_CHECKING:  # flax declares a return type that no caller can use

        def apply(self, variables: Params, *args: Any, **options: Any) -> Any: ...

    @property
    def distribution(self) -> type[Distribution]:
        """The type of its distributions over actions."""
        raise NotImplementedError  # each policy has its own

    @in_32_bits
    def initialize_carry(self, batch_size: int) -> Carry:
        return self.memory.initialize_carry(batch_size)


class ActorCritic(Policy):
    """A policy with two heads: one for the distribution over actions, one for the value.

    Vector actions are Gaussian: the network computes the mean; the standard deviation is a learned parameter that
    starts at 1 and does not depend on the state, as is usual for PPO (Schulman et al., arXiv:1707.06347, section 6.1;
    Andrychowicz et al., arXiv:2006.05990).
    """

    @property
    def distribution(self) -> type[Distribution]:
        return Gaussian if self.continuous else Categorical

    @nn.compact
    @in_32_bits
    def __call__(self, carry: Carry, obs: Array, reset: Array) -> tuple[Carry, PolicyOutput]:
        carry, x = self.memory(carry, self.encoder(obs), reset)
        activation = ACTIVATIONS[self.head_activation]
        actor = critic = x
        if self.head_size is not None:
            actor = activation(dense(self.head_size, name="actor_hidden")(x))
            critic = activation(dense(self.head_size, name="critic_hidden")(x))
        logits = dense(self.num_actions, scale=0.01, name="actor")(actor)
        if self.continuous:
            log_std = self.param("log_std", nn.initializers.zeros, (self.num_actions,))
            logits = Gaussian(logits, jnp.broadcast_to(log_std, logits.shape))
        value = dense(1, scale=1.0, name="critic")(critic)[..., 0]
        return carry, PolicyOutput(logits, value)


def num_parameters(params) -> int:
    return sum(x.size for x in jax.tree.leaves(params))
