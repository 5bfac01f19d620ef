"""A batch of environments that resets itself: what training sees."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from src_pure.envs.base import Environment, EnvParams
from src_pure.envs.spaces import Discrete, Space
from src_pure.types import Array, Key, Timestep

Truncation = Literal["terminate", "bootstrap"]


class VectorState(NamedTuple):
    env: Any  # leaves [B, ...]
    episode_return: Array  # [B] float32, so far
    episode_length: Array  # [B] int32, so far
    waiting: Array  # [B] bool: a time limit was reached, the final observation is shown, the next step resets


@struct.dataclass
class VectorEnv:
    """num_envs copies of an environment, each started anew when its episode ends.

    truncation: what a time limit means to the learner.
    - `terminate`: the end of the episode, as in published code; reported as `terminated`.
    - `bootstrap`: the episode would have gone on. The policy sees the final observation for one more step, so that
      its value, computed with the memory of that episode, stands in the trajectory; the action of that step is
      ignored and its transition carries no loss.
    """

    env: Environment = struct.field(pytree_node=False)
    params: EnvParams
    num_envs: int = struct.field(pytree_node=False)
    truncation: Truncation = struct.field(pytree_node=False, default="terminate")

    @property
    def observation_space(self) -> Space:
        return self.env.observation_space(self.params)

    @property
    def action_space(self) -> Discrete:
        return self.env.action_space(self.params)

    def reset(self, key: Key) -> tuple[VectorState, Timestep]:
        """(state, timestep) with every environment at the start of an episode."""
        obs, env_state = self._reset_envs(key)
        no, zero = jnp.zeros(self.num_envs, bool), jnp.zeros(self.num_envs)
        state = VectorState(env_state, zero, jnp.zeros(self.num_envs, jnp.int32), no)
        action = jnp.zeros((self.num_envs, *self.action_space.shape), self.action_space.dtype)
        info = jax.eval_shape(self.step, key, state, action)[1].info
        info = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), info)
        return state, Timestep(obs, ~no, zero, no, no, no, no, info)

    def step(self, key: Key, state: VectorState, action: Array) -> tuple[VectorState, Timestep]:
        """(state, timestep) after action [B]; episodes that ended are started anew."""
        key_step, key_reset = jax.random.split(key)
        keys = jax.random.split(key_step, self.num_envs)
        obs, env_state, reward, terminated, truncated, info = jax.vmap(self.env.step_env, in_axes=(0, 0, 0, None))(
            keys, state.env, action, self.params
        )
        ignored = state.waiting
        reward = jnp.where(ignored, 0.0, reward)
        terminated, truncated = terminated & ~ignored, truncated & ~terminated & ~ignored
        finished = terminated | truncated
        if self.truncation == "bootstrap":
            waiting = truncated
        else:
            terminated, truncated, waiting = finished, jnp.zeros_like(truncated), jnp.zeros_like(truncated)
        reset = ignored | (finished & ~waiting)

        reset_obs, reset_state = self._reset_envs(key_reset)
        obs, env_state = _where(reset, (reset_obs, reset_state), (obs, env_state))
        episode_return = state.episode_return + reward
        episode_length = state.episode_length + ~ignored
        info = info | {"episode_return": episode_return, "episode_length": episode_length.astype(jnp.float32)}
        new_state = VectorState(
            env_state, jnp.where(reset, 0.0, episode_return), jnp.where(reset, 0, episode_length), waiting
        )
        return new_state, Timestep(obs, reset, reward, terminated, truncated, ignored, finished, info)

    def _reset_envs(self, key: Key):
        return jax.vmap(self.env.reset_env, in_axes=(0, None))(jax.random.split(key, self.num_envs), self.params)


def _where(mask: Array, on_true, on_false):
    """Leaf by leaf, on_true where mask [B] is set; leaves [B, ...]."""

    def select(a, b):
        return jnp.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(select, on_true, on_false)
