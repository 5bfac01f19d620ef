"""Tiny environments with known values (after andyljones.com/posts/rl-debugging.html); each exposes one kind of bug."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from src_pure.envs.spaces import Box, Discrete
from src_pure.envs.tmaze import TMaze

KINDS = ("constant", "observed", "action", "match", "remember", "endless")


class ProbeParams(NamedTuple):
    kind: int | jax.Array  # index into KINDS
    time_limit: int | jax.Array


class ProbeState(NamedTuple):
    sign: jax.Array  # [] float32, -1 or 1
    time: jax.Array  # [] int32


def probe_params(kind, length=1):
    return ProbeParams(KINDS.index(kind), length)


class Probe:
    """Episodes of `time_limit` steps that terminate, or are truncated if `endless`; the kind is a traced number.

    - constant: reward 1 at the end of the episode (length 1: every value is 1; length 2: gamma, then 1).
    - observed: the reward at the end equals the observed sign.
    - action: the reward at the end is 1 for action 1, -1 for action 0.
    - match: the reward at the end is 1 if the action matches the observed sign, else -1.
    - remember: like match, but only the first step shows the sign.
    - endless: reward 1 on every step; only the time limit ends the episode, and the observations do not show when.
    """

    default_params = probe_params("constant")

    def reset_env(self, key, params):
        return self.reset_to(key, params, sign=jnp.where(jax.random.bernoulli(key), 1.0, -1.0))

    def reset_to(self, key, params, sign):
        state = ProbeState(jnp.asarray(sign, jnp.float32), jnp.int32(0))
        return self._observe(state, params), state

    def step_env(self, key, state, action, params):
        state = state._replace(time=state.time + 1)
        end, endless = state.time >= params.time_limit, jnp.asarray(params.kind == KINDS.index("endless"))
        choice = 2.0 * action - 1.0
        match = choice * state.sign
        reward = jnp.stack([1.0, state.sign, choice, match, match, 1.0])[params.kind]
        reward = jnp.where(end | endless, reward, 0.0)
        info = {"success": (reward > 0).astype(jnp.float32)}
        return self._observe(state, params), state, reward, end & ~endless, end & endless, info

    def _observe(self, state, params):
        first = (state.time == 0).astype(jnp.float32)
        seen = jnp.stack([0.0, 1.0, 0.0, 1.0, first, 0.0])[params.kind]
        time = jnp.where(jnp.equal(params.kind, KINDS.index("endless")), 0, state.time)
        return jnp.stack([state.sign * seen, time.astype(jnp.float32)])

    def observation_space(self, params):
        return Box(-1.0, 100.0, (2,))

    def action_space(self, params):
        return Discrete(2)


class Aim:
    """Episodes of one step; reward -|action - target|^2 for an action [2] and an observed target, 0.5 or -0.5."""

    default_params = ()

    def reset_env(self, key, params):
        target = jnp.where(jax.random.bernoulli(key), 0.5, -0.5)
        return target[None], target

    def step_env(self, key, target, action, params):
        end = jnp.bool_(True)
        return target[None], target, -jnp.sum(jnp.square(action - target)), end, ~end, {}

    def observation_space(self, params):
        return Box(-0.5, 0.5, (1,))

    def action_space(self, params):
        return Box(-3.0, 3.0, (2,))


@dataclass(frozen=True)
class BrokenTMaze(TMaze):
    """A T-Maze whose observation or reward becomes infinite or NaN after 40 steps."""

    broken: str = "obs"

    def step_env(self, key, state, action, params):
        obs, state, reward, *rest = super().step_env(key, state, action, params)
        now = state.time == 40
        if self.broken == "obs":
            return jnp.where(now, jnp.inf, obs), state, reward, *rest
        return obs, state, jnp.where(now, jnp.nan, reward), *rest


@dataclass(frozen=True)
class ForeverTMaze(TMaze):
    """A T-Maze that does not declare its longest episode."""

    longest_episode = None
