"""Layouts of Memory Maze: the clean-up against recorded pairs, random ones against the original's statistics."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from src_pure.envs import memory_maze_layout as layout
from src_pure.envs.memory_maze import simplify
from src_pure.envs.memory_maze_layout import NUM_TARGETS, draw_layout
from src_pure.envs.memory_maze_simplify import DOOR, OPEN, WALL

SIZES = (9, 11, 13, 15)
OWN = [9, *(pytest.param(size, marks=pytest.mark.slow) for size in (11, 13, 15))]  # compiling takes long
NUM_LAYOUTS = 1000
# 1,000 layouts of labmaze 1.0.6 for each size: mean and standard deviation of one layout
STATISTICS = {
    "open cells / size^2": ((0.733, 0.049), (0.716, 0.058), (0.655, 0.046), (0.644, 0.032)),
    "room cells": ((41.1, 5.4), (58.2, 8.1), (68.3, 6.8), (81, 0)),
    "corridor and door cells": ((18.3, 4.8), (28.4, 5.8), (42.5, 6.6), (63.8, 7.2)),
    "mean path between two objects": ((7.98, 1.86), (9.61, 2.19), (11.39, 2.21), (12.82, 2.28)),
    "longest path from an object": ((14.8, 1.8), (18.6, 2.8), (22.9, 3.1), (26.9, 3.4)),
}
ROOMS = {9: {3: 297, 4: 703}, 11: {4: 225, 5: 335, 6: 440}, 13: {5: 18, 6: 982}, 15: {9: 1000}}  # of the same 1,000
CROSS = ndimage.generate_binary_structure(2, 1)


@cache
def layouts(size):
    """A batch of random layouts, as NumPy arrays."""
    keys = jax.random.split(jax.random.key(0), NUM_LAYOUTS)
    return jax.device_get(jax.jit(jax.vmap(partial(draw_layout, size=size)))(keys))


def distances(is_open, start):
    """[n, n] steps from `start` to each open cell, by flooding."""
    reached = np.zeros_like(is_open)
    reached[tuple(start)] = True
    steps = np.where(reached, 0, -1)
    for step in range(1, is_open.size):
        grown = ndimage.binary_dilation(reached, CROSS) & is_open
        if (grown == reached).all():
            break
        steps[grown & ~reached] = step
        reached = grown
    return steps


@pytest.mark.parametrize("size", [9, *(pytest.param(s, marks=pytest.mark.slow) for s in (11, 13)), 15])
def test_clean_up_equals_the_original(recording, size):
    pairs = recording("memory_maze/layouts")
    before = pairs[f"gen{size}_before"]
    n = size + 2
    after = np.unpackbits(pairs[f"gen{size}_after"], axis=1)[:, : n * n].reshape(-1, n, n)
    np.testing.assert_array_equal(jax.jit(jax.vmap(simplify))(before), after)


@pytest.mark.parametrize("size", OWN)
def test_statistics_of_layouts(size):
    layout = layouts(size)
    in_room, is_open = layout.room > 0, layout.open
    paths, longest = [], []
    for cells, targets in zip(is_open[:250], layout.targets, strict=False):
        steps = np.array([distances(cells, target) for target in targets])
        between = [steps[i][tuple(targets[j])] for i in range(len(targets)) for j in range(i)]
        paths.append(np.mean(between))
        longest.append(steps.max())
    own = {
        "open cells / size^2": is_open.sum((1, 2)) / size**2,
        "room cells": in_room.sum((1, 2)),
        "corridor and door cells": (is_open & ~in_room).sum((1, 2)),
        "mean path between two objects": paths,
        "longest path from an object": longest,
    }
    for name, values in own.items():
        mean, deviation = STATISTICS[name][SIZES.index(size)]
        error = np.sqrt(np.var(values) / len(values) + deviation**2 / 1000)
        rounded = 0.05 if mean > 10 else 0.005  # the recorded means have that many digits
        assert abs(np.mean(values) - mean) < 4 * error + rounded, f"{name}: {np.mean(values)}, wanted {mean}"
    number, count = np.unique(layout.room.max((1, 2)), return_counts=True)
    assert set(number) <= set(ROOMS[size])
    table = [[dict(zip(number, count, strict=True)).get(k, 0) for k in ROOMS[size]], list(ROOMS[size].values())]
    if len(ROOMS[size]) > 1:
        assert stats.chi2_contingency(table).pvalue > 1e-4


@pytest.mark.parametrize("size", OWN)
def test_cells_are_open_as_often_as_in_the_original(recording, size):
    recorded = recording("memory_maze/layouts")
    if f"task{size}_open" not in recorded:
        pytest.skip("the sample has no whole layouts")
    n = size + 2
    theirs = np.unpackbits(recorded[f"task{size}_open"], axis=1)[:, : n * n].reshape(-1, n, n)
    p, q = layouts(size).open.mean(0), theirs.mean(0)
    varies = (p + q > 0.01) & (p + q < 1.99)
    error = np.sqrt(p * (1 - p) / NUM_LAYOUTS + q * (1 - q) / len(theirs))
    z = ((p - q) / np.maximum(error, 1e-9))[varies]
    assert 0.8 < np.sqrt(np.mean(z**2)) < 1.25


@pytest.mark.parametrize("size", OWN)
def test_every_layout_is_a_maze(size):
    layout = layouts(size)
    for is_open, room, targets, spawn in zip(*layout[:4], strict=True):
        assert ndimage.label(is_open, CROSS)[1] == 1, "everything can be reached"
        ways = ndimage.convolve(is_open.astype(int), CROSS.astype(int), mode="constant") - is_open
        assert (ways[is_open & (room == 0)] >= 2).all(), "a corridor has no dead end"
        assert not is_open[[0, -1]].any() and not is_open[:, [0, -1]].any()
        assert len({room[tuple(cell)] for cell in targets} - {0}) == NUM_TARGETS[size], "each in a room of its own"
        assert room[tuple(spawn)] > 0 and (targets != spawn).any(1).all()
    assert set(np.unique(layout.wall_texture)) == set(range(8))


@pytest.mark.slow
def test_doors_join_each_pair_of_regions_once():
    """Without doors, regions are apart; each pair of neighbours has one door."""

    @jax.jit
    @jax.vmap
    def draw(key):
        return layout._draw_grid(layout._draw_noise(key, 13), 13, layout._place_rooms(key, 13)[0])

    for grid in draw(jax.random.split(jax.random.key(1), 50)):
        region, _ = ndimage.label(np.asarray(grid) == OPEN, CROSS)
        pairs = []
        for row, column in np.argwhere(np.asarray(grid) == DOOR):
            around = region[[row - 1, row + 1, row, row], [column, column, column - 1, column + 1]]
            pairs.append(tuple(sorted(set(around) - {0})))
        assert all(len(pair) == 2 for pair in pairs) and len(set(pairs)) == len(pairs)
        nodes = region[1::2, 1::2]
        wanted = {tuple(sorted(ends)) for ends in zip(nodes[:, 1:].flat, nodes[:, :-1].flat, strict=True)}
        wanted |= {tuple(sorted(ends)) for ends in zip(nodes[1:].flat, nodes[:-1].flat, strict=True)}
        assert set(pairs) == {ends for ends in wanted if ends[0] != ends[1]}


def test_a_bend_is_pulled_to_its_end():
    """A corridor that goes round a piece of wall becomes straight."""
    picture = [
        "#########",
        "#.#...#.#",
        "#.#.#.#.#",
        "#.#.#.#.#",
        "#...#...#",
        "#.#####.#",
        "#.......#",
        "#########",
        "#########",
    ]
    grid = jnp.array([[WALL if cell == "#" else OPEN for cell in row] for row in picture])
    straight = simplify(grid)
    assert straight[4, 1:8].all() and not straight[1:4, 2:7].any()
