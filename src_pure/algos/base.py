"""The protocol of algorithms."""

from collections.abc import Callable
from typing import Protocol

import optax

from src_pure.types import Array, Carry, Key, Learner, Metrics, Params, PolicyOutput, Trajectory

Apply = Callable[[Params, Carry, Array, Array], tuple[Carry, PolicyOutput]]  # (params, carry, obs, reset)


class Algorithm(Protocol):
    """A pytree of hyperparameters: numbers are leaves and may be traced, sizes are static."""

    num_steps: int  # T, steps of each environment per update; set from the configuration's num_steps
    num_updates: int  # of the whole training, for schedules; set from the configuration's total_steps

    def check(self, num_envs: int) -> None:
        """Raises ValueError for a number of environments that this algorithm cannot use."""

    def optimizer(self) -> optax.GradientTransformation: ...

    def update(
        self, key: Key, learner: Learner, apply: Apply, carry: Carry, trajectory: Trajectory, last_value: Array
    ) -> tuple[Learner, Metrics]:
        """One update from T steps: carry is the memory at the start of them, last_value [B] the value after them.

        The metrics are scalars and hold `loss`; a `first_minibatch_max_abs_log_ratio` among them must be about 0.
        """
