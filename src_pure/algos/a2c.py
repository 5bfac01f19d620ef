"""Advantage actor-critic with memory (Mnih et al., arXiv:1602.01783), synchronous: one update per rollout."""

import jax.numpy as jnp
import optax
from flax import struct
from jax import lax

from src_pure.algos.base import Algorithm, Apply, check_stochastic
from src_pure.algos.optimizer import ANNEALED, adam, apply_gradient
from src_pure.algos.returns import lambda_returns, masked_mean
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
class A2C(Algorithm):
    """One gradient step per rollout towards lambda-returns; replays it from the memory stored at its start.

    loss = policy gradient + vf_coef * mean(advantage^2) - ent_coef * entropy. Numbers are leaves and may be vmapped.
    """

    learning_rate: NonNegativeFloat = 1e-4
    gamma: UnitFloat = 0.99
    gae_lambda: UnitFloat = 0.95
    vf_coef: NonNegativeFloat = 0.5
    ent_coef: NonNegativeFloat = 0.001
    max_grad_norm: PositiveOrInf = 0.5  # inf: no clip
    adam_eps: PositiveFloat = 1e-8
    num_updates: PositiveInt = 1  # of the whole training; an annealed learning rate reaches 0 here

    num_steps: PositiveInt = struct.field(pytree_node=False, default=256)
    anneal_lr: bool = struct.field(pytree_node=False, default=False)

    @property
    def schedule_end(self) -> str | None:
        return ANNEALED if self.anneal_lr else None

    def check(self, num_envs: int, actions: type[Distribution]) -> None:
        """Raises ValueError for a policy that A2C cannot use; any number of environments works."""
        check_stochastic("a2c", actions)

    def optimizer(self) -> optax.GradientTransformation:
        return adam(self.learning_rate, self.adam_eps, self.max_grad_norm, self.anneal_lr, self.num_updates, 1)

    def update(
        self, key: Key, learner: Learner, apply: Apply, carry: Carry, trajectory: Trajectory, last_value: Array
    ) -> tuple[Learner, Metrics]:
        """(learner, metrics) after one gradient step on the trajectory [T, B]."""
        return apply_gradient(self.optimizer(), learner, self.loss, apply, carry, trajectory, last_value)

    def loss(self, params, apply: Apply, carry: Carry, batch: Trajectory, last_value: Array) -> tuple[Array, Metrics]:
        """(loss, metrics) of the rollout: batch [T, B], carry the memory before its first step, last_value [B]."""
        _, output = apply(params, carry, batch.obs, batch.reset)
        mask = ~batch.ignored
        target = lambda_returns(
            batch.reward, batch.terminated, batch.truncated, lax.stop_gradient(output.value), last_value,
            self.gamma, self.gae_lambda,
        )  # fmt: skip
        advantage = target - output.value
        log_prob = output.actions.log_prob(batch.action)
        policy_loss = -masked_mean(log_prob * lax.stop_gradient(advantage), mask)
        value_loss = masked_mean(jnp.square(advantage), mask)
        entropy = masked_mean(output.actions.entropy(), mask)
        loss = policy_loss + self.vf_coef * value_loss - self.ent_coef * entropy
        return loss, {
            "loss": loss,
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "first_minibatch_max_abs_log_ratio": jnp.max(jnp.where(mask, jnp.abs(log_prob - batch.log_prob), 0.0)),
        }
