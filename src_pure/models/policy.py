"""The policy: encoder -> memory -> two heads."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from src_pure.models.layers import dense
from src_pure.ops.precision import in_32_bits
from src_pure.types import Array, Carry, Gaussian, PolicyOutput, PositiveInt

ACTIVATIONS = {"tanh": nn.tanh, "relu": nn.relu}


class ActorCritic(nn.Module):
    """(carry, PolicyOutput) from obs [T, B, ...] and reset [T, B]; heads have one hidden layer of head_size, or none.

    An action is one of num_actions, or if `continuous` a vector of num_actions numbers. Such vectors are Gaussian: the
    network gives the mean, and the standard deviation is learned, does not depend on the state and starts at 1, as is
    usual for PPO (Schulman et al., arXiv:1707.06347, section 6.1; Andrychowicz et al., arXiv:2006.05990).
    """

    encoder: nn.Module
    memory: nn.Module
    num_actions: int
    head_size: PositiveInt | None = 128
    head_activation: Literal["tanh", "relu"] = "tanh"
    continuous: bool = False

    @in_32_bits
    def initialize_carry(self, batch_size: int) -> Carry:
        return self.memory.initialize_carry(batch_size)

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
