"""The policy for algorithms that learn action values: encoder -> memory -> one head."""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from src_pure.bits import in_32_bits
from src_pure.distributions import Distribution, EpsilonGreedy
from src_pure.models.layers import dense
from src_pure.models.policy import ACTIVATIONS, Policy
from src_pure.types import Array, Carry, PolicyOutput


class QNetwork(Policy):
    """A policy that takes the action with the largest value; that value is also the value of the state.

    LayerNorm keeps action values stable without a target network (Gallici et al., arXiv:2407.04811). It normalises the
    memory's output and the hidden layer before its activation.
    """

    head_activation: Literal["tanh", "relu"] = "relu"

    def __post_init__(self):
        if self.continuous:
            raise ValueError(
                "q_network has values of discrete actions alone, and this task's are vectors: "
                "set policy=actor_critic and algo=ppo or a2c"
            )
        super().__post_init__()

    @property
    def distribution(self) -> type[Distribution]:
        return EpsilonGreedy

    @nn.compact
    @in_32_bits
    def __call__(self, carry: Carry, obs: Array, reset: Array) -> tuple[Carry, PolicyOutput]:
        carry, x = self.memory(carry, self.encoder(obs), reset)
        x = nn.LayerNorm(name="norm")(x)
        if self.head_size is not None:
            x = nn.LayerNorm(name="hidden_norm")(dense(self.head_size, name="hidden")(x))
            x = ACTIVATIONS[self.head_activation](x)
        values = dense(self.num_actions, scale=0.01, name="values")(x)
        largest = jnp.max(values, axis=-1)
        return carry, PolicyOutput(EpsilonGreedy(values, jnp.zeros_like(largest)), largest)
