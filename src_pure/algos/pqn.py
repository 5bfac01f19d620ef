"""Parallelised Q-learning with memory (PQN, Gallici et al., arXiv:2407.04811): no replay, no target network."""

from typing import cast

import jax
import jax.numpy as jnp
import optax
from flax import struct

from src_pure.algos.base import Algorithm, Apply
from src_pure.algos.optimizer import ANNEALED, apply_gradient, check_minibatches, over_minibatches, radam
from src_pure.algos.returns import lambda_returns, masked_mean
from src_pure.distributions import Distribution, EpsilonGreedy, Gaussian
from src_pure.types import (
    Array,
    Carry,
    Key,
    Learner,
    Metrics,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    PositiveOrInf,
    Trajectory,
    UnitFloat,
)  # fmt: skip


@struct.dataclass
class PQN(Algorithm):
    """Q-learning towards lambda-returns that bootstrap from the largest value, over minibatches of whole sequences.

    Sequences are replayed from the memory stored at the rollout's start. Targets are computed once per rollout, by the
    network that acted. loss = 0.5 * mean((Q(s, a) - target)^2). Numbers are leaves and may be vmapped.
    """

    learning_rate: NonNegativeFloat = 2.5e-4
    gamma: UnitFloat = 0.99
    q_lambda: UnitFloat = 0.65
    epsilon_start: UnitFloat = 1.0
    epsilon_end: UnitFloat = 0.05
    epsilon_decay: UnitFloat = 0.1  # fraction of the training over which epsilon falls
    max_grad_norm: PositiveOrInf = 10.0  # inf: no clip
    adam_eps: PositiveFloat = 1e-5
    num_updates: PositiveInt = 1  # of the whole training; the learning rate and epsilon schedules are relative to it

    num_steps: PositiveInt = struct.field(pytree_node=False, default=128)
    update_epochs: PositiveInt = struct.field(pytree_node=False, default=2)
    num_minibatches: PositiveInt = struct.field(pytree_node=False, default=8)
    anneal_lr: bool = struct.field(pytree_node=False, default=False)

    @property
    def schedule_end(self) -> str | None:
        epsilon = "epsilon now falls over its part of the training that ends"
        return f"{ANNEALED}, and {epsilon}" if self.anneal_lr else epsilon

    def check(self, num_envs: int, actions: type[Distribution]) -> None:
        """Raises ValueError if PQN cannot use this number of environments or this policy."""
        if actions is Gaussian:
            raise ValueError(
                "algo pqn learns the values of discrete actions, and this task's are vectors: set algo=ppo or a2c"
            )
        if actions is not EpsilonGreedy:
            raise ValueError(
                "algo pqn learns the values of discrete actions, and this policy has none: set policy=q_network"
            )
        check_minibatches(num_envs, self.update_epochs, self.num_minibatches)

    def optimizer(self) -> optax.GradientTransformation:
        steps_per_update = self.update_epochs * self.num_minibatches
        return radam(
            self.learning_rate, self.adam_eps, self.max_grad_norm, self.anneal_lr, self.num_updates, steps_per_update
        )

    def epsilon(self, update: Array) -> Array:
        """The probability of a random action after `update` updates."""
        progress = jnp.minimum(1.0, update / jnp.maximum(1.0, self.epsilon_decay * self.num_updates))
        return self.epsilon_start + (self.epsilon_end - self.epsilon_start) * progress

    def explore(self, actions: Distribution, update: Array) -> Distribution:
        values = cast(EpsilonGreedy, actions)  # guaranteed by `check`
        return values._replace(epsilon=jnp.full_like(values.epsilon, self.epsilon(update)))

    def update(
        self, key: Key, learner: Learner, apply: Apply, carry: Carry, trajectory: Trajectory, last_value: Array
    ) -> tuple[Learner, Metrics]:
        """(learner, metrics) after update_epochs passes over the trajectory [T, B]; metrics are minibatch means."""
        target = lambda_returns(
            trajectory.reward, trajectory.terminated, trajectory.truncated, trajectory.value, last_value,
            self.gamma, self.q_lambda,
        )  # fmt: skip

        def step(learner: Learner, carry: Carry, batch: tuple[Trajectory, Array]) -> tuple[Learner, Metrics]:
            return apply_gradient(self.optimizer(), learner, self.loss, apply, carry, *batch)

        learner, metrics = over_minibatches(
            step, key, learner, carry, (trajectory, target), self.update_epochs, self.num_minibatches
        )
        changes = metrics.pop("max_abs_value_change")
        return learner, jax.tree.map(jnp.mean, metrics) | {"first_minibatch_max_abs_value_change": changes[0]}

    def loss(self, params, apply: Apply, carry: Carry, batch: Trajectory, target: Array) -> tuple[Array, Metrics]:
        """(loss, metrics) of one minibatch: batch, target [T, B], carry the memory before its first step."""
        _, output = apply(params, carry, batch.obs, batch.reset)
        mask = ~batch.ignored
        values = cast(EpsilonGreedy, output.actions).values
        value = jnp.take_along_axis(values, batch.action[..., None], axis=-1)[..., 0]
        loss = 0.5 * masked_mean(jnp.square(value - target), mask)
        return loss, {
            "loss": loss,
            "mean_value": masked_mean(value, mask),
            "mean_target": masked_mean(target, mask),
            "max_abs_value_change": jnp.max(jnp.where(mask, jnp.abs(output.value - batch.value), 0.0)),
        }
