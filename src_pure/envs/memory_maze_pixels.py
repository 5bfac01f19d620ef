"""What the agent of Memory Maze sees, by casting rays: floor, walls, half-domes for objects, sky, a light on its head.

A pixel's ray is ahead * f + right * r + up * z, with f and r the horizontal directions ahead and to the right of the
agent and z upwards. Its three numbers depend on the pixel alone. The parameter s along a ray is the depth.
"""

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from src_pure.envs.memory_maze_layout import NUM_TEXTURES
from src_pure.envs.memory_maze_motion import CELL, axes, cell_at, dot, place_of
from src_pure.envs.memory_maze_textures import FACE_HEIGHT, FACE_WIDTH, NUM_LEVELS, wall_textures
from src_pure.envs.memory_maze_walls import Scene, Walls, bits, decode, encode, first_walls, pick, third
from src_pure.types import Array

FIELD_OF_VIEW = math.radians(80)  # in height and in width
PITCH = math.atan(0.1)  # downwards
CAMERA_AHEAD, CAMERA_HEIGHT = 0.15, 0.8997  # m, from the axis of the body and above the floor
OBJECT_RADIUS = 0.6  # m
COLUMNS_PER_PIXEL = 3  # directions in which walls are searched, for each column of pixels

SKY, FLOOR, WALL, OBJECT = 0, 1, 2, 3  # classes; object i is OBJECT + i
AMBIENT, HEADLIGHT, FLOOR_LIGHT = 0.3, 0.6, 0.3597
SKY_LEVEL, SKY_ABOVE = np.array([50.8, 76.3, 101.7]), np.array([45.7, 68.7, 92.0])  # at the horizon, and what is added
FLOORS = np.array([(57, 91, 111), (116, 153, 173)])  # corridors, rooms
WALLS = np.array([
    (34, 122, 184), (174, 70, 109), (168, 199, 159), (89, 126, 81),
    (73, 85, 182), (216, 127, 107), (147, 36, 29), (202, 175, 42),
])  # fmt: skip
OBJECTS = np.array([(170, 38, 30), (99, 170, 88), (39, 140, 217), (93, 105, 199), (220, 193, 59), (220, 128, 107)])
BORDERS = np.array([(137, 30, 24), (80, 137, 71), (31, 113, 176), (75, 85, 161), (178, 156, 47), (178, 103, 86)])
OBJECT_NAMES = ("red", "green", "blue", "purple", "yellow", "salmon")
OBJECT_LIGHT = 255 / 220  # of the objects' own colours, in which OBJECTS are written


@dataclass(frozen=True)
class Look:
    """How a variant of the task looks."""

    resolution: int = 64  # pixels of a side
    border: int = 2  # pixels at each side that show the target's colour
    wall_height: float = 1.5  # m
    object_height: float = 0.0  # m, of the centres of the objects
    textures: bool = True

    @property
    def sees_over_walls(self) -> bool:
        return self.wall_height < CAMERA_HEIGHT


class Rays(NamedTuple):
    """The rays of one picture; H = W = resolution."""

    ahead: np.ndarray  # [H, W] float32
    right: np.ndarray
    up: np.ndarray
    floor: np.ndarray  # [H, W] float32, the depth of the floor; inf above the horizon
    column: np.ndarray  # [H, W] the direction in which a ray looks for a wall
    tangent: np.ndarray  # [C] of the angle between that direction and f, to the right
    sky: np.ndarray  # [3, H, W] float32


class Hits(NamedTuple):
    """What each pixel shows, [H, W]."""

    classes: Array  # int32
    wall: Walls
    top: Array  # bool: the top of a wall
    spheres: tuple[Array, ...]  # each object's depth


@functools.lru_cache
def rays(resolution: int) -> Rays:
    """The rays of a picture."""
    centres = (2 * (np.arange(resolution) + 0.5) / resolution - 1) * math.tan(FIELD_OF_VIEW / 2)
    right, above = np.meshgrid(centres, -centres)
    ahead = math.cos(PITCH) + above * math.sin(PITCH)
    up = -math.sin(PITCH) + above * math.cos(PITCH)
    tangent = right / ahead
    count = COLUMNS_PER_PIXEL * resolution
    most = np.abs(tangent).max()
    column = np.clip(np.floor((tangent / most + 1) / 2 * count), 0, count - 1)
    sine = up / np.sqrt(ahead**2 + right**2 + up**2)
    return Rays(
        *(x.astype(np.float32) for x in (ahead, right, up)),
        floor=np.where(up < 0, -CAMERA_HEIGHT / np.minimum(up, -1e-9), np.inf).astype(np.float32),
        column=column.astype(np.int32),
        tangent=(((np.arange(count) + 0.5) / count * 2 - 1) * most).astype(np.float32),
        sky=(SKY_LEVEL[:, None, None] + SKY_ABOVE[:, None, None] * sine).astype(np.float32),
    )


def trace(scene: Scene, look: Look) -> Hits:
    """What each pixel shows."""
    table = rays(look.resolution)
    camera, forward, rightward = camera_of(scene)
    directions = forward + jnp.asarray(table.tangent)[:, None] * rightward  # [C, 2]
    wall = _of_pixels(first_walls(scene, camera, directions), table)
    height = CAMERA_HEIGHT + wall.depth * table.up
    on_wall = (height >= 0) & (height <= look.wall_height)
    top = jnp.zeros_like(on_wall)
    depth = jnp.where(on_wall, wall.depth, jnp.inf)
    if look.sees_over_walls:
        wall, depth, top = _beyond_low_walls(scene, look, camera, (forward, rightward), wall, depth)
        on_wall = depth < jnp.inf
    classes = jnp.where(on_wall, WALL, np.where(table.floor < np.inf, FLOOR, SKY))
    depth = jnp.where(on_wall, depth, table.floor)

    spheres = tuple(_sphere(scene, look, i) for i in range(scene.targets.shape[0]))
    for i, sphere in enumerate(spheres):
        nearer = sphere < depth
        classes, depth = jnp.where(nearer, OBJECT + i, classes), jnp.where(nearer, sphere, depth)
    return Hits(classes, wall, top, spheres)


def draw(scene: Scene, target: Array, look: Look) -> Array:
    """uint8 [H, W, 3]: the picture within a border in the colour of the object `target`."""
    table = rays(look.resolution)
    hits = trace(scene, look)

    light = pick(_light_of_faces(scene), hits.wall.face)
    if look.textures:
        light *= _panels(hits.wall, table, look)
    light = jnp.where(hits.top, FLOOR_LIGHT, light)  # a face that looks up, as the floor does
    picture = jnp.where(hits.classes == WALL, pick(np.asarray(WALLS, np.float32), hits.wall.texture) * light, table.sky)
    picture = jnp.where(hits.classes == FLOOR, _floor(scene, table), picture)
    for i, sphere in enumerate(hits.spheres):
        color = jnp.asarray(OBJECT_LIGHT * OBJECTS, jnp.float32)[scene.colors[i]]
        shaded = color[:, None, None] * _sphere_light(scene, look, i, sphere)
        picture = jnp.where(hits.classes == OBJECT + i, shaded, picture)

    return with_border(jnp.clip(jnp.round(picture), 0, 255), scene, target, look)


def with_border(picture: Array, scene: Scene, target: Array, look: Look) -> Array:
    """uint8 [H, W, 3]: a picture [3, H, W] within a border in the colour of the object `target`."""
    frame = np.ones((look.resolution, look.resolution), bool)
    frame[look.border : -look.border, look.border : -look.border] = False
    border = jnp.asarray(BORDERS, jnp.float32)[scene.colors[target]]
    picture = jnp.where(frame, border[:, None, None], picture)
    return jnp.moveaxis(picture.astype(jnp.uint8), 0, -1)


def camera_of(scene: Scene) -> tuple[Array, Array, Array]:
    """(place of the camera, directions ahead and to the right), [2] each."""
    forward, leftward = axes(scene.heading)
    return scene.position + CAMERA_AHEAD * forward, forward, -leftward


def _light_of_faces(scene: Scene) -> Array:
    """[4] the light on each kind of face, which looks against the rays that meet it, along the optical axis."""
    row, column = -jnp.sin(scene.heading), jnp.cos(scene.heading)
    facing = math.cos(PITCH) * jnp.stack([-row, row, -column, column])
    return AMBIENT + HEADLIGHT * jnp.maximum(facing, 0.0)


def _of_pixels(walls: Walls, table: Rays) -> Walls:
    """The walls of all pixels [H, W] from those of all directions [C]; depth along the ray."""
    column = table.column + 0 * walls.face[0]  # depends on the scene: XLA then keeps the pictures of a batch apart
    code = encode(walls.texture, walls.face, walls.across)
    return Walls(walls.depth[column] / table.ahead, *decode(code[column]))


def _beyond_low_walls(
    scene: Scene, look: Look, camera: Array, axes: tuple[Array, Array], wall: Walls, depth: Array
) -> tuple[Walls, Array, Array]:
    """(walls, their depth, whether a ray sees a wall's top) for walls that are lower than the camera.

    A ray that passes above the first wall goes down to the height of the walls: there it meets the top of one, or goes
    on between them to the next.
    """
    table = rays(look.resolution)
    down = table.up < 0
    top = jnp.asarray((CAMERA_HEIGHT - look.wall_height) / np.maximum(-table.up, 1e-9), jnp.float32)
    ray = jnp.asarray(table.ahead)[..., None] * axes[0] + jnp.asarray(table.right)[..., None] * axes[1]
    place = camera + jnp.where(down, top, 0.0)[..., None] * ray  # [H, W, 2]
    n = scene.open.shape[0]
    cell = cell_at(place, n)
    inside = ((cell >= 0) & (cell < n)).all(-1) & down
    row, column = jnp.clip(cell[..., 0], 0, n - 1), jnp.clip(cell[..., 1], 0, n - 1)
    passes = depth == jnp.inf
    on_top = passes & inside & ~scene.open[row, column]
    later = first_walls(scene, place, ray)
    height = look.wall_height + later.depth * table.up
    behind = passes & inside & ~on_top & (height >= 0)
    top_texture = scene.wall_texture[third(row, n), third(column, n)]
    wall = Walls(*(jnp.where(behind, new, old) for new, old in zip(later, wall, strict=True)))
    wall = wall._replace(
        texture=jnp.where(on_top, top_texture, wall.texture),
        depth=jnp.where(on_top, top, jnp.where(behind, top + later.depth, wall.depth)),
    )
    return wall, jnp.where(on_top | behind, wall.depth, depth), on_top


def _offset(scene: Scene, look: Look, number: int) -> tuple[Array, Array, float]:
    """The camera as seen from the centre of an object: ahead, right and up, in m."""
    camera, forward, rightward = camera_of(scene)
    offset = camera - place_of(scene.targets[number], scene.open.shape[0])
    return dot(offset, forward), dot(offset, rightward), CAMERA_HEIGHT - look.object_height


def _sphere(scene: Scene, look: Look, number: int) -> Array:
    """[H, W]: the depth at which each ray enters the object; inf: nowhere."""
    table = rays(look.resolution)
    ahead, right, up = _offset(scene, look, number)
    square = table.ahead**2 + table.right**2 + table.up**2
    half = ahead * table.ahead + right * table.right + up * table.up
    root = half**2 - square * (ahead**2 + right**2 + up**2 - OBJECT_RADIUS**2)
    depth = (-half - jnp.sqrt(jnp.maximum(root, 0.0))) / square
    return jnp.where((root > 0) & (depth > 0), depth, jnp.inf)


def _sphere_light(scene: Scene, look: Look, number: int, depth: Array) -> Array:
    """[H, W]: the light on the object's surface, at a finite depth."""
    table = rays(look.resolution)
    ahead, _, up = _offset(scene, look, number)
    depth = jnp.where(depth < jnp.inf, depth, 0.0)
    facing = (ahead + depth * table.ahead) * math.cos(PITCH) - (up + depth * table.up) * math.sin(PITCH)
    return AMBIENT + HEADLIGHT * jnp.maximum(-facing / OBJECT_RADIUS, 0.0)


def _floor(scene: Scene, table: Rays) -> Array:
    """[3, H, W]: the colour of the floor, where a ray meets it."""
    n = scene.open.shape[0]
    camera, forward, rightward = camera_of(scene)
    depth = np.where(table.floor < np.inf, table.floor, 0)
    ahead, right = depth * table.ahead, depth * table.right
    x, y = (camera[i] + ahead * forward[i] + right * rightward[i] for i in (0, 1))
    row = jnp.clip(jnp.floor(n / 2 - y / CELL), 0, n - 1).astype(jnp.int32)
    column = jnp.clip(jnp.floor(x / CELL + n / 2), 0, n - 1).astype(jnp.int32)
    in_room = (pick(bits(scene.room > 0), row) >> column) & 1
    return pick(np.asarray(FLOOR_LIGHT * FLOORS, np.float32), in_room)


def _panels(wall: Walls, table: Rays, look: Look) -> Array:
    """[H, W]: the brightness of the texture, from the level whose texels are about as wide as the pixel."""
    textures = wall_textures()  # [levels, textures, FACE_HEIGHT, FACE_WIDTH]
    depth = jnp.where(wall.depth < jnp.inf, wall.depth, 1.0)
    pixel = depth * (2 * math.tan(FIELD_OF_VIEW / 2) / look.resolution / CELL)  # in widths of a face
    level = jnp.clip(jnp.round(jnp.log2(FACE_WIDTH * pixel)), 0, NUM_LEVELS - 1).astype(jnp.int32)
    height = CAMERA_HEIGHT + depth * table.up
    row = jnp.clip(jnp.floor(height * (FACE_WIDTH / CELL)), 0, FACE_HEIGHT - 1).astype(jnp.int32)
    column = jnp.clip(jnp.floor(wall.across * FACE_WIDTH), 0, FACE_WIDTH - 1).astype(jnp.int32)
    index = ((level * NUM_TEXTURES + wall.texture) * FACE_HEIGHT + row) * FACE_WIDTH + column
    return jnp.asarray(textures.reshape(-1))[index]
