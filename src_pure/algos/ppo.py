"""Proximal policy optimisation with memory (Schulman et al., arXiv:1707.06347)."""

import jax
import jax.numpy as jnp
import optax
from flax import struct

from src_pure.algos.base import Algorithm, Apply, check_stochastic
from src_pure.algos.optimizer import ANNEALED, adam, apply_gradient, check_minibatches, over_minibatches
from src_pure.algos.returns import gae, masked_mean
from src_pure.distributions import Distribution
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
class PPO(Algorithm):
    """Clipped PPO over minibatches of whole sequences, replayed from the memory stored at the rollout's start.

    loss = clipped policy loss + vf_coef * value loss - ent_coef * entropy. Numbers are leaves and may be vmapped.
    """

    learning_rate: NonNegativeFloat = 2.5e-4
    gamma: UnitFloat = 0.99
    gae_lambda: UnitFloat = 0.95
    clip_eps: PositiveFloat = 0.2
    vf_coef: NonNegativeFloat = 0.5
    ent_coef: NonNegativeFloat = 0.01
    max_grad_norm: PositiveOrInf = 0.5  # inf: no clip
    adam_eps: PositiveFloat = 1e-5
    num_updates: PositiveInt = 1  # of the whole training; an annealed learning rate reaches 0 here

    num_steps: PositiveInt = struct.field(pytree_node=False, default=128)
    update_epochs: PositiveInt = struct.field(pytree_node=False, default=4)
    num_minibatches: PositiveInt = struct.field(pytree_node=False, default=8)
    clip_value: bool = struct.field(pytree_node=False, default=False)
    anneal_lr: bool = struct.field(pytree_node=False, default=False)

    @property
    def schedule_end(self) -> str | None:
        return ANNEALED if self.anneal_lr else None

    def check(self, num_envs: int, actions: type[Distribution]) -> None:
        """Raises ValueError if PPO cannot use this number of environments or this policy."""
        check_stochastic("ppo", actions)
        check_minibatches(num_envs, self.update_epochs, self.num_minibatches)

    def optimizer(self) -> optax.GradientTransformation:
        steps_per_update = self.update_epochs * self.num_minibatches
        return adam(
            self.learning_rate, self.adam_eps, self.max_grad_norm, self.anneal_lr, self.num_updates, steps_per_update
        )

    def update(
        self, key: Key, learner: Learner, apply: Apply, carry: Carry, trajectory: Trajectory, last_value: Array
    ) -> tuple[Learner, Metrics]:
        """(learner, metrics) after update_epochs passes over the trajectory [T, B]; metrics are minibatch means."""
        advantage = gae(
            trajectory.reward, trajectory.terminated, trajectory.truncated, trajectory.value, last_value,
            self.gamma, self.gae_lambda,
        )  # fmt: skip

        def step(learner: Learner, carry: Carry, batch: tuple[Trajectory, Array]) -> tuple[Learner, Metrics]:
            return apply_gradient(self.optimizer(), learner, self.loss, apply, carry, *batch)

        learner, metrics = over_minibatches(
            step, key, learner, carry, (trajectory, advantage), self.update_epochs, self.num_minibatches
        )
        log_ratios = metrics.pop("max_abs_log_ratio")
        return learner, jax.tree.map(jnp.mean, metrics) | {
            "max_abs_log_ratio": jnp.max(log_ratios),
            "first_minibatch_max_abs_log_ratio": log_ratios[0],
        }

    def loss(self, params, apply: Apply, carry: Carry, batch: Trajectory, advantage: Array) -> tuple[Array, Metrics]:
        """(loss, metrics) of one minibatch: batch, advantage [T, B], carry the memory before its first step."""
        _, output = apply(params, carry, batch.obs, batch.reset)
        mask = ~batch.ignored
        log_ratio = output.actions.log_prob(batch.action) - batch.log_prob
        # no loss keeps the ratio of an ignored action near 1
        log_ratio = jnp.where(mask, log_ratio, 0.0)
        ratio = jnp.exp(log_ratio)
        target = advantage + batch.value

        mean = masked_mean(advantage, mask)
        deviation = jnp.sqrt(masked_mean(jnp.square(advantage - mean), mask))
        normalised = (advantage - mean) / (deviation + 1e-8)
        clipped_ratio = jnp.clip(ratio, 1.0 - self.clip_eps, 1.0 + self.clip_eps)
        policy_loss = -masked_mean(jnp.minimum(ratio * normalised, clipped_ratio * normalised), mask)

        value_error = jnp.square(output.value - target)
        if self.clip_value:
            clipped_value = batch.value + jnp.clip(output.value - batch.value, -self.clip_eps, self.clip_eps)
            value_error = jnp.maximum(value_error, jnp.square(clipped_value - target))
        value_loss = 0.5 * masked_mean(value_error, mask)

        entropy = masked_mean(output.actions.entropy(), mask)
        loss = policy_loss + self.vf_coef * value_loss - self.ent_coef * entropy
        return loss, {
            "loss": loss,
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "approx_kl": masked_mean(ratio - 1.0 - log_ratio, mask),
            "clip_fraction": masked_mean(jnp.abs(ratio - 1.0) > self.clip_eps, mask),
            "max_abs_log_ratio": jnp.max(jnp.abs(log_ratio)),
        }
