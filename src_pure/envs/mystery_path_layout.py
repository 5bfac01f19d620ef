"""The hidden paths of Mystery Path (Pleines et al., arXiv:2309.17207), with the distribution of the original code.

The search resembles A*, with three bugs that shape the paths; they are reproduced here (see `find_path`). Walls only
bend the path: the game itself distinguishes path cells from all others.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from src_pure.types import Array, Key

SIZE = 7  # cells along each side; cells are [x, y], x to the right, y downwards
NUM_CELLS = SIZE * SIZE  # flat index 7 x + y
WALL_PERCENT = 33
MAX_OUTER_WALLS = 8  # the original places 4 or 8
MAX_EDGE_COST = 8
NUM_EDGES = 2 * SIZE * (SIZE - 1)  # upper bound of the noise drawn: the search sees each edge at most once
DRAW_SIZES = (1, 2, 4 * 4, 1, MAX_OUTER_WALLS, NUM_EDGES)  # side, free coordinates of both ends, then as in LayoutDraws
LEFT, RIGHT, TOP, BOTTOM = range(4)  # sides of the origin; the goal is on the opposite side
DIRECTIONS = np.array([(1, 0), (-1, 0), (0, 1), (0, -1)])  # the order in which the search visits neighbours
NOT_LISTED = NUM_EDGES + 1  # larger than any place in the search's list

COLUMN, ROW = np.divmod(np.arange(NUM_CELLS), SIZE)  # x and y of every cell, [49]
CELLS = np.stack([COLUMN, ROW], axis=1)  # [49, 2]


class LayoutDraws(NamedTuple):
    """All random numbers of a layout, in the order in which the original draws them."""

    origin: Array  # [2] int32
    goal: Array  # [2] int32
    inner: Array  # [4, 4] int32 in 0 .. 99, for cells x, y in 1 .. 4: below 33 is a wall
    num_outer: Array  # [] int32, 4 or 8
    picks: Array  # [8] int32 >= 0, which of the remaining candidates becomes a wall, modulo their number
    noise: Array  # [84] int32 in 1 .. 8, edge costs in the order in which the search sees the edges


class Layout(NamedTuple):
    path: Array  # [7, 7] bool
    origin: Array  # [2] int32
    goal: Array  # [2] int32


class Search(NamedTuple):
    """The state of the search, one entry per cell."""

    place: Array  # [49] int32, when the cell entered the open list, NOT_LISTED before
    closed: Array  # [49] bool
    cost: Array  # [49] int32, g
    priority: Array  # [49] float32, f
    entered: Array  # [49] int32, the direction from the parent to the cell
    num_drawn: Array  # [] int32, noise used so far
    current: Array  # [49] bool, the cell to expand next


def draw_layout(key: Key, origin_sides: tuple[int, ...]) -> Layout:
    """A random layout whose origin is on one of the given sides."""
    return layout_from_draws(random_draws(key, origin_sides))


def random_draws(key: Key, origin_sides: tuple[int, ...]) -> LayoutDraws:
    """Draws with the original's distribution, but not its numbers: JAX cannot reproduce numpy's generator.

    One call draws all bits, because each call adds a fifth of a second to compilation. The remainder of 31 random bits
    makes small numbers more likely, by less than 1e-7.
    """
    bits = (jax.random.bits(key, (sum(DRAW_SIZES),)) >> 1).astype(jnp.int32)
    side, along, inner, num_outer, picks, noise = jnp.split(bits, np.cumsum(DRAW_SIZES)[:-1])
    side, along = jnp.array(origin_sides)[side[0] % len(origin_sides)], along % SIZE
    starts_low = (side == LEFT) | (side == TOP)
    across = jnp.where(starts_low, jnp.array([0, SIZE - 1]), jnp.array([SIZE - 1, 0]))
    horizontal = (side == LEFT) | (side == RIGHT)
    ends = jnp.where(horizontal, jnp.stack([across, along]), jnp.stack([along, across]))  # [x and y, origin and goal]
    return LayoutDraws(
        origin=ends[:, 0],
        goal=ends[:, 1],
        inner=inner.reshape(4, 4) % 100,
        num_outer=jnp.where(num_outer[0] % 2 == 0, 4, MAX_OUTER_WALLS),
        picks=picks,
        noise=noise % MAX_EDGE_COST + 1,
    )


def layout_from_draws(draws: LayoutDraws) -> Layout:
    """The layout that the original makes from these draws."""
    path = find_path(place_walls(draws), draws.origin, draws.goal, draws.noise)
    return Layout(path=path, origin=draws.origin, goal=draws.goal)


def place_walls(draws: LayoutDraws) -> Array:
    """[7, 7] bool: inner walls, then up to 8 on the border, clear of both ends and not touching an inner wall."""
    # row and column 5 stay free, as in the original
    inner = jnp.zeros((SIZE, SIZE), bool).at[1:5, 1:5].set(draws.inner < WALL_PERCENT)
    border = (CELLS == 0).any(axis=1) | (CELLS == SIZE - 1).any(axis=1)  # [49]
    near_ends = (_distance(draws.origin) <= 1) | (_distance(draws.goal) <= 1)
    padded = jnp.pad(inner, 1)
    near_inner = jnp.stack([padded[x : x + SIZE, y : y + SIZE] for x in range(3) for y in range(3)]).any(axis=0)
    candidates = border & ~near_ends & ~near_inner.reshape(NUM_CELLS)
    walls = inner.reshape(NUM_CELLS)
    for turn in range(MAX_OUTER_WALLS):
        number = jnp.cumsum(candidates)  # 1 for the first candidate
        wanted = draws.picks[turn] % jnp.maximum(number[-1], 1) + 1
        picked = candidates & (number == wanted) & (turn < draws.num_outer)
        candidates, walls = candidates & ~picked, walls | picked
    return walls.reshape(SIZE, SIZE)


def _distance(cell: Array) -> Array:
    """[49] Manhattan distance of every cell to the given one."""
    return jnp.abs(COLUMN - cell[0]) + jnp.abs(ROW - cell[1])


def find_path(walls: Array, origin: Array, goal: Array, noise: Array) -> Array:
    """[7, 7] bool, the cells from origin to goal that the original's search finds.

    It is A* with random edge costs 1 .. 8 and three bugs: it expands the first cell in the list that beats the head of
    the list, not the best one (`_choose`); a cheaper way to a listed cell changes its parent but neither g nor f
    (`_expand`); and h is the Euclidean distance although the original announces Manhattan.
    walls: [7, 7] bool; origin, goal: [2]; noise: [84], consumed in the order in which the search sees the edges.
    """
    start, end = _distance(origin) == 0, _distance(goal) == 0  # [49] with one True: masks are cheaper here than indices
    heuristic = jnp.sqrt(((CELLS - goal) ** 2).sum(axis=1).astype(jnp.float32))
    zeros = jnp.zeros(NUM_CELLS, jnp.int32)
    search = Search(
        place=jnp.where(start, 0, NOT_LISTED),
        closed=walls.reshape(NUM_CELLS),
        cost=zeros,
        priority=zeros.astype(jnp.float32),
        entered=zeros,
        num_drawn=jnp.int32(0),
        current=start,
    )
    search = jax.lax.while_loop(
        lambda search: ~(search.current & end).any(), lambda search: _expand(search, heuristic, noise), search
    )

    def follow(path_and_cell):
        path, cell = path_and_cell
        back = jnp.array(DIRECTIONS @ (SIZE, 1))[search.entered[cell]]
        return path | (jnp.arange(NUM_CELLS) == cell), cell - back

    path, _ = jax.lax.while_loop(lambda carry: ~(carry[0] & start).any(), follow, (jnp.zeros_like(start), end.argmax()))
    return path.reshape(SIZE, SIZE)


def _expand(search: Search, heuristic: Array, noise: Array) -> Search:
    """Closes the current cell, lists its neighbours and chooses the next one."""
    closed = search.closed | search.current
    padded = jnp.pad(search.current.reshape(SIZE, SIZE), 1)
    shifted = [padded[1 - x : 1 - x + SIZE, 1 - y : 1 - y + SIZE].reshape(NUM_CELLS) for x, y in DIRECTIONS]
    looked_at = jnp.stack(shifted) & ~closed  # [4, 49], at most one cell per direction
    looked = looked_at.any(axis=1)
    draw = search.num_drawn + jnp.cumsum(looked) - looked  # [4]; skipped directions draw no noise
    direction, draw, edge_cost = (looked_at * values[:, None] for values in (np.arange(4), draw, noise[draw]))
    cost = jnp.where(search.current, search.cost, 0).sum() + edge_cost.sum(axis=0)  # [49], valid where looked_at

    reached = looked_at.any(axis=0)
    listed = search.place < NOT_LISTED
    new = reached & ~listed
    cheaper = reached & listed & (cost < search.cost)
    search = search._replace(
        place=jnp.where(new, 1 + draw.sum(axis=0), search.place),  # only their order matters
        closed=closed,
        cost=jnp.where(new, cost, search.cost),
        priority=jnp.where(new, cost + heuristic, search.priority),
        entered=jnp.where(new | cheaper, direction.sum(axis=0), search.entered),
        num_drawn=search.num_drawn + looked.sum(),
    )
    return search._replace(current=_choose(search))


def _choose(search: Search) -> Array:
    """[49], True at the first listed cell with a lower f than the head of the list, or at the head if there is none."""
    place = jnp.where(search.closed, NOT_LISTED, search.place)
    head = place.min()
    head_priority = jnp.where(place == head, search.priority, 0).sum()
    better = (place < NOT_LISTED) & (search.priority < head_priority)
    first_better = jnp.where(better, place, NOT_LISTED).min()
    return place == jnp.where(first_better < NOT_LISTED, first_better, head)
