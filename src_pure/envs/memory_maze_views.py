"""Other views of a Memory Maze than through the agent's eyes: from above, and as numbers for probes and quick tests."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from src_pure.envs import memory_maze_pixels as pixels
from src_pure.envs.memory_maze_motion import CELL, TOP_SPEED, dot, place_of
from src_pure.envs.memory_maze_pixels import FIELD_OF_VIEW, OBJECT_RADIUS, Look
from src_pure.envs.memory_maze_walls import Scene, first_walls, third
from src_pure.types import Array

NUM_RAYS = 9  # in which symbols show the distance to the next wall
FASTEST_TURN = 1.286  # rad/s
PLACES = ("targets_pos", "target_pos", "targets_vec", "target_vec")  # extra observations that say where objects are
DOT, NOSE = 0.35, 0.5  # m, how the map shows the agent: the radius of a disc, the length of a line ahead
TOP_WIDTH = 1.1  # of what the original's camera above the maze sees, in widths of the grid


def num_symbols(num_targets: int) -> int:
    """The length of `symbols`."""
    return 4 * num_targets + 2 + NUM_RAYS


def symbols(scene: Scene, velocity: Array, yaw_rate: Array, target: Array) -> Array:
    """float32 [4 T + 11], what the picture and the body tell, as numbers of size 1.

    The target, one-hot [T]; speed ahead and yaw rate, of the highest; for each object whether its centre is in view and
    not hidden by a wall, and if so where: to the right and ahead, in widths of the maze [T, 3]; the distance to the
    next wall in 9 directions within the field of view, from left to right, in widths of the maze.
    """
    n, num_targets = scene.open.shape[0], scene.targets.shape[0]
    camera, forward, rightward = pixels.camera_of(scene)
    offset = place_of(scene.targets, n) - camera  # [T, 2]
    widest = math.tan(FIELD_OF_VIEW / 2)
    right, ahead = dot(offset, rightward), dot(offset, forward)
    in_view = (ahead > 0) & (jnp.abs(right) <= widest * ahead)
    fan = forward + jnp.linspace(-widest, widest, NUM_RAYS)[:, None] * rightward
    walls = first_walls(scene, camera, jnp.concatenate([offset, fan])).depth
    seen = in_view & (walls[:num_targets] > 1)
    width = CELL * (n - 2)
    objects = seen[:, None] * jnp.stack([jnp.ones_like(right), right / width, ahead / width], axis=1)
    distances = walls[num_targets:] * jnp.linalg.norm(fan, axis=1) / width
    body = jnp.stack([dot(velocity, forward) / TOP_SPEED, yaw_rate / FASTEST_TURN])
    return jnp.concatenate([jax.nn.one_hot(target, num_targets), body, objects.reshape(-1), distances])


def extra_observations(scene: Scene, target: Array) -> dict[str, Array]:
    """See MemoryMaze.extra_observations."""
    n = scene.open.shape[0]
    _, forward, rightward = pixels.camera_of(scene)
    places = place_of(scene.targets, n)
    offset = (places - scene.position) / CELL
    vectors = jnp.stack([dot(offset, rightward), dot(offset, forward)], axis=-1)
    positions = places / CELL + (n - 2) / 2
    return {
        "agent_pos": scene.position / CELL + (n - 2) / 2,
        "agent_dir": forward,
        "maze_layout": scene.open[1:-1, 1:-1][::-1].astype(jnp.uint8),
        "targets_pos": positions,
        "target_pos": positions[target],
        "targets_vec": vectors,
        "target_vec": vectors[target],
        "target_color": jnp.asarray(pixels.OBJECTS / 220, jnp.float32)[scene.colors[target]],
    }


def from_above(scene: Scene, target: Array, look: Look) -> Array:
    """uint8 [H, W, 3]: the maze from above, within a border in the colour of the object `target`."""
    picture = map_of(scene, look.resolution, TOP_WIDTH)
    return pixels.with_border(jnp.moveaxis(picture, -1, 0), scene, target, look)


def map_of(scene: Scene, resolution: int, width: float = 1.0) -> Array:
    """uint8 [resolution, resolution, 3]: the maze from above, north at the top; `width` in widths of the grid."""
    n = scene.open.shape[0]
    centres = ((np.arange(resolution) + 0.5) / resolution - 0.5) * width * n  # in cells
    x, y = (jnp.asarray(CELL * part, jnp.float32) for part in np.meshgrid(centres, -centres))
    cell = np.clip(np.floor(centres + n / 2), -1, n).astype(int) + 1  # black outside of the grid
    cell = np.ix_(cell, cell)
    block = third(jnp.arange(n), n)
    walls = jnp.asarray(pixels.WALLS)[scene.wall_texture[block[:, None], block]]
    dark, bright = jnp.asarray(pixels.FLOORS)
    floor = jnp.where(scene.room[..., None] > 0, bright, dark)
    colors = jnp.where(scene.open[..., None], floor, walls // 2)  # [n, n, 3]
    picture = jnp.pad(colors, ((1, 1), (1, 1), (0, 0)))[cell]
    for place, color in zip(place_of(scene.targets, n), scene.colors, strict=True):
        disc = jnp.hypot(x - place[0], y - place[1]) < OBJECT_RADIUS
        picture = jnp.where(disc[..., None], jnp.asarray(pixels.OBJECTS)[color], picture)
    _, forward, rightward = pixels.camera_of(scene)
    dx, dy = x - scene.position[0], y - scene.position[1]
    ahead, aside = dx * forward[0] + dy * forward[1], dx * rightward[0] + dy * rightward[1]
    agent = (jnp.hypot(dx, dy) < DOT) | ((ahead > 0) & (ahead < DOT + NOSE) & (jnp.abs(aside) < DOT / 3))
    return jnp.where(agent[..., None], 255, picture).astype(jnp.uint8)
