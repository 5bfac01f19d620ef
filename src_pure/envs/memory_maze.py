"""Memory Maze (Pasukonis et al., arXiv:2210.13383): find coloured objects again and again in a maze."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from src_pure.envs import memory_maze_pixels as pixels
from src_pure.envs import memory_maze_views as views
from src_pure.envs.memory_maze_drawn import check_drawing, draw_cells
from src_pure.envs.memory_maze_layout import NUM_TARGETS, draw_layout
from src_pure.envs.memory_maze_motion import INNER_STEP, REACH, Body, move, place_of
from src_pure.envs.memory_maze_path import draw_minimap, shortest_path
from src_pure.envs.memory_maze_pixels import OBJECT_NAMES, Look
from src_pure.envs.memory_maze_simplify import simplify
from src_pure.envs.memory_maze_walls import Scene
from src_pure.envs.spaces import Box, Discrete
from src_pure.types import Array, FiniteFloat, Key, Metrics, PositiveInt

DRIVE, TURN = (0, 1, 0, 0, 1, 1), (0, 0, 1, -1, 1, -1)
STEPS_PER_EPISODE = {9: 1000, 11: 2000, 13: 3000, 15: 4000}  # at 4 steps per second
SHORTEST_WAY = 0.75  # s: an object is a cell away at the start, and the agent has to gather speed
TALL, LOW = 1.5, 0.4  # m, of walls; low ones are part of the variant that shows objects above them
ON_FLOOR, ABOVE_WALLS = 0.0, 1.1  # m, of the objects' centres
HEAD = 0.42  # m, the distance at which the agent's head touches an object above the walls
MINIMAP_SCALE = 2  # pixels of a side of each cell


class MemoryMazeParams(NamedTuple):
    time_limit: Array | int
    reward_target: Array | float


class State(NamedTuple):
    position: Array  # [2] m, x to the east and y to the north of the middle
    velocity: Array  # [2] m/s, in the world's frame
    heading: Array  # [] rad, from x towards y
    yaw_rate: Array  # [] rad/s
    target: Array  # [] int32, the object to find
    time: Array  # [] int32, steps since the reset
    reached: Array  # [] int32, objects found since the reset
    open: Array  # [n, n] bool, n = size + 2; row 0 in the north
    room: Array  # [n, n] int32: 0 outside of rooms, else the room's number
    targets: Array  # [T, 2] int32, the cell of each object
    colors: Array  # [T] int32, the colour of each object
    wall_texture: Array  # [3, 3] int32

    @property
    def scene(self) -> Scene:
        """What is drawn of it."""
        return Scene(self.position, self.heading, self.open, self.room, self.targets, self.colors, self.wall_texture)


@dataclass(frozen=True)
class MemoryMaze:
    """Rooms and corridors with 3 to 6 objects; the border of the picture has the colour of the one to find next.

    - observation: `pixels`, uint8 [64, 64, 3], row 0 at the top. Extensions: `symbolic`, float32 [4 T + 11], what the
      picture shows as numbers (`views.symbols`); `extra`, float32, everything (`extra_observations`, flat).
    - action: int32 [], 0 nothing, 1 forward, 2 left, 3 right, 4 forward and left, 5 forward and right; or with
      actions="continuous" float32 [2] in [-1, 1]: drive, and turn to the left.
    - reward: float32 [], reward_target in a step in which the agent touches the target, else 0. The next target is any
      other object; the picture of the same step shows its colour.
    - end: truncated at time_limit steps, never terminated.
    """

    size: Literal[9, 11, 13, 15] = 9  # cells of a side
    time_limit: PositiveInt | None = None  # steps; None: the original's 1000 to 4000, or 10 times as many at 40 Hz
    observation: Literal["pixels", "symbolic", "extra"] = "pixels"
    textures: bool = True  # patterns on the walls
    actions: Literal["discrete", "continuous"] = "discrete"
    reward_target: FiniteFloat = 1.0
    low_walls: bool = False  # walls of 0.4 m and objects above them, to be seen from everywhere
    shuffle_colors: bool = False  # object i has any of the 6 colours, not always colour i
    resolution: PositiveInt = 64  # pixels of a side
    view: Literal["camera", "top"] = "camera"  # of the picture: from the agent's head, or of the maze from above
    minimap: bool = False  # the picture and maze_layout show the shortest path to the target
    frequency: Literal[4, 40] = 4  # steps per second
    maze: tuple[str, ...] | None = None  # the walls of all episodes, see `draw_cells`; None: each episode has its own
    cue_steps: PositiveInt | None = None  # steps at rest after which `extra` hides where objects are; None: never

    numbers = MemoryMazeParams._fields
    reset_ratio = 16
    simplify = staticmethod(simplify)

    def __post_init__(self):
        for field, choices in (
            ("size", tuple(NUM_TARGETS)),
            ("observation", ("pixels", "symbolic", "extra")),
            ("actions", ("discrete", "continuous")),
            ("view", ("camera", "top")),
            ("frequency", (4, 40)),
        ):
            if getattr(self, field) not in choices:
                wanted = f"{', '.join(map(str, choices[:-1]))} or {choices[-1]}"
                raise ValueError(f"{field} must be {wanted}, got {getattr(self, field)!r}")
        if not 16 <= self.resolution <= 512:
            raise ValueError(f"resolution must be from 16 to 512 pixels, got {self.resolution}")
        if self.minimap and self.observation == "symbolic":
            raise ValueError("minimap needs observation pixels or extra, got 'symbolic', which cannot show it")
        if self.minimap and self.resolution < MINIMAP_SCALE * self.size:
            raise ValueError(
                f"minimap needs a resolution of at least {MINIMAP_SCALE * self.size} pixels, got {self.resolution}"
            )
        if self.maze is not None:
            check_drawing(self.maze, self.size)
        if self.cue_steps is not None and self.observation != "extra":
            raise ValueError(f"cue_steps must be null, or observation must be extra, got {self.observation!r}")
        if self.cue_steps is not None and self.minimap:
            raise ValueError("cue_steps must be null with the minimap, which shows the way at every step")
        fewest = int(SHORTEST_WAY * self.frequency) + 1
        if self.default_params.time_limit < fewest:
            raise ValueError(
                f"time_limit must be at least {fewest}, the steps to the nearest object, got {self.time_limit}"
            )

    @property
    def num_targets(self) -> int:
        """T, the number of objects."""
        return NUM_TARGETS[self.size]

    @property
    def look(self) -> Look:
        """How the variant looks."""
        border = max(1, self.resolution // 32) if self.resolution <= 64 else 4
        height, objects = (LOW, ABOVE_WALLS) if self.low_walls else (TALL, ON_FLOOR)
        return Look(self.resolution, border, height, objects, self.textures)

    @property
    def action_names(self) -> tuple[str, ...]:
        if self.actions == "continuous":
            return ()
        return ("nothing", "forward", "left", "right", "forward left", "forward right")

    @property
    def default_params(self) -> MemoryMazeParams:
        steps = STEPS_PER_EPISODE[self.size] * self.frequency // 4
        return MemoryMazeParams(steps if self.time_limit is None else self.time_limit, self.reward_target)

    def reset_env(self, key: Key, params: MemoryMazeParams) -> tuple[Array, State]:
        """(obs, state) of a new episode in a new maze."""
        key_layout, key_heading, key_target, key_reset = jax.random.split(key, 4)
        layout = draw_layout(key_layout, self.size) if self.maze is None else draw_cells(key_layout, self.maze)
        heading = jax.random.uniform(key_heading, maxval=2 * jnp.pi)
        target = jax.random.randint(key_target, (), 0, self.num_targets)
        return self.reset_to(key_reset, params, **layout._asdict(), heading=heading, target=target)

    def reset_to(
        self,
        key: Key,
        params: MemoryMazeParams,
        open: Array,
        room: Array,
        targets: Array,
        wall_texture: Array,
        spawn: Array,
        heading: Array,
        target: Array,
    ) -> tuple[Array, State]:
        """(obs, state) of a new episode in a maze, at rest in the cell `spawn`; the fields are those of `State`.

        Only the colours of the objects are random, and only with shuffle_colors.
        """
        colors = jnp.arange(len(OBJECT_NAMES))
        if self.shuffle_colors:
            colors = jax.random.permutation(key, colors)
        state = State(
            position=place_of(jnp.asarray(spawn), self.size + 2),
            velocity=jnp.zeros(2),
            heading=jnp.asarray(heading, jnp.float32),
            yaw_rate=jnp.float32(0),
            target=jnp.asarray(target, jnp.int32),
            time=jnp.int32(0),
            reached=jnp.int32(0),
            open=jnp.asarray(open, bool),
            room=jnp.asarray(room, jnp.int32),
            targets=jnp.asarray(targets, jnp.int32),
            colors=colors[: self.num_targets].astype(jnp.int32),
            wall_texture=jnp.asarray(wall_texture, jnp.int32).reshape(3, 3),
        )
        return self.observe(state, params), state

    def step_env(
        self, key: Key, state: State, action: Array, params: MemoryMazeParams
    ) -> tuple[Array, State, Array, Array, Array, Metrics]:
        """(obs, state, reward, terminated, truncated, info); info is empty. The next target is random."""
        drive, turn = action if self.actions == "continuous" else (jnp.array(DRIVE)[action], jnp.array(TURN)[action])
        if self.cue_steps is not None:  # at rest, so that only memory can keep what is shown
            drive, turn = (jnp.where(state.time < self.cue_steps, 0, part) for part in (drive, turn))
        body = Body(state.position, state.velocity, state.heading, state.yaw_rate)
        goal = place_of(state.targets[state.target], self.size + 2)
        body, nearest = move(body, drive, turn, state.open, goal, steps=round(1 / self.frequency / INNER_STEP))
        touched = nearest < (HEAD if self.low_walls else REACH)
        another = (state.target + jax.random.randint(key, (), 1, self.num_targets)) % self.num_targets
        state = state._replace(
            **body._asdict(),
            target=jnp.where(touched, another, state.target),
            time=state.time + 1,
            reached=state.reached + touched,
        )
        reward = jnp.where(touched, params.reward_target, 0.0).astype(jnp.float32)
        truncated = state.time >= params.time_limit
        return self.observe(state, params), state, reward, jnp.bool_(False), truncated, {}

    def observe(self, state: State, params: MemoryMazeParams) -> Array:
        """The observation of a state, apart from the dynamics: a batch can select states first and draw only once."""
        if self.observation == "symbolic":
            return views.symbols(state.scene, state.velocity, state.yaw_rate, state.target)
        if self.observation == "extra":
            extra = self.extra_observations(state, params)
            if self.cue_steps is not None:
                shown = state.time < self.cue_steps
                extra |= {name: jnp.where(shown, extra[name], 0.0) for name in views.PLACES}
            return jnp.concatenate([part.reshape(-1).astype(jnp.float32) for part in extra.values()])
        return self._picture(state, self.look)

    def _picture(self, state: State, look: Look) -> Array:
        """uint8 [H, W, 3]: the agent's picture."""
        draw = views.from_above if self.view == "top" else pixels.draw
        picture = draw(state.scene, state.target, look)
        if not self.minimap:
            return picture
        scale = max(1, MINIMAP_SCALE * look.resolution // self.resolution)
        return draw_minimap(picture, state.scene, shortest_path(state.scene, state.target), scale)

    def extra_observations(self, state: State, params: MemoryMazeParams) -> dict[str, Array]:
        """What the original's ExtraObs variants add to the picture, under the same names; lengths in cells.

        agent_pos [2], (0, 0) in the south-west corner; agent_dir [2], a unit vector; maze_layout uint8 [size, size],
        1 where it is open, row 0 in the south; targets_pos [T, 2] and target_pos [2]; targets_vec [T, 2] and target_vec
        [2], from the agent, to its right and ahead; target_color [3] in [0, 1]. With the minimap, maze_layout is 2 on
        the shortest path to the target.
        """
        extra = views.extra_observations(state.scene, state.target)
        if self.minimap:
            path = shortest_path(state.scene, state.target)
            extra["maze_layout"] += path[1:-1, 1:-1][::-1].astype(jnp.uint8)
        return extra

    def classes(self, state: State, params: MemoryMazeParams) -> Array:
        """int8 [64, 64]: what the camera's pixels show, without the border: 0 sky, 1 floor, 2 wall, 3 + i object i."""
        return pixels.trace(state.scene, self.look).classes.astype(jnp.int8)

    def observation_space(self, params: MemoryMazeParams) -> Box:
        if self.observation == "symbolic":
            return Box(low=-jnp.inf, high=jnp.inf, shape=(views.num_symbols(self.num_targets),))
        if self.observation == "extra":
            return Box(low=-jnp.inf, high=jnp.inf, shape=(4 + self.size**2 + 4 * self.num_targets + 4 + 3,))
        return Box(low=0, high=255, shape=(self.resolution, self.resolution, 3), dtype=jnp.dtype(jnp.uint8))

    def longest_episode(self, params: MemoryMazeParams) -> int:
        """Steps after which every episode has ended."""
        return int(params.time_limit)

    def action_space(self, params: MemoryMazeParams) -> Discrete | Box:
        return Discrete(len(DRIVE)) if self.actions == "discrete" else Box(low=-1.0, high=1.0, shape=(2,))

    def caption(self, state: State) -> str:
        """The object to find and how many have been found, for a person who watches."""
        return f"find: {OBJECT_NAMES[int(state.colors[state.target])]}   found: {int(state.reached)}"

    def render(self, state: State, params: MemoryMazeParams) -> Array:
        """uint8 [256, 512, 3]: what the agent sees, next to a map with the objects and the agent."""
        look = Look(256, 8, self.look.wall_height, self.look.object_height, self.textures)
        return jnp.concatenate([self._picture(state, look), views.map_of(state.scene, 256)], axis=1)
