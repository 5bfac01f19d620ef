"""The walls of a Memory Maze that rays meet, for a whole picture at once."""

import functools
from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike

from src_pure.envs.memory_maze_motion import CELL
from src_pure.types import Array


class Scene(NamedTuple):
    """What is drawn."""

    position: Array  # [2] m
    heading: Array  # [] rad
    open: Array  # [n, n] bool
    room: Array  # [n, n] int32
    targets: Array  # [T, 2] cells
    colors: Array  # [T] int32, the colour of each object
    wall_texture: Array  # [3, 3] int32


class Walls(NamedTuple):
    """Where rays meet the first wall; all [...]."""

    depth: Array  # float32, inf: nowhere
    texture: Array  # int32
    face: Array  # int32: 2 for a wall met across a line between columns, + 1 in the direction in which these grow
    across: Array  # float32 in (0, 1), the place on the face of the cell


def first_walls(scene: Scene, start: Array, directions: Array) -> Walls:
    """The first walls that horizontal rays from `start` [..., 2] in `directions` [..., 2] enter; depth in directions.

    All crossings with the n + 1 lines between rows and between columns are computed at once, without a loop.
    """
    n = scene.open.shape[0]
    lines = jnp.arange(n + 1)
    start = jnp.stack([-start[..., 1], start[..., 0]], axis=-1) / CELL + n / 2  # in cells: row and column
    way = jnp.stack([-directions[..., 1], directions[..., 0]], axis=-1) / CELL
    way = jnp.where(jnp.abs(way) < 1e-9, 1e-9, way)

    depths, codes = [], []
    for axis, solid in ((0, ~scene.open), (1, ~scene.open.T)):  # lines between rows, then those between columns
        backwards = way[..., axis, None] < 0
        depth = (lines - start[..., axis, None]) / way[..., axis, None]  # [..., n + 1]
        place = start[..., 1 - axis, None] + depth * way[..., 1 - axis, None]
        around = jnp.pad(bits(solid), 1)  # of what lies before and after each line; nothing outside of the grid
        beside = jnp.floor(jnp.clip(place, -1, n))
        hit = (jnp.where(backwards, around[:-1], around[1:]) << 1 >> (beside + 1).astype(jnp.int32)) & 1 == 1
        depths.append(jnp.where(hit & (depth > 0), depth, jnp.inf))
        blocks = third(lines - backwards, n), third(beside, n)
        texture = pick(scene.wall_texture.reshape(9), 3 * blocks[axis] + blocks[1 - axis])
        codes.append(encode(texture, 2 * axis + ~backwards, place - beside))
    depths, codes = (jnp.concatenate(x, axis=-1) for x in (depths, codes))  # [..., 2n + 2]
    depth = jnp.min(depths, axis=-1)
    return Walls(depth, *decode(jnp.max(jnp.where(depths == depth[..., None], codes, 0), axis=-1)))


def encode(texture: Array, face: Array, across: Array) -> Array:
    """One whole number, with 8 bits for the place across: it is picked and gathered at the cost of one array."""
    return ((texture << 2 | face) << 8) | (across * 256).astype(jnp.int32)


def decode(code: Array) -> tuple[Array, Array, Array]:
    """(texture, face, across)"""
    return code >> 10, code >> 8 & 3, ((code & 255) + 0.5) / 256


def bits(cells: Array) -> Array:
    """[n] int32: each row of cells [n, n] bool as a number, with bit k for cell k."""
    return jnp.sum(cells << jnp.arange(cells.shape[1]), axis=1)


def pick(table: ArrayLike, index: Array) -> Array:
    """[..., I, J]: table[index] of a small table [K, ...], without a gather, which is slow on a CPU; index [I, J]."""
    rows = [jnp.reshape(row, (*row.shape, 1, 1)) for row in jnp.asarray(table)]
    return functools.reduce(lambda picked, k: jnp.where(index == k, rows[k], picked), range(1, len(rows)), rows[0])


def third(index: Array, n: int) -> Array:
    """0, 1 or 2: the part of the grid in which textures are the same."""
    return (index >= n // 3).astype(jnp.int32) + (index >= 2 * n // 3)
