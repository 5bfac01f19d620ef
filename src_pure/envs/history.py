"""Observations that include the last action and the last reward."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp

from src_pure.envs import optional
from src_pure.envs.base import Environment, EnvParams, EnvState
from src_pure.envs.spaces import Box, Space
from src_pure.ops.pixels import as_float
from src_pure.types import Array, Key, Metrics


class HistoryState(NamedTuple):
    env: Any
    action: Array  # [A] float32, the last one as a vector, zeros after a reset
    reward: Array  # [] float32, the last one, 0 after a reset


@dataclass(frozen=True)
class WithHistory:
    """An environment whose flat observation is followed by the last action and the last reward.

    - observation: float32 [D + A + 1], a discrete action as a one-hot vector; after a reset action and reward are
      zeros. Pixels lie in [0, 1].
    - action, reward, end, info and all that is optional but `observe`: those of the environment itself.
    - state: that of the environment, the last action and the last reward.
    """

    env: Environment
    last_action: bool
    last_reward: bool

    @property
    def default_params(self) -> EnvParams:
        return self.env.default_params

    def reset_env(self, key: Key, params: EnvParams) -> tuple[Array, HistoryState]:
        """(obs, state) of a new episode."""
        return self._first(*self.env.reset_env(key, params))

    def reset_to(self, key: Key, params: EnvParams, **layout: Array) -> tuple[Array, HistoryState]:
        """(obs, state) of a new episode in the given layout."""
        return self._first(*self.env.reset_to(key, params, **layout))

    def step_env(
        self, key: Key, state: HistoryState, action: Array, params: EnvParams
    ) -> tuple[Array, HistoryState, Array, Array, Array, Metrics]:
        """(obs, state, reward, terminated, truncated, info)."""
        obs, env_state, reward, terminated, truncated, info = self.env.step_env(key, state.env, action, params)
        action = self._actions.flatten(action)
        state = HistoryState(env_state, action, jnp.asarray(reward, jnp.float32))
        return self._append(obs, state), state, reward, terminated, truncated, info

    def _first(self, obs: Array, env_state: EnvState) -> tuple[Array, HistoryState]:
        state = HistoryState(env_state, jnp.zeros(self._actions.flat.shape), jnp.float32(0.0))
        return self._append(obs, state), state

    @property
    def _actions(self) -> Space:
        """Its size is that of any params; these are not traced."""
        return self.env.action_space(self.env.default_params)

    def _append(self, obs: Array, state: HistoryState) -> Array:
        parts = [as_float(obs).reshape(-1)]
        if self.last_action:
            parts.append(state.action)
        if self.last_reward:
            parts.append(state.reward[None])
        return jnp.concatenate(parts)

    def observation_space(self, params: EnvParams) -> Box:
        seen, done = self.env.observation_space(params).flat, self.action_space(params).flat
        size = seen.shape[0] + self.last_action * done.shape[0] + self.last_reward
        if self.last_reward:
            return Box(-math.inf, math.inf, (size,))
        return Box(min(seen.low, done.low, 0.0), max(seen.high, done.high, 0.0), (size,))

    def action_space(self, params: EnvParams) -> Space:
        return self.env.action_space(params)

    def render(self, state: HistoryState, params: EnvParams) -> Array:
        """The picture of the environment itself."""
        return optional.render(self.env, state.env, params)

    def caption(self, state: HistoryState) -> str:
        return optional.caption(self.env, state.env)

    @property
    def action_names(self) -> tuple[str, ...]:
        return optional.action_names(self.env)

    def longest_episode(self, params: EnvParams) -> int | None:
        return optional.longest_episode(self.env, params)

    @property
    def numbers(self) -> tuple[str, ...]:
        return optional.numbers(self.env)

    @property
    def reset_ratio(self) -> int:
        return optional.reset_ratio(self.env)
