"""The T-Maze of Pramanik et al. (AGaLiTe, arXiv:2310.15719): see a cue, walk a corridor, turn the way the cue said."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from src_pure.envs.spaces import Box, Discrete
from src_pure.types import Array, Key, Metrics, NonNegativeInt, PositiveInt

UP, DOWN, LEFT, RIGHT = range(4)
REWARD_RIGHT_TURN, REWARD_WRONG_TURN, REWARD_STEP = 4.0, -1.0, -0.1

# v1: three bits say what is seen. v2: two cue bits, then the position as a reflected Gray code.
V1_CUE = ((0, 1, 1), (1, 1, 0))  # indexed by the cue
V1_CORRIDOR, V1_JUNCTION = (1, 0, 1), (0, 1, 0)
V2_CUE = ((0, 1), (1, 0))
V2_NO_CUE = (0, 0)
GRAY_BITS = 8
DEFAULT_TIME_LIMIT = {"v1": 5000, "v2": 1000}

RENDER_HEIGHT, RENDER_WIDTH = 64, 128
RENDER_CORRIDOR = 96  # pixels from the first cell to the junction, whatever the number of cells


class TMazeParams(NamedTuple):
    """Numbers that may be traced. The 256 cells of v2 are checked for the environment's own corridor_len only."""

    corridor_len: Array | int
    time_limit: Array | int


class TMazeState(NamedTuple):
    cue: Array  # [] int32, 0 up, 1 down
    position: Array  # [] int32 in 0 .. corridor_len - 1, the last one is the junction
    time: Array  # [] int32, steps since the reset


@dataclass(frozen=True)
class TMaze:
    """A corridor with a junction at its end; only the first observation shows which way to turn there.

    - observation: float32 [3 + num_distractors] (v1) or [10 + num_distractors] (v2), all 0 or 1. v1: what is seen
      (cue, corridor or junction). v2: cue (zero after the reset) and Gray code of the position. Then fair random bits,
      fresh on every step and zero at the reset.
    - action: int32 [], 0 up, 1 down, 2 left, 3 right. Up and down do nothing in the corridor, left and right nothing at
      the junction.
    - reward: float32 [], 4 for the right turn at the junction, -1 for the wrong one, -0.1 for every other step.
    - end: terminated by a turn at the junction, truncated at time_limit steps; both together when the last step turns.
    - state: cue, position, time, each int32 [].
    """

    variant: Literal["v1", "v2"] = "v2"
    corridor_len: PositiveInt = 10
    num_distractors: NonNegativeInt = 6
    time_limit: PositiveInt | None = None  # None: 5000 for v1, 1000 for v2

    numbers = ("corridor_len", "time_limit")
    action_names = ("up", "down", "left", "right")

    def __post_init__(self):
        if self.variant not in DEFAULT_TIME_LIMIT:
            raise ValueError(f"variant must be v1 or v2, got {self.variant!r}")
        if self.corridor_len < 1:
            raise ValueError(f"corridor_len must be at least 1, got {self.corridor_len}")
        if self.variant == "v2" and self.corridor_len > 2**GRAY_BITS:
            raise ValueError(
                f"corridor_len must be at most {2**GRAY_BITS} in variant v2, which shows the position as an "
                f"{GRAY_BITS}-bit Gray code, got {self.corridor_len}; shorten the corridor or use variant v1"
            )
        if self.num_distractors < 0:
            raise ValueError(f"num_distractors must be at least 0, got {self.num_distractors}")
        if self.time_limit is not None and self.time_limit < 1:
            raise ValueError(f"time_limit must be at least 1, or null for the default, got {self.time_limit}")
        if self.corridor_len > self.default_params.time_limit:
            raise ValueError(
                "corridor_len must be at most time_limit, because the agent turns at that step at the earliest, "
                f"got {self.corridor_len} and {self.default_params.time_limit}"
            )

    @property
    def default_params(self) -> TMazeParams:
        limit = DEFAULT_TIME_LIMIT[self.variant] if self.time_limit is None else self.time_limit
        return TMazeParams(corridor_len=self.corridor_len, time_limit=limit)

    def reset_env(self, key: Key, params: TMazeParams) -> tuple[Array, TMazeState]:
        """(obs, state) of a new episode with a fair random cue."""
        key_cue, key_reset = jax.random.split(key)
        return self.reset_to(key_reset, params, cue=jax.random.bernoulli(key_cue))

    def reset_to(self, key: Key, params: TMazeParams, cue: Array | int) -> tuple[Array, TMazeState]:
        """(obs, state) of a new episode with the given cue, 0 up or 1 down; nothing else is random at the reset."""
        cue = jnp.asarray(cue, jnp.int32)
        state = TMazeState(cue=cue, position=jnp.int32(0), time=jnp.int32(0))
        if self.variant == "v1":
            seen = jnp.array(V1_CUE)[cue]
        else:
            seen = jnp.concatenate([jnp.array(V2_CUE)[cue], gray_code(state.position)])
        return self._obs(seen, jnp.zeros(self.num_distractors)), state

    def step_env(
        self, key: Key, state: TMazeState, action: Array, params: TMazeParams
    ) -> tuple[Array, TMazeState, Array, Array, Array, Metrics]:
        """(obs, state, reward, terminated, truncated, info); info: success, 1 when this step is the right turn."""
        junction = params.corridor_len - 1
        at_junction = state.position == junction
        terminated = at_junction & ((action == UP) | (action == DOWN))
        success = terminated & (action == state.cue)
        turn_reward = jnp.where(success, REWARD_RIGHT_TURN, REWARD_WRONG_TURN)
        reward = jnp.where(terminated, turn_reward, REWARD_STEP).astype(jnp.float32)

        move = jnp.where(action == RIGHT, 1, 0) - jnp.where(action == LEFT, 1, 0)
        moved = jnp.clip(state.position + move, 0, junction)
        position = jnp.where(at_junction, state.position, moved)  # one cannot walk back out of the junction
        time = state.time + 1
        truncated = time >= params.time_limit

        if self.variant == "v1":
            seen = jnp.where(position == junction, jnp.array(V1_JUNCTION), jnp.array(V1_CORRIDOR))
        else:
            seen = jnp.concatenate([jnp.array(V2_NO_CUE), gray_code(position)])
        distractors = jax.random.bernoulli(key, shape=(self.num_distractors,))
        info = {"success": success.astype(jnp.float32)}
        return self._obs(seen, distractors), TMazeState(state.cue, position, time), reward, terminated, truncated, info

    def _obs(self, seen: Array, distractors: Array) -> Array:
        return jnp.concatenate([seen.astype(jnp.float32), distractors.astype(jnp.float32)])

    def observation_space(self, params: TMazeParams) -> Box:
        seen = len(V1_CORRIDOR) if self.variant == "v1" else len(V2_NO_CUE) + GRAY_BITS
        return Box(low=0.0, high=1.0, shape=(seen + self.num_distractors,))

    def longest_episode(self, params: TMazeParams) -> int:
        """Steps after which every episode has ended."""
        return int(params.time_limit)

    def action_space(self, params: TMazeParams) -> Discrete:
        return Discrete(4)

    def caption(self, state: TMazeState) -> str:
        """What is to be remembered, for a person who watches."""
        return f"cue: {self.action_names[int(state.cue)]}"

    def render(self, state: TMazeState, params: TMazeParams) -> Array:
        """uint8 [64, 128, 3]: grey corridor and arms, the arm of the right turn green, cue blue, agent yellow."""
        row, column = jnp.mgrid[:RENDER_HEIGHT, :RENDER_WIDTH]
        middle, first = RENDER_HEIGHT // 2, (RENDER_WIDTH - RENDER_CORRIDOR) // 2
        last = first + RENDER_CORRIDOR
        agent = first + RENDER_CORRIDOR * state.position // jnp.maximum(params.corridor_len - 1, 1)
        side = jnp.where(state.cue == UP, -1, 1)  # rows grow downwards

        def block(center_row, center_column, half_height, half_width):
            return (jnp.abs(row - center_row) <= half_height) & (jnp.abs(column - center_column) <= half_width)

        layers = (
            (block(middle, (first + last) // 2, 4, RENDER_CORRIDOR // 2 + 4), (90, 90, 90)),
            (block(middle, last, 28, 4), (90, 90, 90)),
            (block(middle + 22 * side, last, 6, 4), (0, 200, 80)),
            (block(middle + 12 * side, first, 4, 4), (60, 120, 255)),
            (block(middle, agent, 3, 3), (255, 220, 0)),
        )
        image = jnp.zeros((RENDER_HEIGHT, RENDER_WIDTH, 3), jnp.uint8)
        for mask, color in layers:
            image = jnp.where(mask[:, :, None], jnp.array(color, jnp.uint8), image)
        return image


def gray_code(position: Array) -> Array:
    """[8] bits of the reflected Gray code of a position in 0 .. 255, most significant first."""
    return ((position ^ (position >> 1)) >> jnp.arange(GRAY_BITS - 1, -1, -1)) & 1
