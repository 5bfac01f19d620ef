"""The protocol of algorithms."""

from collections.abc import Callable
from typing import Protocol

import optax

from src_pure.types import Array, Carry, Key, Learner, Metrics, Params, PolicyOutput, Trajectory

Apply = Callable[[Params, Carry, Array, Array], tuple[Carry, PolicyOutput]]  # (params, carry, obs, reset)


class Algorithm(Protocol):
    """A pytree of hyperparameters: numbers are leaves and may be traced, sizes are static."""

    num_steps: int  # T, steps of each environment per update

    def optimizer(self) -> optax.GradientTransformation: ...

    def update(
        self, key: Key, learner: Learner, apply: Apply, carry: Carry, trajectory: Trajectory, last_value: Array
    ) -> tuple[Learner, Metrics]:
        """One update from T steps: carry is the memory at the start of them, last_value [B] the value after them."""
