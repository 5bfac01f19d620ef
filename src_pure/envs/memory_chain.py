"""The memory tasks of bsuite (Osband et al., arXiv:1908.03568): bits are shown and asked for later."""

import random
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from src_pure.envs.names import check_name
from src_pure.envs.spaces import Box, Discrete
from src_pure.types import Array, Depth, Key, Metrics, PositiveInt

# The settings (memory_length, num_bits) of the published sweeps, in the order of their identifiers
SWEEPS = {
    "memory_length": [(length, 1) for length in (*range(1, 11), 12, 14, 17, 20, 25, *range(30, 101, 10))],
    "memory_size": [(2, bits) for bits in (*range(1, 11), 12, 14, 17, 20, 25, 30, 40)],
    "distributed_memory": [
        *((3, 3), (5, 3), (5, 5)),
        *((10, 3), (10, 5), (10, 7), (10, 9)),
        *((30, 3), (30, 5), (30, 7), (30, 9), (30, 17), (30, 25)),
    ],
}
DEFAULT_SETTINGS = {"memory_length": (10, 1), "memory_size": (2, 10), "distributed_memory": (10, 3)}

SLOT = 16  # pixels of a bit in a picture
PICTURE_HEIGHT = 48


class MemoryChainParams(NamedTuple):
    memory_length: Array | int


class MemoryChainState(NamedTuple):
    context: Array  # [num_bits] int32, 0 or 1
    query: Array  # [] int32, the bit that is asked for
    time: Array  # [] int32, steps since the reset


class DistributedMemoryParams(NamedTuple):
    memory_length: Array | int
    context_timesteps: Array | np.ndarray  # [num_bits] int32, when each bit is shown


class DistributedMemoryState(NamedTuple):
    context: Array  # [num_bits] int32, 0 or 1
    context_timesteps: Array  # [num_bits] int32
    time: Array  # [] int32, steps since the reset


@dataclass(frozen=True)
class MemoryChain:
    """Bits are shown first, a question about one of them comes last, the answer is the only action that counts.

    - observation: float32 [2 + num_bits] (bsuite adds an axis of length 1): the fraction of time left, the index of the
      asked bit when it is asked and 0 otherwise, the bits as -1 or 1 when they are shown and 0 otherwise.
    - action: int32 [], 0 or 1, the answer.
    - reward: float32 [], on the last step 1 for the asked bit and -1 for the other one; 0 before.
    - end: terminated after memory_length + 1 steps, never truncated. As in bsuite the first observation, with the bits,
      is seen twice: it comes from the reset and again from the first step.
    - state: int32 context [num_bits], query, time.
    """

    memory_length: PositiveInt = 10
    num_bits: Depth = 1

    numbers = ("memory_length",)

    def __post_init__(self):
        _check_at_least_one(memory_length=self.memory_length, num_bits=self.num_bits)

    @property
    def default_params(self) -> MemoryChainParams:
        return MemoryChainParams(memory_length=self.memory_length)

    def reset_env(self, key: Key, params: MemoryChainParams) -> tuple[Array, MemoryChainState]:
        """(obs, state) of a new episode with fair random bits and a uniform query."""
        key_context, key_query, key_reset = jax.random.split(key, 3)
        context = jax.random.bernoulli(key_context, shape=(self.num_bits,))
        query = jax.random.randint(key_query, (), 0, self.num_bits)
        return self.reset_to(key_reset, params, context=context, query=query)

    def reset_to(
        self, key: Key, params: MemoryChainParams, context: Array, query: Array | int
    ) -> tuple[Array, MemoryChainState]:
        """(obs, state) of a new episode with the given bits [num_bits], 0 or 1, and query; nothing is random."""
        state = MemoryChainState(jnp.asarray(context, jnp.int32), jnp.asarray(query, jnp.int32), time=jnp.int32(0))
        return self._observe(state, params), state

    def step_env(
        self, key: Key, state: MemoryChainState, action: Array, params: MemoryChainParams
    ) -> tuple[Array, MemoryChainState, Array, Array, Array, Metrics]:
        """(obs, state, reward, terminated, truncated, info); info: success. The observation is that of the old time."""
        terminated = state.time >= params.memory_length
        obs = self._observe(state, params)
        outcome = _outcome(terminated, action == state.context[state.query])
        return obs, state._replace(time=state.time + 1), *outcome

    def _observe(self, state: MemoryChainState, params: MemoryChainParams) -> Array:
        asked = jnp.where(state.time == params.memory_length - 1, state.query, 0)
        bits = jnp.where(state.time == 0, 2 * state.context - 1, 0)
        return _obs(state.time, params.memory_length, asked, bits)

    def observation_space(self, params: MemoryChainParams) -> Box:
        return Box(low=-1.0, high=float(max(1, self.num_bits - 1)), shape=(2 + self.num_bits,))

    def longest_episode(self, params: MemoryChainParams) -> int:
        """Steps after which every episode has ended."""
        return int(params.memory_length) + 1

    def action_space(self, params: MemoryChainParams) -> Discrete:
        return Discrete(2)

    def caption(self, state: MemoryChainState) -> str:
        """What is to be remembered, for a person who watches."""
        return f"bits: {''.join(str(int(bit)) for bit in state.context)}, number {int(state.query)} is asked for"

    def render(self, state: MemoryChainState, params: MemoryChainParams) -> Array:
        """uint8 [48, 16 * num_bits, 3]: green ones, red zeros, dim where not shown; the query; a bar of the time."""
        asked = jnp.arange(self.num_bits) == state.query
        shown = jnp.broadcast_to(state.time <= 1, asked.shape)  # by the reset and by the first step
        return _picture(state.context, shown, asked, state.time / (params.memory_length + 1))


@dataclass(frozen=True)
class DistributedMemory:
    """Bits are shown one by one, at times that never change; the last action says which value was more frequent.

    The variant of MemoryChain by T. Makkink, whose sliding window over observations is left to the memory model.

    - observation: float32 [2 + num_bits]: the fraction of time left, always 0, a bit as -1 or 1 when it is shown.
    - action: int32 [], 0 or 1, the answer.
    - reward: float32 [], on the last step 1 for the majority of the bits and -1 otherwise; 0 before.
    - end: terminated after memory_length steps, never truncated. No observation is seen twice; the last is all zero.
    - state: int32 context [num_bits], context_timesteps [num_bits], time.
    """

    memory_length: PositiveInt = 10
    num_bits: Depth = 3

    numbers = ("memory_length",)

    def __post_init__(self):
        _check_at_least_one(memory_length=self.memory_length, num_bits=self.num_bits)
        if self.num_bits % 2 == 0:
            raise ValueError(f"num_bits must be odd, so that there is a majority, got {self.num_bits}")
        if self.memory_length < self.num_bits:
            raise ValueError(
                "memory_length must be at least num_bits, because each bit is shown on a step of its own, "
                f"got {self.memory_length} and {self.num_bits}"
            )

    @property
    def default_params(self) -> DistributedMemoryParams:
        schedule = distributed_schedule(self.memory_length, self.num_bits)
        return DistributedMemoryParams(self.memory_length, np.array(schedule, np.int32))

    def reset_env(self, key: Key, params: DistributedMemoryParams) -> tuple[Array, DistributedMemoryState]:
        """(obs, state) of a new episode with fair random bits, shown at the times of `params`."""
        key_context, key_reset = jax.random.split(key)
        context = jax.random.bernoulli(key_context, shape=(self.num_bits,))
        return self.reset_to(key_reset, params, context=context)

    def reset_to(
        self,
        key: Key,
        params: DistributedMemoryParams,
        context: Array,
        query: Array | int = 0,
        context_timesteps: Array | None = None,
    ) -> tuple[Array, DistributedMemoryState]:
        """(obs, state) of a new episode with bits [num_bits], 0 or 1, shown at context_timesteps; nothing is random.

        Without context_timesteps, those of `params`. The query, part of a memory chain's layout, has no effect.
        """
        timesteps = params.context_timesteps if context_timesteps is None else context_timesteps
        context, timesteps = jnp.asarray(context, jnp.int32), jnp.asarray(timesteps, jnp.int32)
        state = DistributedMemoryState(context, timesteps, time=jnp.int32(0))
        return self._observe(state, params), state

    def step_env(
        self, key: Key, state: DistributedMemoryState, action: Array, params: DistributedMemoryParams
    ) -> tuple[Array, DistributedMemoryState, Array, Array, Array, Metrics]:
        """(obs, state, reward, terminated, truncated, info); info: success. The observation is that of the new time."""
        state = state._replace(time=state.time + 1)
        terminated = state.time >= params.memory_length
        majority = 2 * state.context.sum() > self.num_bits
        return self._observe(state, params), state, *_outcome(terminated, action == majority)

    def _observe(self, state: DistributedMemoryState, params: DistributedMemoryParams) -> Array:
        bits = jnp.where(state.context_timesteps == state.time, 2 * state.context - 1, 0)
        return _obs(state.time, params.memory_length, jnp.int32(0), bits)

    def observation_space(self, params: DistributedMemoryParams) -> Box:
        return Box(low=-1.0, high=1.0, shape=(2 + self.num_bits,))

    def longest_episode(self, params: DistributedMemoryParams) -> int:
        """Steps after which every episode has ended."""
        return int(params.memory_length)

    def action_space(self, params: DistributedMemoryParams) -> Discrete:
        return Discrete(2)

    def caption(self, state: DistributedMemoryState) -> str:
        """What is to be remembered, for a person who watches."""
        return f"bits: {''.join(str(int(bit)) for bit in state.context)}"

    def render(self, state: DistributedMemoryState, params: DistributedMemoryParams) -> Array:
        """uint8 [48, 16 * num_bits, 3]: green ones, red zeros, dim where not shown; a bar of the time."""
        nothing_asked = jnp.zeros(self.num_bits, bool)
        shown = state.context_timesteps == state.time
        return _picture(state.context, shown, nothing_asked, state.time / params.memory_length)


def memory_task(
    env_name: str, memory_length: PositiveInt | None = None, num_bits: Depth | None = None
) -> MemoryChain | DistributedMemory:
    """The environment of a published name, in its default setting (memory_length, num_bits) where None is given."""
    check_name(env_name, DEFAULT_SETTINGS)
    default_length, default_bits = DEFAULT_SETTINGS[env_name]
    environment = DistributedMemory if env_name == "distributed_memory" else MemoryChain
    return environment(
        memory_length=default_length if memory_length is None else memory_length,
        num_bits=default_bits if num_bits is None else num_bits,
    )


def distributed_schedule(memory_length: int, num_bits: int) -> tuple[int, ...]:
    """When each bit is shown: as the original draws it once, always from seed 0, so that it is a constant."""
    return tuple(sorted(random.Random(0).sample(range(memory_length), num_bits)))


def _check_at_least_one(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")


def _obs(time: Array, memory_length: Array | int, asked: Array, bits: Array) -> Array:
    """float32 [2 + num_bits], the first one 1 - time / memory_length to the last bit.

    One division rounds once, as the original's float64 does in effect; the barrier keeps XLA from replacing it by a
    multiplication with the rounded reciprocal where the length is a constant.
    """
    time_left = (memory_length - time) / jax.lax.optimization_barrier(jnp.float32(memory_length))
    return jnp.concatenate([jnp.stack([time_left, asked]), bits]).astype(jnp.float32)


def _outcome(terminated: Array, right: Array) -> tuple[Array, Array, Array, Metrics]:
    """(reward, terminated, truncated, info) of a step whose action is the right or the wrong answer."""
    reward = jnp.where(terminated, jnp.where(right, 1.0, -1.0), 0.0)
    return reward, terminated, jnp.zeros_like(terminated), {"success": (terminated & right).astype(jnp.float32)}


def _picture(context: Array, shown: Array, asked: Array, progress: Array) -> Array:
    colors = jnp.where(context[:, None] == 1, jnp.array((0, 220, 80)), jnp.array((230, 60, 60)))  # [num_bits, 3]
    colors = jnp.where(shown[:, None], colors, colors // 4)
    row, column = jnp.mgrid[:PICTURE_HEIGHT, : SLOT * context.shape[0]]
    slot, gap = column // SLOT, (column % SLOT == 0)
    layers = (
        ((row >= 4) & (row < 28) & ~gap, colors[slot]),
        ((row >= 30) & (row < 34) & asked[slot] & ~gap, jnp.array((255, 255, 255))),
        ((row >= 40) & (row < 44) & (column < progress * column.shape[1]), jnp.array((60, 120, 255))),
    )
    image = jnp.zeros((*row.shape, 3), jnp.int32)
    for mask, color in layers:
        image = jnp.where(mask[:, :, None], color, image)
    return image.astype(jnp.uint8)
