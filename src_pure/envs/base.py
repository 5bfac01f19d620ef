"""The two protocols of environments: a single one without reset policy, and the batch that training sees."""

from typing import Any, Protocol

import jax
import jax.numpy as jnp

from src_pure.envs.spaces import Space
from src_pure.types import Array, Key, Metrics, Timestep

EnvParams = Any  # pytree of numbers; leaves may be traced, so that a vmap runs different settings side by side
EnvState = Any


class Environment(Protocol):
    """One environment. It never resets itself and never batches; sizes are static fields, numbers are `EnvParams`.

    What it may have besides, such as a picture to watch, is in optional.py.
    """

    @property
    def default_params(self) -> EnvParams: ...

    def reset_env(self, key: Key, params: EnvParams) -> tuple[Array, EnvState]:
        """(obs, state) of a new episode: draws a layout, then calls `reset_to`."""

    def reset_to(self, key: Key, params: EnvParams, **layout: Array) -> tuple[Array, EnvState]:
        """(obs, state) of a new episode in the given layout."""

    def step_env(
        self, key: Key, state: EnvState, action: Array, params: EnvParams
    ) -> tuple[Array, EnvState, Array, Array, Array, Metrics]:
        """(obs, state, reward, terminated, truncated, info). Both flags may be true together.

        info: scalars that matter when the episode ends with this step, such as `success`; the same names on every step.
        """

    def observation_space(self, params: EnvParams) -> Space: ...

    def action_space(self, params: EnvParams) -> Space:
        """Discrete, or a Box of one dimension: a batch clips actions to the box before `step_env`."""


class VecEnv(Protocol):
    """A batch of environments that resets itself and keeps episode statistics."""

    num_envs: int
    observation_space: Space
    action_space: Space

    def reset(self, key: Key) -> tuple[Any, Timestep]: ...

    def refresh(self, key: Key, state: Any) -> Any:
        """The state, ready for a rollout: training calls this before each one."""

    def step(self, key: Key, state: Any, action: Array) -> tuple[Any, Timestep]: ...

    def replace(self, *, params: EnvParams) -> "VecEnv":
        """The same batch with other numbers, which may be traced; its spaces stay. Used where these are given."""


def with_params(env: VecEnv, params: EnvParams | None) -> VecEnv:
    """The batch with these numbers in place of its own; None: as it is."""
    return env if params is None else env.replace(params=params)


def typed_like(state: EnvState, other: EnvState) -> EnvState:
    """state with the dtypes of `other`, never weak ones: inside a loop a state must not change its types."""
    return jax.tree.map(lambda x, like: jnp.asarray(x, jnp.result_type(like)), state, other)
