"""What an environment may have besides the methods of `Environment`, and the defaults for what it leaves out.

A class needs no base and no mention of these protocols: it has an attribute of that name, or leaves it out.
"""

from typing import Any, Protocol, runtime_checkable

from src_pure.envs.base import Environment, EnvParams, EnvState
from src_pure.errors import ConfigError
from src_pure.types import Array


@runtime_checkable
class HasNumbers(Protocol):
    """`numbers`: names of the fields that only fill `default_params`, such as ("corridor_len", "time_limit").

    Environments that differ in these alone have the same spaces, and their `default_params` have the same structure
    and dtypes, so they run side by side in one program.
    """

    numbers: tuple[str, ...]


@runtime_checkable
class HasResetRatio(Protocol):
    """`reset_ratio`: how many environments share the cost of making a world, where that takes long; see VectorEnv."""

    reset_ratio: int


@runtime_checkable
class Observes(Protocol):
    """`observe`: for observations that follow from the state alone and are expensive, such as pixels.

    A batch then draws them once per step, not once for the step and again for the reset.
    """

    def observe(self, state: Any, params: Any) -> Array: ...


@runtime_checkable
class HasLongestEpisode(Protocol):
    """`longest_episode`: steps after which every episode has ended; evaluation then waits for the end."""

    def longest_episode(self, params: Any) -> int | None: ...


@runtime_checkable
class Renders(Protocol):
    """`render`: a picture for people who watch, uint8 [height, width, 3], jittable."""

    def render(self, state: Any, params: Any) -> Array: ...


@runtime_checkable
class NamesActions(Protocol):
    """`action_names`: one for each action, for people who watch."""

    action_names: tuple[str, ...]


@runtime_checkable
class HasCaption(Protocol):
    """`caption`: a line of text below the picture of a state, such as what is to be remembered."""

    def caption(self, state: Any) -> str: ...


def numbers(env: Environment) -> tuple[str, ...]:
    """The fields that only fill `default_params`; without a declaration there are none."""
    return env.numbers if isinstance(env, HasNumbers) else ()


def reset_ratio(env: Environment) -> int:
    """The environment's own choice, or 1."""
    return env.reset_ratio if isinstance(env, HasResetRatio) else 1


def longest_episode(env: Environment, params: EnvParams) -> int | None:
    """Steps after which every episode has ended; None: unknown."""
    return env.longest_episode(params) if isinstance(env, HasLongestEpisode) else None


def render(env: Environment, state: EnvState, params: EnvParams) -> Array:
    """The picture of a state; raises ConfigError for an environment without pictures."""
    if not isinstance(env, Renders):
        raise ConfigError(f"{type(env).__name__} has no render(state, params), so there is nothing to watch")
    return env.render(state, params)


def action_names(env: Environment) -> tuple[str, ...]:
    """One for each action; empty: they have no names."""
    return env.action_names if isinstance(env, NamesActions) else ()


def caption(env: Environment, state: EnvState) -> str:
    """The line of text below a picture; empty without one."""
    return env.caption(state) if isinstance(env, HasCaption) else ""
