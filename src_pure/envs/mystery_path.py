"""Mystery Path of memory-gym (Pleines et al., arXiv:2309.17207): find a hidden path, remember it, walk to its end."""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from src_pure.envs import mystery_path_pixels as pixels
from src_pure.envs.mystery_path_layout import BOTTOM, LEFT, NUM_CELLS, RIGHT, SIZE, TOP, draw_layout
from src_pure.envs.mystery_path_pixels import SCREEN, TILE
from src_pure.envs.spaces import Box, Discrete
from src_pure.types import Array, FiniteFloat, Key, Metrics, NonNegativeFloat, PositiveInt

SIDES = (LEFT, RIGHT, TOP, BOTTOM)
RADIUS = 6  # pixels from the agent's center to its border: it stays that far inside the arena
DEFAULT_TIME_LIMIT = {"grid": 128, "continuous": 512}
DEFAULT_PATH_PROGRESS = {"grid": 0.0, "continuous": 0.1}
DEFAULT_SPEED = 3.0

# Grid: 0 nothing, 1 turn left, 2 turn right, 3 forward.
TURN = (0, 90, -90, 0)
FORWARD = 3
HEADING = ((0, -1), (-1, 0), (0, 1), (1, 0))  # north, west, south, east: rotation // 90

# Continuous: action = 3 * horizontal + vertical, each 0 none, 1 towards lower coordinates, 2 towards higher ones.
DIRECTION = (0, -1, 1)
FACING = (0, 0, 180, 90, 45, 135, 270, 315, 225)  # the rotation of each action; action 0 keeps the old one


class MysteryPathParams(NamedTuple):
    time_limit: Array | int
    reward_goal: Array | float
    reward_fall_off: Array | float
    reward_path_progress: Array | float
    reward_step: Array | float
    agent_speed: Array | float  # pixels per step, continuous only


class GridState(NamedTuple):
    cell: Array  # [2] int32, x and y
    rotation: Array  # [] int32, degrees to the left of north: 0, 90, 180, 270
    off_path: Array  # [] bool: fallen; the next step ignores the action and puts the agent back to the origin
    num_fails: Array  # [] int32
    visited: Array  # [7, 7] bool, path cells that have been rewarded
    time: Array  # [] int32, steps since the reset
    path: Array  # [7, 7] bool
    origin: Array  # [2] int32
    goal: Array  # [2] int32


class ContinuousState(NamedTuple):
    center: Array  # [2] int32, pixels
    rotation: Array  # [] int32, a multiple of 45
    off_path: Array
    num_fails: Array
    visited: Array
    time: Array
    path: Array
    origin: Array
    goal: Array


State = Any  # GridState or ContinuousState, by the variant


@dataclass(frozen=True)
class MysteryPath:
    """A 7 x 7 arena with an unseen path from one side to the other; whoever leaves the path is put back to the origin.

    - observation: uint8 [84, 84, 3], indexed [x, y, color] as in the original: the agent, a red cross at a fall, origin
      and goal where shown, never the path. `observation="symbolic"` is an extension that the original does not have:
      float32 [152], the same facts as numbers (see `_symbols`).
    - action: int32 []. Grid: 0 nothing, 1 turn left, 2 turn right, 3 forward. Continuous: 3 * horizontal + vertical,
      each 0 none, 1 left or up, 2 right or down. Ignored on the step after a fall.
    - reward: float32 [], the sum of reward_goal at the goal, reward_fall_off at a fall, reward_path_progress at the
      first visit of a path cell other than origin and goal, reward_step always.
    - end: terminated at the goal; truncated at time_limit steps without it. The original calls both `done` and never
      sets its truncated flag.
    - state: int32 cell [2] or center [2], rotation, num_fails, time, origin [2], goal [2]; bool off_path, path [7, 7],
      visited [7, 7].

    The original's agent_scale is fixed at its default of 0.25.
    """

    variant: Literal["grid", "continuous"] = "grid"
    time_limit: PositiveInt | None = None  # None: 128 for grid, 512 for continuous
    origin_sides: tuple[int, ...] = SIDES  # where the origin may be: 0 left, 1 right, 2 top, 3 bottom
    show_origin: bool = False
    show_goal: bool = False
    visual_feedback: bool = True  # a red cross at a fall
    reward_goal: FiniteFloat = 1.0
    reward_fall_off: FiniteFloat = 0.0
    reward_path_progress: FiniteFloat | None = None  # None: 0 for grid, 0.1 for continuous
    reward_step: FiniteFloat = 0.0
    agent_speed: NonNegativeFloat = DEFAULT_SPEED  # continuous only
    observation: Literal["pixels", "symbolic"] = "pixels"

    numbers = MysteryPathParams._fields
    reset_ratio = 16

    def __post_init__(self):
        object.__setattr__(self, "origin_sides", tuple(self.origin_sides))  # hashable, also when read from a list
        if self.variant not in DEFAULT_TIME_LIMIT:
            raise ValueError(f"variant must be grid or continuous, got {self.variant!r}")
        if self.observation not in ("pixels", "symbolic"):
            raise ValueError(f"observation must be pixels or symbolic, got {self.observation!r}")
        if self.time_limit is not None and self.time_limit < 1:
            raise ValueError(f"time_limit must be at least 1, or null for the default, got {self.time_limit}")
        if not self.origin_sides or not set(self.origin_sides) <= set(SIDES):
            raise ValueError(f"origin_sides must name at least one of the sides 0 to 3, got {self.origin_sides}")
        if self.agent_speed < 0:
            raise ValueError(f"agent_speed must not be negative, got {self.agent_speed}")
        if self.variant == "grid" and self.agent_speed != DEFAULT_SPEED:
            raise ValueError(f"agent_speed belongs to the continuous variant, leave it out; got {self.agent_speed}")
        if self.variant == "continuous" and self.agent_speed < 1:
            raise ValueError(
                f"agent_speed must be at least 1 pixel, or the agent does not move, got {self.agent_speed}"
            )
        limit, needed = self.default_params.time_limit, min(map(self._fewest_steps, self.origin_sides))
        if limit < needed:
            raise ValueError(f"time_limit must be at least {needed}, the steps of the shortest path, got {limit}")

    def _fewest_steps(self, origin_side: int) -> int:
        """A lower bound of the steps to a goal opposite of an origin on that side: the path may be a straight line."""
        if self.variant == "grid":
            return SIZE - 1 + {BOTTOM: 0, LEFT: 1, RIGHT: 1, TOP: 2}[origin_side]  # turns: an agent looks to the top
        return math.ceil((TILE * (SIZE - 1) - TILE // 2) / int(np.float32(min(self.agent_speed, SCREEN))))

    @property
    def action_names(self) -> tuple[str, ...]:
        if self.variant == "grid":
            return ("nothing", "turn left", "turn right", "forward")
        vertical = ("", " up", " down")
        return tuple((across + v).strip() or "nothing" for across in ("", "left", "right") for v in vertical)

    @property
    def default_params(self) -> MysteryPathParams:
        limit, progress = self.time_limit, self.reward_path_progress
        return MysteryPathParams(
            time_limit=DEFAULT_TIME_LIMIT[self.variant] if limit is None else limit,
            reward_goal=self.reward_goal,
            reward_fall_off=self.reward_fall_off,
            reward_path_progress=DEFAULT_PATH_PROGRESS[self.variant] if progress is None else progress,
            reward_step=self.reward_step,
            agent_speed=self.agent_speed,
        )

    def reset_env(self, key: Key, params: MysteryPathParams) -> tuple[Array, State]:
        """(obs, state) of a new episode on a new path."""
        key_layout, key_reset = jax.random.split(key)
        layout = draw_layout(key_layout, self.origin_sides)
        return self.reset_to(key_reset, params, path=layout.path, origin=layout.origin, goal=layout.goal)

    def reset_to(
        self, key: Key, params: MysteryPathParams, path: Array, origin: Array, goal: Array
    ) -> tuple[Array, State]:
        """(obs, state) of a new episode on `path` [7, 7] bool from `origin` [2] to `goal` [2]; nothing is random."""
        origin = jnp.asarray(origin, jnp.int32)
        state_type, place = (GridState, origin) if self.variant == "grid" else (ContinuousState, center_of(origin))
        state = state_type(
            place,
            rotation=jnp.int32(0),
            off_path=jnp.bool_(False),
            num_fails=jnp.int32(0),
            visited=jnp.zeros((SIZE, SIZE), bool),
            time=jnp.int32(0),
            path=jnp.asarray(path, bool),
            origin=origin,
            goal=jnp.asarray(goal, jnp.int32),
        )
        return self.observe(state, params), state

    def step_env(
        self, key: Key, state: State, action: Array, params: MysteryPathParams
    ) -> tuple[Array, State, Array, Array, Array, Metrics]:
        """(obs, state, reward, terminated, truncated, info); info: success, num_fails. Nothing is random."""
        if self.variant == "grid":
            state = walk(state, action)
            cell = state.cell
        else:
            state = glide(state, action, params.agent_speed)
            cell = state.center // TILE

        here = jnp.zeros((SIZE, SIZE), bool).at[cell[0], cell[1]].set(True)
        at_goal = (cell == state.goal).all()
        at_origin = (cell == state.origin).all()
        on_path = (state.path & here).any()
        fell = ~on_path & ~at_goal
        progressed = on_path & ~at_goal & ~at_origin & ~(state.visited & here).any()

        reward = jnp.where(at_goal, params.reward_goal, 0.0)
        reward += jnp.where(fell, params.reward_fall_off, 0.0) + jnp.where(progressed, params.reward_path_progress, 0.0)
        reward = (reward + params.reward_step).astype(jnp.float32)
        state = state._replace(
            off_path=fell,
            num_fails=state.num_fails + fell,
            visited=state.visited | (here & progressed),
            time=state.time + 1,
        )
        truncated = (state.time >= params.time_limit) & ~at_goal
        info = {"success": at_goal.astype(jnp.float32), "num_fails": state.num_fails.astype(jnp.float32)}
        return self.observe(state, params), state, reward, at_goal, truncated, info

    def observe(self, state: State, params: MysteryPathParams) -> Array:
        """The observation of a state, apart from the dynamics: a batch can select states first and paint only once."""
        if self.observation == "symbolic":
            return self._symbols(state)
        frame = pixels.blank()
        if self.show_origin:
            frame = pixels.paint_tile(frame, state.origin, pixels.ORIGIN_COLOR)
        if self.show_goal:
            frame = pixels.paint_tile(frame, state.goal, pixels.GOAL_COLOR)
        return pixels.paint_agent(frame, self._center(state), state.rotation, state.off_path & self.visual_feedback)

    def _center(self, state: State) -> Array:
        return center_of(state.cell) if self.variant == "grid" else state.center

    def _symbols(self, state: State) -> Array:
        """float32 [152]: one-hot cells of agent, origin and goal (zeros where not shown), heading, offset, fallen."""
        center = self._center(state)
        angle = jnp.deg2rad(state.rotation.astype(jnp.float32))
        facts = (
            one_hot_cell(center // TILE),
            one_hot_cell(state.origin) * self.show_origin,
            one_hot_cell(state.goal) * self.show_goal,
            jnp.stack([jnp.cos(angle), jnp.sin(angle)]),
            (center - center_of(center // TILE)) / TILE,  # [2], within the cell
            (state.off_path & self.visual_feedback)[None],
        )
        return jnp.concatenate([fact.astype(jnp.float32) for fact in facts])

    def observation_space(self, params: MysteryPathParams) -> Box:
        if self.observation == "symbolic":
            return Box(low=-1.0, high=1.0, shape=(3 * NUM_CELLS + 5,))
        return Box(low=0, high=255, shape=(SCREEN, SCREEN, 3), dtype=jnp.dtype(jnp.uint8))

    def longest_episode(self, params: MysteryPathParams) -> int:
        """Steps after which every episode has ended."""
        return int(params.time_limit)

    def action_space(self, params: MysteryPathParams) -> Discrete:
        return Discrete(4 if self.variant == "grid" else 9)

    def caption(self, state: State) -> str:
        """How often the agent has fallen, for a person who watches."""
        return f"falls: {int(state.num_fails)}"

    def render(self, state: State, params: MysteryPathParams) -> Array:
        """uint8 [336, 336, 3], an upright image that shows everything: path, visited cells, origin, goal, agent."""
        frame = pixels.paint_cells(pixels.blank(), state.path, pixels.GREY)
        frame = pixels.paint_cells(frame, state.visited, pixels.WHITE)
        frame = pixels.paint_tile(frame, state.origin, pixels.ORIGIN_COLOR)
        frame = pixels.paint_tile(frame, state.goal, pixels.GOAL_COLOR)
        frame = pixels.paint_agent(frame, self._center(state), state.rotation, state.off_path)
        return frame.transpose(1, 0, 2).repeat(4, axis=0).repeat(4, axis=1)


def center_of(cell: Array) -> Array:
    """[2] int32, the pixel in the middle of a cell."""
    return TILE * cell + TILE // 2


def one_hot_cell(cell: Array) -> Array:
    return jax.nn.one_hot(SIZE * cell[0] + cell[1], NUM_CELLS)


def walk(state: GridState, action: Array) -> GridState:
    """The state after turning or walking one cell, or after being put back to the origin; the border stops, no fall."""
    rotation = (state.rotation + jnp.array(TURN)[action]) % 360
    ahead = jnp.clip(state.cell + jnp.array(HEADING)[state.rotation // 90], 0, SIZE - 1)
    cell = jnp.where(action == FORWARD, ahead, state.cell)
    return state._replace(
        cell=jnp.where(state.off_path, state.origin, cell),
        rotation=jnp.where(state.off_path, state.rotation, rotation),
    )


def glide(state: ContinuousState, action: Array, speed: Array | float) -> ContinuousState:
    """The state after moving by `speed` pixels, or after being put back to the origin; the arena's border stops.

    Each component of the velocity is cut to a whole number, so that diagonals at speed 3 move by 2 pixels, not 2.12.
    """
    direction = jnp.array(DIRECTION)[jnp.stack([action // 3, action % 3])]  # [2]
    diagonal = (direction != 0).all()
    pixels_moved = jnp.where(diagonal, speed / jnp.sqrt(2.0), speed).astype(jnp.int32)
    center = jnp.clip(state.center + direction * pixels_moved, RADIUS, SCREEN - RADIUS)
    rotation = jnp.where(action == 0, state.rotation, jnp.array(FACING)[action])
    return state._replace(
        center=jnp.where(state.off_path, center_of(state.origin), center),
        rotation=jnp.where(state.off_path, state.rotation, rotation),
    )
