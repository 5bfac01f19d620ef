"""The clean-up of Memory Maze's layouts, as in labmaze: no dead ends, no needless bends, doors that lead somewhere."""

import jax.numpy as jnp
import numpy as np
from jax import lax

from src_pure.types import Array

WALL, OPEN, DOOR = 0, 1, 2
NEIGHBOURS = ((-1, 0), (1, 0), (0, -1), (0, 1))
DOWN, UP, RIGHT, LEFT = range(4)
# The direction v of a bend, and u = (v_column, -v_row), along which it extends; [row, column], in the order of search.
AHEAD = np.array([(1, 0), (-1, 0), (0, 1), (0, -1)])
ALONG = np.array([(0, -1), (0, 1), (1, 0), (-1, 0)])


def simplify(before: Array) -> Array:
    """[n, n] bool, the open cells of a maze [n, n] of WALL, OPEN and DOOR: labmaze's clean-up.

    Dead ends are filled, bends in the shape of a U are shortened, and doors become open cells, unless the corridor that
    they led to is gone.
    """
    grid = _shorten_bends(_fill_dead_ends(jnp.asarray(before, jnp.int32)))
    node = grid != WALL
    row, _ = jnp.indices(grid.shape)
    west, east = _shifted(node, 0, -1), _shifted(node, 0, 1)
    north, south = _shifted(node, -1, 0), _shifted(node, 1, 0)
    leads = jnp.where(row % 2 == 1, west & east, north & south)  # doors in odd rows join nodes to their left and right
    return (grid == OPEN) | ((grid == DOOR) & leads)


def _shifted(x: Array, row: int, column: int) -> Array:
    """y[..., r, c] = x[..., r + row, c + column]; 0 outside of the grid."""
    n = x.shape[-1]
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(abs(row), abs(row)), (abs(column), abs(column))])
    return padded[..., abs(row) + row :, abs(column) + column :][..., :n, :n]


def _fill_dead_ends(grid: Array) -> Array:
    def dead_ends(grid):
        ways = sum(_shifted(grid != WALL, *step).astype(jnp.int32) for step in NEIGHBOURS)
        return (grid == OPEN) & (ways <= 1)

    return lax.while_loop(lambda g: dead_ends(g).any(), lambda g: jnp.where(dead_ends(g), WALL, g), grid)


def _shorten_bends(grid: Array) -> Array:
    """The grid without bends of any width b = 1, 2, ..., n - 4: the first one is pulled as far as it goes, then again.

    A pass for a width ends with its first bend, and goes back to width 1.
    """
    n = grid.shape[0]
    row, column = jnp.indices(grid.shape)

    def pull(grid, width, origin, way):
        """The bend is one cell shorter."""
        ahead, along = jnp.asarray(AHEAD)[way], jnp.asarray(ALONG)[way]
        down, right = row - origin[0], column - origin[1]
        i, k = down * along[0] + right * along[1], down * ahead[0] + right * ahead[1]
        grid = jnp.where((k == 0) & (i >= 0) & (i < width), OPEN, grid)
        return jnp.where((k == 1) & (i >= -1) & (i <= width), WALL, grid)

    def search(loop):
        grid, width, origin, pulling = loop
        found = _bends(grid, width)  # [way, row, column]
        first = jnp.argmax(found.any(0))
        origin = jnp.where(pulling, origin, jnp.stack(jnp.divmod(first, n)))
        inside = ((origin >= 0) & (origin < n)).all()
        here = found[:, *jnp.clip(origin, 0, n - 1)] & inside
        way, pulls = jnp.argmax(here), here.any()
        grid = jnp.where(pulls, pull(grid, width, origin, way), grid)
        next_width = jnp.where(pulls, width, jnp.where(pulling & (width != 1), 1, width + 1))
        return grid, next_width, origin - jnp.asarray(AHEAD)[way], pulls

    loop = (grid, jnp.int32(1), jnp.zeros(2, jnp.int32), jnp.bool_(False))
    return lax.while_loop(lambda loop: loop[1] <= n - 4, search, loop)[0]


def _bends(grid: Array, width: Array) -> Array:
    """[4, n, n] bool: whether a bend of that width begins at a cell, for each way that it may point."""
    views = jnp.stack([_turned(grid, way) for way in range(4)])
    wall, is_open = views == WALL, views == OPEN

    def at(cells, across):
        """cells[r, c + across], where `across` is traced."""
        n = cells.shape[-1]
        return jnp.roll(jnp.pad(cells, ((0, 0), (0, 0), (0, n))), -across, axis=2)[..., :n]

    def in_a_row(cells, start, number):
        """Whether the `number` cells from c + start on are all set."""
        sums = jnp.cumsum(cells, axis=2, dtype=jnp.int32)
        before = _shifted(sums, 0, start - 1)
        n = cells.shape[-1]
        last = jnp.arange(n) + start + number - 1
        inside = (jnp.arange(n) + start >= 0) & (last < n)
        return inside & (jnp.take(sums, jnp.clip(last, 0, n - 1), axis=2) - before == number)

    side = _shifted(wall, 1, -2) & at(_shifted(wall, 1, 1), width)
    ends = _shifted(is_open, 0, -1) & at(is_open, width)
    middle = in_a_row(wall, 0, width) & in_a_row(_shifted(wall, -1, 0), 0, width)
    outer = in_a_row(_shifted(is_open, 1, 0), -1, width + 2) & in_a_row(_shifted(wall, 2, 0), -1, width + 2)
    found = side & ends & middle & outer
    return jnp.stack([_turned(found[way], way) for way in range(4)])


def _turned(x: Array, way: int) -> Array:
    """x [n, n] with AHEAD downwards and ALONG to the right; twice is x again."""
    return {DOWN: x[:, ::-1], UP: x[::-1], RIGHT: x.T, LEFT: x[::-1, ::-1].T}[way]
