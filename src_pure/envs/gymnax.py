"""Any gymnax environment, by name (R. Lange, github.com/RobertTLange/gymnax, version 1)."""

import inspect
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces
from jax import core

from src_pure.envs.base import typed_like
from src_pure.envs.names import check_name
from src_pure.envs.spaces import Box, Discrete, Space
from src_pure.types import Array, Key, Metrics, PositiveInt

GymnaxParams = Any  # the environment's own, a pytree of numbers
GymnaxState = Any

IMPOSSIBLE = 2**31  # steps, more than any time limit


def steps_to_goal(environment, params) -> int:
    """1 for MountainCar, or IMPOSSIBLE if its goal is out of reach."""
    return 1 if params.max_speed > 0 and params.goal_position <= params.max_position else IMPOSSIBLE


def steps_to_query(environment, params) -> int:
    """The step at which MemoryChain asks, or IMPOSSIBLE if its length is not positive, because it then never asks."""
    return params.memory_length + 1 if params.memory_length > 0 else IMPOSSIBLE


STEPS_TO_REWARD = {  # the fewest steps until an action can affect the reward; 1 for all others
    "Catch-bsuite": lambda environment, params: environment.rows - 1,
    "DeepSea-bsuite": lambda environment, params: environment.size,
    "MemoryChain-bsuite": steps_to_query,
    "MountainCar-v0": steps_to_goal,
    "MountainCarContinuous-v0": steps_to_goal,
    "UmbrellaChain-bsuite": lambda environment, params: params.chain_length,
}
LARGEST_OPTION = 100  # options are sizes; a 99 x 99 MetaMaze already takes seconds

TIME_LIMIT = "max_steps_in_episode"  # what gymnax calls it in the parameters of every environment


@dataclass(frozen=True)
class Gymnax:
    """A gymnax environment, without the reset that gymnax's own `step` computes on every call.

    - observation: the environment's own; uint8 stays uint8, everything else becomes float32, and one of n numbers
      becomes a one-hot vector.
    - action: int32 [], 0 .. n - 1, or float32 [A] within the environment's bounds, the same for all entries.
    - reward: float32 [], the environment's own.
    - end: terminated by the environment, truncated at time_limit steps; both flags are set if both happen.
    - state: the environment's own; to draw it use gymnax.visualize, as this class has no `render`.
    """

    env_name: str = "CartPole-v1"
    time_limit: PositiveInt | None = None  # None: the environment's own
    options: dict[str, Any] | None = field(default=None, hash=False)  # arguments of its constructor
    params: dict[str, Any] | None = field(default=None, hash=False)  # numbers in its parameters

    numbers = ("time_limit", "params")

    def __post_init__(self):
        check_name(self.env_name, gymnax.registered_envs)
        params = self.default_params
        seen, done = self._environment.observation_space(params), self._environment.action_space(params)
        if not isinstance(seen, spaces.Box | spaces.Discrete):
            raise ValueError(f"the observation space of {self.env_name} must be Box or Discrete, got {seen}")
        if not (isinstance(done, spaces.Discrete) or is_simple(done)):
            raise ValueError(
                f"the action space of {self.env_name} must be Discrete, or a Box of floats with the same bounds for "
                f"all, got {done}"
            )
        if self.options or self.params:
            self._try()
        needed = STEPS_TO_REWARD.get(self.env_name, lambda *_: 1)(self._environment, params)
        if needed >= IMPOSSIBLE:
            raise ValueError(f"{self.env_name} cannot be solved with params={self.params}; change them")
        if needed > getattr(params, TIME_LIMIT):
            raise ValueError(
                f"time_limit must be at least {needed} for {self.env_name} with options={self.options} "
                f"params={self.params}, because nothing counts before, got {getattr(params, TIME_LIMIT)}"
            )

    @cached_property
    def _environment(self) -> gymnax.environments.environment.Environment:
        try:
            environment = gymnax.make(self.env_name)[0]
        except OSError as error:
            raise ValueError(f"{self.env_name} needs data that cannot be downloaded: {error}") from error
        if not self.options:
            return environment
        arguments = inspect.signature(type(environment)).parameters.values()
        defaults = {x.name: x.default for x in arguments if x.kind is x.POSITIONAL_OR_KEYWORD}
        options = with_types_of(defaults, self.options, f"options of {self.env_name}")
        for name, value in options.items():
            if isinstance(value, int | float) and value > LARGEST_OPTION:
                raise ValueError(f"option {name} must be at most {LARGEST_OPTION}, got {value}")
        try:
            return gymnax.make(self.env_name, **options)[0]
        except Exception as error:  # an environment may raise anything for an unusable value
            raise ValueError(f"{self.env_name} cannot be made with options={self.options}: {error!r}") from error

    @cached_property
    def default_params(self) -> GymnaxParams:
        params: Any = self._environment.default_params  # flax does not type `replace`
        defaults = {x.name: getattr(params, x.name) for x in fields(params) if x.name != TIME_LIMIT}
        changed = with_types_of(defaults, self.params or {}, f"params of {self.env_name} besides time_limit")
        return params.replace(**changed, **({} if self.time_limit is None else {TIME_LIMIT: self.time_limit}))

    def _try(self) -> None:
        """Raises ValueError if the environment does not run with its options and params; traces without computing."""
        try:
            params, key = self.default_params, jax.random.key(0)
            _, state = jax.eval_shape(self.reset_env, key, params)
            action = jax.ShapeDtypeStruct(self.action_space(params).shape, self.action_space(params).dtype)
            jax.eval_shape(self.step_env, key, state, action, params)
        except Exception as error:  # likewise, when it first uses the value
            given = f"options={self.options} params={self.params}"
            raise ValueError(f"{self.env_name} does not run with {given}: {error!r}") from error

    def reset_env(self, key: Key, params: GymnaxParams) -> tuple[Array, GymnaxState]:
        """(obs, state) of a new episode."""
        obs, state = self._environment.reset_env(key, params)
        return self._obs(obs, params), typed_like(state, state)

    def step_env(
        self, key: Key, state: GymnaxState, action: Array, params: GymnaxParams
    ) -> tuple[Array, GymnaxState, Array, Array, Array, Metrics]:
        """(obs, state, reward, terminated, truncated, info); info is empty."""
        obs, new_state, reward, terminated, _ = self._environment.step_env(key, state, action, params)
        new_state = typed_like(new_state, state)
        truncated = self._environment.is_truncated(new_state, params)
        reward, terminated = jnp.asarray(reward, jnp.float32), jnp.asarray(terminated, bool)
        return self._obs(obs, params), new_state, reward, terminated, jnp.asarray(truncated, bool), {}

    def _obs(self, obs: Array, params: GymnaxParams) -> Array:
        space = self._environment.observation_space(params)
        if isinstance(space, spaces.Discrete):
            return jax.nn.one_hot(obs, space.n)
        return jnp.asarray(obs, box_dtype(space))

    def observation_space(self, params: GymnaxParams) -> Box:
        with jax.ensure_compile_time_eval():  # bounds stay concrete numbers even while a program is traced
            space = as_space(self._environment.observation_space(params))
            return space.flat if isinstance(space, Discrete) else space

    def longest_episode(self, params: GymnaxParams) -> int:
        """Steps after which every episode has ended."""
        return int(params.max_steps_in_episode)

    def action_space(self, params: GymnaxParams) -> Space:
        """The space of actions; its bounds are traced if params are."""
        if any(is_traced(leaf) for leaf in jax.tree.leaves(params)):
            return as_space(self._environment.action_space(params))
        with jax.ensure_compile_time_eval():
            return as_space(self._environment.action_space(params))


def with_types_of(defaults: dict[str, Any], given: dict[str, Any], what: str) -> dict[str, Any]:
    """The given values, with numbers converted to the types of their defaults; raises ValueError that names `what`."""
    for name in given:
        check_name(name, defaults, what)
    return {name: with_type_of(defaults[name], value, name) for name, value in given.items()}


def with_type_of(default: Any, value: Any, name: str) -> Any:
    """The value converted to the type of its default if that is a number or an array; otherwise unchanged."""
    if not isinstance(default, bool | int | float | jax.Array):
        return value
    wanted, given = np.asarray(default), np.asarray(value)
    number = given.dtype.kind in "if" if wanted.dtype.kind != "b" else given.dtype.kind == "b"
    if not number or given.shape != wanted.shape or (wanted.dtype.kind == "i" and np.any(given % 1)):
        raise ValueError(f"{name} must be of the kind of {wanted.tolist()}, got {value!r}")
    if np.any(np.isfinite(wanted) & ~np.isfinite(given)):
        raise ValueError(f"{name} must be finite, got {value!r}")
    cast = given.astype(wanted.dtype)
    return jnp.asarray(cast) if isinstance(default, jax.Array) else cast.item()


def as_space(space: spaces.Box | spaces.Discrete) -> Space:
    """The space as a type of this project; a Box gets its lowest and highest bounds for all entries."""
    if isinstance(space, spaces.Discrete):
        return Discrete(space.n)
    if is_traced(space.low) or is_traced(space.high):
        return Box(jnp.min(space.low), jnp.max(space.high), tuple(space.shape), box_dtype(space))
    return Box(float(np.min(space.low)), float(np.max(space.high)), tuple(space.shape), box_dtype(space))


def is_traced(x: Any) -> bool:
    return isinstance(x, core.Tracer)


def is_simple(space: spaces.Space) -> bool:
    """Whether the space is a Box of floats with the same bounds for all entries."""
    return (
        isinstance(space, spaces.Box)
        and jnp.issubdtype(space.dtype, jnp.floating)
        and np.min(space.low) == np.max(space.low)
        and np.min(space.high) == np.max(space.high)
    )


def box_dtype(space: spaces.Box) -> jnp.dtype:
    """uint8 or float32; other declared dtypes are unreliable: some environments declare integers but return floats."""
    return jnp.dtype(jnp.uint8 if jnp.dtype(space.dtype) == jnp.uint8 else jnp.float32)
