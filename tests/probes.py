"""Tiny environments with known values (after andyljones.com/posts/rl-debugging.html); each breaks on one bug."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from src_pure.envs.spaces import Box, Discrete


class ProbeParams(NamedTuple):
    time_limit: int


class ProbeState(NamedTuple):
    sign: jax.Array  # [] float32, -1 or 1
    time: jax.Array  # [] int32


@dataclass(frozen=True)
class Probe:
    """Episodes of `length` steps, terminated at the end, or truncated where `endless`.

    - constant: reward 1 at the end of the episode (length 1: every value is 1; length 2: gamma, then 1).
    - observed: the reward at the end is the observed sign.
    - action: the reward at the end is 1 for action 1, -1 for action 0.
    - match: the reward at the end is 1 if the action matches the observed sign, else -1.
    - remember: the same, but the sign is seen on the first step alone.
    - endless: reward 1 on every step; only the time limit ends it, and nothing observed tells when.
    """

    kind: Literal["constant", "observed", "action", "match", "remember", "endless"]
    length: int = 1

    @property
    def default_params(self):
        return ProbeParams(self.length)

    def reset_env(self, key, params):
        return self.reset_to(key, params, sign=jnp.where(jax.random.bernoulli(key), 1.0, -1.0))

    def reset_to(self, key, params, sign):
        state = ProbeState(jnp.asarray(sign, jnp.float32), jnp.int32(0))
        return self._observe(state), state

    def step_env(self, key, state, action, params):
        state = state._replace(time=state.time + 1)
        end = state.time >= params.time_limit
        choice = 2.0 * action - 1.0
        reward = {
            "constant": 1.0,
            "observed": state.sign,
            "action": choice,
            "match": choice * state.sign,
            "remember": choice * state.sign,
            "endless": 1.0,
        }[self.kind]
        reward = jnp.where(end | (self.kind == "endless"), reward, 0.0).astype(jnp.float32)
        no = jnp.zeros((), bool)
        terminated, truncated = (no, end) if self.kind == "endless" else (end, no)
        return self._observe(state), state, reward, terminated, truncated, {"success": (reward > 0).astype(jnp.float32)}

    def _observe(self, state):
        seen = {"observed": 1.0, "match": 1.0, "remember": state.time == 0}.get(self.kind, 0.0)
        time = 0.0 if self.kind == "endless" else state.time
        return jnp.stack([state.sign * seen, jnp.asarray(time, jnp.float32)])

    def observation_space(self, params):
        return Box(-1.0, 100.0, (2,))

    def action_space(self, params):
        return Discrete(2)
