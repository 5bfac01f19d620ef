"""The protocol of algorithms."""

from collections.abc import Callable
from typing import Protocol

import optax

from src_pure.distributions import Categorical, Distribution, Gaussian
from src_pure.types import Array, Carry, Key, Learner, Metrics, Params, PolicyOutput, Trajectory

Apply = Callable[[Params, Carry, Array, Array], tuple[Carry, PolicyOutput]]  # (params, carry, obs, reset)
Example = Callable[[], tuple[Carry, Trajectory]]


class Algorithm(Protocol):
    """A pytree of hyperparameters: numbers are leaves and may be traced, sizes are static.

    Subclasses inherit the methods that have a body.
    """

    num_steps: int  # T, steps of each environment per update; set from the configuration's num_steps
    num_updates: int  # of the whole training, for schedules; set from the configuration's total_steps

    @property
    def schedule_end(self) -> str | None:
        """What happens at update num_updates, such as "the learning rate now falls to 0"; None: nothing."""
        return None

    def check(self, num_envs: int, actions: type[Distribution]) -> None:
        """Raises ValueError if this algorithm cannot use this number of environments or kind of policy."""

    def optimizer(self) -> optax.GradientTransformation: ...

    def init(self, params: Params, example: Example | None = None) -> Learner:
        """The learner for freshly initialised parameters.

        example() returns the shapes and dtypes of one update's (carry [B, ...], trajectory [T, B, ...]), for algorithms
        that allocate a replay memory. It is costly: call it only if needed.
        """
        return Learner(params, self.optimizer().init(params))

    def explore(self, actions: Distribution, update: Array) -> Distribution:
        """The distribution to act with in training after `update` updates, given the policy's own."""
        return actions

    def update(
        self, key: Key, learner: Learner, apply: Apply, carry: Carry, trajectory: Trajectory, last_value: Array
    ) -> tuple[Learner, Metrics]:
        """(learner, metrics) after one update from T steps.

        carry is the memory before these steps, last_value [B] the value after them.
        The metrics are scalars and include `loss`. If they include `first_minibatch_max_abs_log_ratio`, it must be
        about 0. A long training averages them over updates, except for those with the word `max` in their names, of
        which it keeps the largest.
        """
        ...


def check_stochastic(name: str, actions: type[Distribution]) -> None:
    """Raises ValueError if the probabilities of the policy are not differentiable in its parameters."""
    if actions not in (Categorical, Gaussian):
        raise ValueError(
            f"algo {name} learns the probabilities of actions, and this policy has none: set policy=actor_critic"
        )
