"""The layouts of Memory Maze: rooms, corridors between them and doors, as labmaze's RandomMaze makes them.

A maze of `size` cells has a border of walls: a grid of n = size + 2 cells, indexed [row, column], row 0 in the north.
Its odd cells are nodes, m = (n - 1) / 2 in a row; the cell between two neighbouring nodes is an edge.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from src_pure.envs.memory_maze_simplify import DOOR, NEIGHBOURS, OPEN, WALL, simplify
from src_pure.types import Array, Key

NUM_TEXTURES = 8
NUM_TARGETS = {9: 3, 11: 4, 13: 5, 15: 6}  # by size
MOST_ROOMS = {9: 6, 11: 6, 13: 6, 15: 9}
SQUARE, WIDE, HIGH = (2, 2), (2, 3), (3, 2)  # nodes of a room: 3 x 3, 3 x 5 and 5 x 3 cells
SHAPES = {SQUARE: 0.5, WIDE: 0.25, HIGH: 0.25}  # the probability of each; the largest maze has squares alone


class Layout(NamedTuple):
    open: Array  # [n, n] bool
    room: Array  # [n, n] int32: 0 outside of rooms, else the room's number
    targets: Array  # [T, 2] int32, the cell of each object
    spawn: Array  # [2] int32, the cell where the agent starts
    wall_texture: Array  # [3, 3] int32, one for each block of the grid


@dataclass(frozen=True)
class Lattice:
    """What is the same in all mazes of a size: P places where a room fits, and E edges."""

    room_cells: np.ndarray  # [P, n, n] bool
    log_weight: np.ndarray  # [P]: the probability of a shape, spread over its places
    overlap: np.ndarray  # [P, P] bool
    node_cells: np.ndarray  # [m * m, 2]
    edge_cells: np.ndarray  # [E, 2]
    edge_nodes: np.ndarray  # [E, 2]
    neighbours: np.ndarray  # [m * m, 4] nodes; m * m outside of the grid
    edges: np.ndarray  # [m * m, 4] the edge to each neighbour; E outside of the grid


@lru_cache
def lattice(size: int) -> Lattice:
    """The tables of a size."""
    n, m = size + 2, (size + 1) // 2
    rooms, weights = [], []
    for (height, width), probability in {SQUARE: 1.0}.items() if size == 15 else SHAPES.items():
        corners = [(i, j) for i in range(m - height + 1) for j in range(m - width + 1)]
        for i, j in corners:
            cells = np.zeros((n, n), bool)
            cells[2 * i + 1 : 2 * (i + height), 2 * j + 1 : 2 * (j + width)] = True
            rooms.append(cells)
            weights.append(np.log(probability / len(corners)))
    room_cells = np.array(rooms)
    overlap = (room_cells[:, None] & room_cells[None]).any((2, 3))

    nodes = [(i, j) for i in range(m) for j in range(m)]
    ends = [((i, j), (i + di, j + dj)) for i, j in nodes for di, dj in ((0, 1), (1, 0)) if i + di < m and j + dj < m]
    number = {pair: e for e, pair in enumerate(ends)} | {(b, a): e for e, (a, b) in enumerate(ends)}
    around = [[((i, j), (i + di, j + dj)) for di, dj in NEIGHBOURS] for i, j in nodes]
    index = {node: k for k, node in enumerate(nodes)}
    return Lattice(
        room_cells=room_cells,
        log_weight=np.array(weights, np.float32),
        overlap=overlap,
        node_cells=2 * np.array(nodes) + 1,
        edge_cells=np.array([np.add(*pair) + 1 for pair in ends]),
        edge_nodes=np.array([[index[a], index[b]] for a, b in ends]),
        neighbours=np.array([[index.get(b, len(nodes)) for _, b in pairs] for pairs in around]),
        edges=np.array([[number.get(pair, len(ends)) for pair in pairs] for pairs in around]),
    )


def draw_layout(key: Key, size: int) -> Layout:
    """A random maze. Loops have as many steps as the size says, so a batch of mazes takes as long as a single one."""
    key_rooms, key_rest = jax.random.split(key)
    room, count = _place_rooms(key_rooms, size)
    noise = _draw_noise(key_rest, size)
    targets, spawn = _choose_cells(noise, size, room, count)
    wall_texture = (NUM_TEXTURES * noise.texture).astype(jnp.int32)
    return Layout(simplify(_draw_grid(noise, size, room)), room, targets, spawn, wall_texture)


class Noise(NamedTuple):
    """Uniform numbers in [0, 1), all from a single draw: every further one would take seconds to compile."""

    walk: Array  # [2 m * m, 4] which way a corridor goes on
    door: Array  # [E] which edge becomes a door
    cell: Array  # [R, n * n] which cells of a room are chosen
    order: Array  # [R] which rooms have objects
    spawn: Array  # [] where the agent starts
    texture: Array  # [3, 3]


def _draw_noise(key: Key, size: int) -> Noise:
    table, rooms = lattice(size), MOST_ROOMS[size]
    walk = (2 * len(table.neighbours), len(NEIGHBOURS))
    shapes = walk, (len(table.edge_cells),), (rooms, (size + 2) ** 2), (rooms,), (), (3, 3)
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    parts = jnp.split(jax.random.uniform(key, (ends[-1],)), ends[:-1])
    return Noise(*(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)))


def _place_rooms(key: Key, size: int) -> tuple[Array, Array]:
    """(room numbers [n, n] int32, how many there are): at least as many as objects."""

    def too_few(loop):
        return loop[2] < NUM_TARGETS[size]

    def again(loop):
        key, key_now = jax.random.split(loop[0])
        return key, *_draw_rooms(key_now, size)

    n = size + 2
    return lax.while_loop(too_few, again, (key, jnp.zeros((n, n), jnp.int32), jnp.int32(0)))[1:]


def _draw_rooms(key: Key, size: int) -> tuple[Array, Array]:
    """(room numbers [n, n], how many): places are drawn among those that overlap no room, until none is left."""
    table = lattice(size)
    places = len(table.log_weight)

    def place(free, noise):
        chosen = jnp.argmax(jnp.where(free, table.log_weight + noise, -jnp.inf))  # a draw from the weights
        return free & ~jnp.asarray(table.overlap)[chosen], (chosen, free.any())

    noise = jax.random.gumbel(key, (MOST_ROOMS[size], places))
    _, (chosen, placed) = lax.scan(place, jnp.ones(places, bool), noise)
    numbers = jnp.where(placed, 1 + jnp.arange(len(noise)), 0)
    cells = jnp.asarray(table.room_cells)[chosen]
    return jnp.max(numbers[:, None, None] * cells, axis=0), placed.sum()


def _draw_grid(noise: Noise, size: int, room: Array) -> Array:
    """[n, n] int32: rooms and corridors OPEN, a DOOR between neighbouring ones, the rest WALL."""
    table = lattice(size)
    region, corridor = _dig_corridors(noise.walk, size, room[tuple(table.node_cells.T)])
    door = _draw_doors(noise.door, region[table.edge_nodes])
    grid = (room > 0).astype(jnp.int32).at[tuple(table.node_cells.T)].set(OPEN)
    edges = jnp.where(corridor, OPEN, jnp.where(door, DOOR, WALL))
    return grid.at[tuple(table.edge_cells.T)].max(edges)


def _dig_corridors(noise: Array, size: int, region: Array) -> tuple[Array, Array]:
    """(region of each node [m * m], dug edges [E] bool); on entry only the nodes of rooms have a region, not 0.

    Depth-first random walks: each begins at the first free node and goes on until it has no free neighbour anywhere.
    """
    table = lattice(size)
    num_nodes, num_edges = len(table.neighbours), len(table.edge_cells)
    neighbours, edges = jnp.asarray(table.neighbours), jnp.asarray(table.edges)

    def visit(turn, loop):
        region, dug, stack, depth, count = loop  # one more node and edge than there are take what is not to be written
        top = stack[depth - 1]
        free = region[neighbours[top]] == 0
        walks = (depth > 0) & free.any()
        begins = (depth == 0) & (region == 0).any()
        side = jnp.argmax(jnp.where(free, noise[turn], -1.0))
        node = jnp.where(begins, jnp.argmax(region == 0), jnp.where(walks, neighbours[top, side], num_nodes))
        count += begins
        region = region.at[node].set(jnp.where(begins, count, region[top]))
        region = region.at[num_nodes].set(1)
        dug = dug.at[jnp.where(walks, edges[top, side], num_edges)].set(True)
        stack = stack.at[depth].set(jnp.where(walks | begins, node, stack[depth]))
        return region, dug, stack, jnp.where(walks | begins, depth + 1, jnp.maximum(depth - 1, 0)), count

    region = jnp.append(region, 1)
    stack = jnp.zeros(num_nodes + 1, jnp.int32)
    loop = (region, jnp.zeros(num_edges + 1, bool), stack, jnp.int32(0), jnp.max(region))
    region, dug, *_ = lax.fori_loop(0, 2 * num_nodes, visit, loop)  # each node is pushed and popped once
    return region[:-1], dug[:-1]


def _draw_doors(priority: Array, regions: Array) -> Array:
    """[E] bool: the edge of highest priority [E] for each pair of neighbouring regions; regions [E, 2] at its ends."""
    low, high = regions.min(1), regions.max(1)
    pair = low * (regions.max() + 1) + high
    beaten = (pair[:, None] == pair[None]) & (priority[None] > priority[:, None])
    return (low != high) & ~beaten.any(1)


def _choose_cells(noise: Noise, size: int, room: Array, count: Array) -> tuple[Array, Array]:
    """(cell of each object [T, 2], the agent's [2]): objects in different rooms, the agent in any of the rooms."""
    numbers = 1 + jnp.arange(MOST_ROOMS[size])
    score = jnp.where(room.reshape(-1) == numbers[:, None], noise.cell, -1.0)  # [R, n * n]
    first = jnp.argmax(score, axis=1)  # of each room; the agent starts in another cell than the object
    second = jnp.argmax(jnp.where(jnp.arange(score.shape[1]) == first[:, None], -1.0, score), axis=1)
    order = jnp.where(numbers <= count, noise.order, -1.0)
    rank = jnp.sum(order > order[:, None], axis=1)  # 0 for the room of object 0
    rooms = jnp.argmax(rank == jnp.arange(NUM_TARGETS[size])[:, None], axis=1)
    start = (count * noise.spawn).astype(jnp.int32)
    cells = jnp.append(first[rooms], second[start])
    cells = jnp.stack(jnp.divmod(cells, size + 2), axis=-1)
    return cells[:-1], cells[-1]
