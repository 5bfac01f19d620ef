"""What the Oracle variants of Memory Maze add: the shortest path to the target, on a small map over the picture."""

import functools

import jax.numpy as jnp
import numpy as np
from jax import lax

from src_pure.envs.memory_maze_motion import CELL, axes, cell_at
from src_pure.envs.memory_maze_walls import Scene
from src_pure.types import Array

ORDER = np.array(
    [(0, -1), (0, 1), (1, 0), (-1, 0)], np.int32
)  # west, east, south, north: the first of equally short ways
WALL, OPEN, PATH, AGENT = range(4)
COLORS = np.array([(0, 0, 0), (255, 255, 255), (0, 255, 0), (255, 0, 0)], np.uint8)


def shortest_path(scene: Scene, target: Array) -> Array:
    """[n, n] bool: the cells from the agent to the object `target`, both included; none if there is no way.

    Distances from the target spread to neighbours until they reach the agent; then the path goes down. Among equally
    short paths it is the one that the original's breadth-first search from the agent finds.
    """
    n = scene.open.shape[0]
    row, column = cell_at(scene.position, n)
    unknown = n * n

    def spread(loop):
        distance, _ = loop
        around = jnp.pad(distance, 1, constant_values=unknown)
        ways = (around[1 + i : n + 1 + i, 1 + j : n + 1 + j] + 1 for i, j in ORDER.tolist())
        nearer = jnp.where(scene.open, jnp.minimum(distance, functools.reduce(jnp.minimum, ways)), unknown)
        return nearer, (nearer != distance).any() & (nearer[row, column] == unknown)

    def mark(_, loop):
        path, cell = loop
        path = path.at[tuple(cell)].set(True)
        around = cell + ORDER
        return path, around[jnp.argmin(distance[around[:, 0], around[:, 1]])]

    at_target = jnp.full((n, n), unknown, jnp.int32).at[tuple(scene.targets[target])].set(0)
    distance, _ = lax.while_loop(lambda loop: loop[1], spread, (at_target, at_target[row, column] == unknown))
    steps = distance[row, column]
    count = jnp.where(steps < unknown, steps + 1, 0)
    return lax.fori_loop(0, count, mark, (jnp.zeros((n, n), bool), jnp.stack([row, column])))[0]


def draw_minimap(picture: Array, scene: Scene, path: Array, scale: int) -> Array:
    """uint8 [H, W, 3]: the picture with a half-transparent map in its top right corner, `scale` pixels for a cell.

    The agent, a red cell, is in the middle and looks upwards. Open cells are white, those of the path green, walls and
    what lies outside of the maze black. As in the original, the map is moved first and then turned, each time to the
    nearest pixel, and what the move pushes off the map does not come back.
    """
    n = scene.open.shape[0]
    side = scale * (n - 2)
    middle = np.arange(side, dtype=np.float32) + 0.5 - side / 2
    right, up = np.meshgrid(middle, -middle)
    forward, leftward = axes(scene.heading)
    east, north = (up * forward[i] - right * leftward[i] for i in (0, 1))

    turned = jnp.floor(jnp.stack([side / 2 - north, side / 2 + east]))  # [2, side, side] row and column
    place = jnp.stack([-scene.position[1], scene.position[0]]) / CELL * scale
    moved = jnp.floor(turned + 0.5 + place[:, None, None])
    on_map = ((turned >= 0) & (turned < side)).all(0)
    row, column = jnp.clip(jnp.floor(moved / scale) + 1, 0, n - 1).astype(jnp.int32)  # the border of the grid is walls

    cells = jnp.where(path, PATH, jnp.where(scene.open, OPEN, WALL))
    cells = cells.at[tuple(cell_at(scene.position, n))].set(AGENT)
    minimap = jnp.asarray(COLORS)[jnp.where(on_map, cells[row, column], WALL)]
    picture = lax.optimization_barrier(picture)  # else XLA draws parts of it twice: four times as slow
    return picture.at[:side, -side:].set(picture[:side, -side:] // 2 + minimap // 2)
