"""The Top and Oracle variants of Memory Maze: the maze from above, the shortest path and the map that shows it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from src_pure.envs.memory_maze import MemoryMaze
from src_pure.envs.memory_maze_motion import cell_at, place_of
from src_pure.envs.memory_maze_names import memory_maze_task
from src_pure.envs.memory_maze_path import draw_minimap, shortest_path
from src_pure.envs.memory_maze_pixels import BORDERS, OBJECTS
from src_pure.envs.memory_maze_views import TOP_WIDTH, map_of
from tests.envs.oracles import memory_maze_minimap, memory_maze_path
from tests.envs.test_memory_maze import hall

NUM = 64


@pytest.fixture(scope="module")
def scenes():
    """NUM scenes with random cells open, the agent anywhere within one of them: often there are several shortest paths,
    sometimes none. Object 0 is in an open cell."""
    rng, start = np.random.default_rng(0), hall(MemoryMaze(9)).scene
    is_open = np.zeros((NUM, 11, 11), bool)
    is_open[:, 1:-1, 1:-1] = rng.random((NUM, 9, 9)) < np.linspace(0.6, 1, NUM)[:, None, None]
    cells = np.array([rng.choice(np.argwhere(cells), 4) for cells in is_open])
    position = np.asarray(place_of(jnp.asarray(cells[:, 3]), 11)) + rng.uniform(-0.9, 0.9, (NUM, 2))
    scene = jax.tree.map(lambda x: jnp.broadcast_to(x, (NUM, *x.shape)), start)
    return scene._replace(
        open=jnp.asarray(is_open),
        targets=jnp.asarray(cells[:, :3]),
        position=jnp.asarray(position, jnp.float32),
        heading=jnp.asarray(rng.uniform(0, 2 * np.pi, NUM), jnp.float32),
    )


@pytest.fixture(scope="module")
def paths(scenes):
    return np.asarray(jax.jit(jax.vmap(lambda scene: shortest_path(scene, 0)))(scenes))


def test_paths_equal_a_breadth_first_search(scenes, paths):
    starts = np.asarray(cell_at(scenes.position, 11))
    for is_open, start, targets, path in zip(
        *map(np.asarray, (scenes.open, starts, scenes.targets, paths)), strict=True
    ):
        np.testing.assert_array_equal(path, memory_maze_path(is_open, tuple(start), tuple(targets[0])))
    assert not paths.any((1, 2)).all(), "some agents are cut off"
    assert paths.sum((1, 2)).max() > 10


def test_minimaps_equal_those_that_pillow_turns(scenes, paths):
    """Over a white picture, whose half is 127; a pixel that falls on an edge may be rounded to its other side."""
    white = jnp.full((64, 64, 3), 255, jnp.uint8)
    drawn = jax.jit(jax.vmap(lambda scene, path: draw_minimap(white, scene, path, 2)))(scenes, paths)
    assert (drawn[:, 18:] == 255).all() and (drawn[:, :, :-18] == 255).all()
    wanted = np.stack(
        [
            memory_maze_minimap(*parts)
            for parts in zip(*map(np.asarray, (scenes.open, paths, scenes.position, scenes.heading)), strict=True)
        ]
    )
    assert (np.asarray(drawn)[:, :18, -18:] == 127 + wanted // 2).all(-1).mean() > 0.999


def test_oracle_adds_its_map_and_the_path_in_the_layout_and_nothing_else():
    plain, oracle = MemoryMaze(9), memory_maze_task("MemoryMaze-9x9-Oracle-ExtraObs-v0")
    state, params = hall(plain), plain.default_params

    @jax.jit
    def show(state):
        return [(env.observe(state, params), env.extra_observations(state, params)) for env in (plain, oracle)]

    (before, extra), (after, more) = show(state)
    changed = np.asarray(before != after).any(-1)
    assert changed[:18, -18:].mean() > 0.9
    changed[:18, -18:] = False
    assert not changed.any()
    path = memory_maze_path(np.asarray(state.open), (5, 5), (1, 1))[1:-1, 1:-1][::-1]
    np.testing.assert_array_equal(more["maze_layout"], extra["maze_layout"] + path)
    for name in extra.keys() - {"maze_layout"}:
        np.testing.assert_array_equal(more[name], extra[name])
    assert "while" not in str(jax.make_jaxpr(plain.observe)(state, params)), "no search without a map that shows it"


def test_top_shows_objects_and_agent_in_their_places_within_the_border():
    env = memory_maze_task("MemoryMaze-9x9-Top-v0")
    state = hall(env, target=jnp.int32(1))
    show = jax.jit(lambda state: (env.observe(state, env.default_params), map_of(state.scene, 256)))
    picture, people = jax.device_get(show(state))
    assert picture.shape == (256, 256, 3) and picture.dtype == np.uint8
    assert (picture[:4] == BORDERS[1]).all() and (picture[:, -4:] == BORDERS[1]).all()
    assert (picture[5:11, 5:-5] == 0).all(), "the grid ends 11.6 pixels from the edge"

    def shown(cell):
        row, column = (128 + 256 * (np.array(cell) - 5) / 11 / TOP_WIDTH).astype(int)
        return picture[row, column].tolist()

    assert [shown(cell) for cell in state.targets] == OBJECTS[:3].tolist()
    assert shown((5, 5)) == shown((5, 5.4)) == [255] * 3 and shown((5, 4.6)) != [255] * 3, "the agent looks east"
    np.testing.assert_array_equal(people[[30, 128], [30, 128]], [OBJECTS[0], [255] * 3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"view": "side"}, "view must be camera or top, got 'side'"),
        ({"minimap": True, "observation": "symbolic"}, "minimap needs observation pixels or extra"),
        ({"minimap": True, "size": 15, "resolution": 29}, "minimap needs a resolution of at least 30 pixels, got 29"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        MemoryMaze(**options)
