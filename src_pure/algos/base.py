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

    A class that inherits from this one has the methods with a body below.
    """

    num_steps: int  # T, steps of each environment per update; set from the configuration's num_steps
    num_updates: int  # of the whole training, for schedules; set from the configuration's total_steps

    @property
    def schedule_end(self) -> str | None:
        """What happens at update num_updates, such as "the learning rate now falls to 0"; None: nothing."""
        return None

    def check(self, num_envs: int, actions: type[Distribution]) -> None:
        """Raises ValueError for a number of environments, or a kind of policy, that this algorithm cannot use."""

    def optimizer(self) -> optax.GradientTransformation: ...

    def init(self, params: Params, example: Example | None = None) -> Learner:
        """The learner of a policy that has learned nothing yet.

        example() gives the shapes and dtypes of what one update learns from, (carry [B, ...], trajectory [T, B, ...]):
        a replay memory is made from them. It is costly, so only those that need it call it.
        """
        return Learner(params, self.optimizer().init(params))

    def explore(self, actions: Distribution, update: Array) -> Distribution:
        """What to act with in training after `update` updates, from what the policy gives."""
        return actions

    def update(
        self, key: Key, learner: Learner, apply: Apply, carry: Carry, trajectory: Trajectory, last_value: Array
    ) -> tuple[Learner, Metrics]:
        """One update from T steps: carry is the memory at the start of them, last_value [B] the value after them.

        The metrics are scalars and hold `loss`; a `first_minibatch_max_abs_log_ratio` among them must be about 0.
        """
        ...


def check_stochastic(name: str, actions: type[Distribution]) -> None:
    """Raises ValueError for a policy whose probabilities do not follow its parameters smoothly."""
    if actions not in (Categorical, Gaussian):
        raise ValueError(
            f"algo {name} learns the probabilities of actions, and this policy has none: set policy=actor_critic"
        )
