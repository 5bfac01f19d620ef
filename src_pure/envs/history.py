"""Observations that also tell what was done last and what it earned."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from src_pure.envs.base import Environment, EnvParams, EnvState
from src_pure.envs.spaces import Box, Discrete
from src_pure.types import Array, Key, Metrics

NO_ACTION = -1  # whose one-hot vector is all zeros


class HistoryState(NamedTuple):
    env: Any
    action: Array  # [] int32, the last one, NO_ACTION after a reset
    reward: Array  # [] float32, the last one, 0 after a reset


@dataclass(frozen=True)
class WithHistory:
    """An environment whose observation, made flat, is followed by the last action (one-hot) and the last reward.

    - observation: float32 [D + num_actions + 1]; after a reset action and reward are zeros. Pixels lie in [0, 1].
    - action, reward, end, info: as without.
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
        return self._first(*self.env.reset_env(key, params), params)

    def reset_to(self, key: Key, params: EnvParams, **layout: Array) -> tuple[Array, HistoryState]:
        """(obs, state) of a new episode in the given layout."""
        return self._first(*self.env.reset_to(key, params, **layout), params)

    def step_env(
        self, key: Key, state: HistoryState, action: Array, params: EnvParams
    ) -> tuple[Array, HistoryState, Array, Array, Array, Metrics]:
        """(obs, state, reward, terminated, truncated, info)."""
        obs, env_state, reward, *rest = self.env.step_env(key, state.env, action, params)
        state = HistoryState(env_state, jnp.asarray(action, jnp.int32), jnp.asarray(reward, jnp.float32))
        return self._append(obs, state, params), state, reward, *rest

    def _first(self, obs: Array, env_state: EnvState, params: EnvParams) -> tuple[Array, HistoryState]:
        state = HistoryState(env_state, jnp.int32(NO_ACTION), jnp.float32(0.0))
        return self._append(obs, state, params), state

    def _append(self, obs: Array, state: HistoryState, params: EnvParams) -> Array:
        scale = 255.0 if obs.dtype == jnp.uint8 else 1.0
        parts = [obs.reshape(-1).astype(jnp.float32) / scale]
        if self.last_action:
            parts.append(jax.nn.one_hot(state.action, self.action_space(params).n))
        if self.last_reward:
            parts.append(state.reward[None])
        return jnp.concatenate(parts)

    def observation_space(self, params: EnvParams) -> Box:
        space = self.env.observation_space(params)
        appended = self.last_action * self.action_space(params).n + self.last_reward
        low, high = (-math.inf, math.inf) if self.last_reward else (min(space.low, 0.0), max(space.high, 1.0))
        return Box(low, high, (math.prod(space.shape) + appended,))

    def action_space(self, params: EnvParams) -> Discrete:
        return self.env.action_space(params)

    def render(self, state: HistoryState, params: EnvParams) -> Array:
        """What the environment itself shows."""
        return self.env.render(state.env, params)
