"""A batch of environments that resets itself: what training sees."""

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax

from src_pure.bits import in_32_bits
from src_pure.envs.base import Environment, EnvParams, EnvState
from src_pure.envs.optional import Observes
from src_pure.envs.resets import STRATEGIES, Pool, Strategy
from src_pure.envs.spaces import Space
from src_pure.types import Array, Key, Resets, Timestep, Truncation


class VectorState(NamedTuple):
    env: Any  # leaves [B, ...]
    episode_return: Array  # [B] float32, so far
    episode_length: Array  # [B] int32, so far
    waiting: Array  # [B] bool: a time limit was reached, the final observation is shown, the next step resets
    shared_world: Array  # [B] bool: the episode began as one did that another environment began before
    pool: Pool | None


@struct.dataclass
class VectorEnv:
    """num_envs copies of an environment; each starts a new episode when its old one ends.

    truncation: what a time limit means to the learner.
    - `terminate`: the end of the episode, as in published code; reported as `terminated`.
    - `bootstrap`: the episode would have gone on. The policy sees the final observation for one more step, so that
      its value, computed with the memory of that episode, is part of the trajectory; the action of that step is
      ignored and its transition carries no loss.

    resets: where new episodes come from. Resets happen in groups of num_envs / reset_ratio; a step runs as many groups
    as it needs, usually none or one. So where a world takes long to make, a step does not pay for num_envs of them.
    - `on_demand`: made when they are needed. Every episode has a world of its own.
    - `optimistic` (Matthews et al., arXiv:2402.16801): one group is made on every step; where more episodes end, the
      others begin in the same worlds.
    - `pool`: num_envs are made before each rollout (`refresh`), and once all are taken they are taken again.
    With the last two, info has `shared_world`: 1 for an episode whose world another environment had before.
    With reset_ratio=1 and no pool, a reset is computed for every environment on every step: best when resets are cheap.

    An environment that has `observe` draws its observations once, after the resets; what its `step_env` and
    `reset_env` would show is not even computed.
    """

    env: Environment = struct.field(pytree_node=False)
    params: EnvParams
    num_envs: int = struct.field(pytree_node=False)
    truncation: Truncation = struct.field(pytree_node=False, default="terminate")
    reset_ratio: int = struct.field(pytree_node=False, default=1)
    resets: Resets = struct.field(pytree_node=False, default="on_demand")
    # Computed once, from the params of the constructor; `replace(params=...)`, which may be traced, keeps them. Actions
    # are clipped to the bounds of the present params.
    observation_space: Space = struct.field(pytree_node=False, default=None)
    action_space: Space = struct.field(pytree_node=False, default=None)

    if TYPE_CHECKING:  # flax makes it, and does not type it

        def replace(self, **changes: Any) -> "VectorEnv": ...

    def __post_init__(self):
        if self.action_space is None:
            object.__setattr__(self, "observation_space", self.env.observation_space(self.params))
            object.__setattr__(self, "action_space", self.env.action_space(self.params))

    @in_32_bits
    def reset(self, key: Key) -> tuple[VectorState, Timestep]:
        """(state, timestep) with every environment at the start of an episode; a pool holds these, all taken."""
        episodes = self._new_episodes(key, self.num_envs)
        obs, env_state = self._observe(*episodes)
        no, zero = jnp.zeros(self.num_envs, bool), jnp.zeros(self.num_envs)
        pool = Pool(episodes, jnp.int32(self.num_envs)) if self._strategy.has_pool else None
        state = VectorState(env_state, zero, jnp.zeros(self.num_envs, jnp.int32), no, no, pool)
        action = jnp.zeros((self.num_envs, *self.action_space.shape), self.action_space.dtype)
        info = jax.eval_shape(self.step, key, state, action)[1].info
        info = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), info)
        return state, Timestep(obs, ~no, zero, no, no, no, no, info)

    @in_32_bits
    def refresh(self, key: Key, state: VectorState) -> VectorState:
        """The state with a new pool for the coming rollout; unchanged without a pool."""
        if state.pool is None:
            return state
        return state._replace(pool=Pool(self._new_episodes(key, self.num_envs), jnp.int32(0)))

    @in_32_bits
    def step(self, key: Key, state: VectorState, action: Array) -> tuple[VectorState, Timestep]:
        """(state, timestep) after action [B] or [B, A]; where an episode ended, a new one starts.

        Vectors are clipped to the action space here, not in the policy: the density is that of the sample.
        """
        key_step, key_reset = jax.random.split(key)
        keys = jax.random.split(key_step, self.num_envs)
        obs, env_state, reward, terminated, truncated, info = jax.vmap(self.env.step_env, in_axes=(0, 0, 0, None))(
            keys, state.env, self.env.action_space(self.params).clip(action), self.params
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

        episodes = (None if self._can_observe else obs, env_state)
        episodes, shared_world, pool = self._restart(key_reset, reset, episodes, state)
        obs, env_state = self._observe(*episodes)
        episode_return = state.episode_return + reward
        episode_length = state.episode_length + ~ignored
        info = info | {"episode_return": episode_return, "episode_length": episode_length.astype(jnp.float32)}
        if self._may_share:
            info |= {"shared_world": state.shared_world.astype(jnp.float32)}
        new_state = VectorState(
            env=env_state,
            episode_return=jnp.where(reset, 0.0, episode_return),
            episode_length=jnp.where(reset, 0, episode_length),
            waiting=waiting,
            shared_world=shared_world,
            pool=pool,
        )
        return new_state, Timestep(obs, reset, reward, terminated, truncated, ignored, finished, info)

    def _restart(
        self, key: Key, ended: Array, episodes: tuple[Array | None, EnvState], state: VectorState
    ) -> tuple[tuple[Array | None, EnvState], Array, Pool | None]:
        """(episodes with new ones where `ended` [B] is set, shared_world [B], pool)."""
        if self._all_at_once:
            return _where(ended, self._new_episodes(key, self.num_envs), episodes), state.shared_world, None
        strategy = self._strategy
        prepared = strategy.prepare(key, state.pool)

        def some_ended(loop):
            return jnp.any(loop[0])

        def replace_some(loop):
            ended, episodes, shared_world, taken, turn = loop
            index = jnp.nonzero(ended, size=self._at_once, fill_value=self.num_envs)[0]  # num_envs: no environment
            new, again = strategy.draw(key, prepared, turn, taken)
            episodes = jax.tree.map(lambda old, new: old.at[index].set(new, mode="drop"), episodes, new)
            shared_world = shared_world.at[index].set(again, mode="drop")
            taken += jnp.sum(index < self.num_envs)
            return ended.at[index].set(False, mode="drop"), episodes, shared_world, taken, turn + 1

        taken = jnp.int32(0) if state.pool is None else state.pool.taken
        loop = (ended, episodes, state.shared_world, taken, jnp.int32(0))
        _, episodes, shared_world, taken, _ = lax.while_loop(some_ended, replace_some, loop)
        return episodes, shared_world, state.pool if state.pool is None else state.pool._replace(taken=taken)

    def _new_episodes(self, key: Key, number: int) -> tuple[Array | None, EnvState]:
        keys = jax.random.split(key, number)
        obs, env_state = jax.vmap(self.env.reset_env, in_axes=(0, None))(keys, self.params)
        return None if self._can_observe else obs, env_state

    def _observe(self, obs: Any, env_state: EnvState) -> tuple[Array, EnvState]:
        if isinstance(self.env, Observes):
            obs = jax.vmap(self.env.observe, in_axes=(0, None))(env_state, self.params)
        return obs, env_state

    @property
    def _at_once(self) -> int:
        """How many environments are reset together."""
        return -(-self.num_envs // self.reset_ratio)

    @property
    def _all_at_once(self) -> bool:
        return self.reset_ratio == 1 and not self._strategy.has_pool

    @property
    def _strategy(self) -> Strategy:
        return STRATEGIES[self.resets](self._new_episodes, self._at_once)

    @property
    def _may_share(self) -> bool:
        return self._strategy.shares and not self._all_at_once

    @property
    def _can_observe(self) -> bool:
        return isinstance(self.env, Observes)


def _where(mask: Array, on_true, on_false):
    """Leaf by leaf, on_true where mask [B] is set; leaves [B, ...]."""

    def select(a: Array, b: Array) -> Array:
        return jnp.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(select, on_true, on_false)
