"""Pictures of Memory Maze against recorded frames of the original, and against following each ray in small steps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from src_pure.envs.memory_maze import MemoryMaze
from src_pure.envs.memory_maze_motion import place_of
from src_pure.envs.memory_maze_pixels import BORDERS, OBJECT, SKY
from src_pure.envs.memory_maze_textures import NUM_LEVELS, wall_textures
from tests.envs.oracles import memory_maze_classes
from tests.envs.test_memory_maze import hall

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def frames(recording):
    """[(recorded image, recorded classes, image, classes)] of each recorded frame."""
    recorded = recording("memory_maze/frames")
    shown = []
    for size in np.unique(recorded["size"]):
        env, mine = MemoryMaze(int(size)), recorded["size"] == size
        n, draw = size + 2, jax.jit(jax.vmap(partial(show, MemoryMaze(int(size)))))
        image, classes = draw(
            recorded["pose"][mine],
            recorded["open"][mine][:, :n, :n],
            recorded["room"][mine][:, :n, :n],
            recorded["targets"][mine][:, : env.num_targets],
            recorded["wall_texture"][mine].reshape(-1, 3, 3),
            recorded["target_index"][mine],
        )
        shown += list(
            zip(recorded["image"][mine], recorded["cls"][mine], *jax.device_get((image, classes)), strict=True)
        )
    return shown


def show(env, pose, is_open, room, targets, wall_texture, target):
    """(image, classes) of an agent at pose: x, y, z, heading."""
    params, spawn = env.default_params, jnp.array([1, 1])
    _, state = env.reset_to(KEY, params, is_open, room, targets, wall_texture, spawn, pose[3], target)
    state = state._replace(position=pose[:2])
    return env.observe(state, params), env.classes(state, params)


def test_classes_agree_with_the_original(frames):
    agreement, objects = [], []
    for _, wanted, _, got in frames:
        agreement.append((wanted == got).mean())
        either = (wanted >= OBJECT) | (got >= OBJECT)
        if either.sum() > 20:
            objects.append((wanted == got)[either].mean())
    assert np.mean(agreement) >= 0.995 and min(agreement) >= 0.985
    assert np.mean(objects) >= 0.96


def test_colours_agree_with_the_original(frames):
    """The border exactly; the mean error includes that textures are our own."""
    errors = []
    for wanted, _, got, _ in frames:
        inside = np.zeros((64, 64), bool)
        inside[2:-2, 2:-2] = True
        np.testing.assert_array_equal(got[~inside], wanted[~inside])
        errors.append(np.abs(wanted.astype(float) - got)[inside].mean())
    assert np.mean(errors) <= 4


def test_classes_equal_rays_followed_in_small_steps():
    """Without recordings: a maze with a corridor, an object in view and walls at all angles."""
    is_open = np.zeros((11, 11), bool)
    is_open[1:6, 1:6], is_open[5:10, 7], is_open[5, 5:8] = True, True, True
    targets = np.array([[2, 4], [5, 1], [9, 7]])
    env, rng = MemoryMaze(9), np.random.default_rng(1)
    draw = jax.jit(partial(show, env))
    for cell in ((3, 3), (5, 6), (1, 1), (8, 7)):
        position = np.asarray(place_of(jnp.array(cell), 11)) + rng.uniform(-0.5, 0.5, 2)
        heading = rng.uniform(0, 2 * np.pi)
        pose = np.array([*position, 0.6, heading], np.float32)
        _, got = draw(pose, is_open, is_open.astype(int), targets, np.zeros((3, 3), int), 0)
        wanted = memory_maze_classes(9, position, heading, is_open, targets)
        assert (np.asarray(got) == wanted).mean() > 0.99


def test_the_border_shows_the_target_and_nothing_else_changes():
    env = MemoryMaze(9)
    state = hall(env)
    observe = jax.jit(partial(env.observe, params=env.default_params))
    images = [np.asarray(observe(state._replace(target=jnp.int32(i)))) for i in range(3)]
    for image, color in zip(images, BORDERS, strict=False):
        assert (image[:2] == color).all() and (image[:, -2:] == color).all()
        np.testing.assert_array_equal(image[2:-2, 2:-2], images[0][2:-2, 2:-2])


def test_low_walls_are_seen_over():
    """From a room's middle, sky begins lower, and objects float above the walls."""
    high, low = MemoryMaze(9), MemoryMaze(9, low_walls=True)
    state = hall(high)
    state = state._replace(open=state.open.at[3, 1:8].set(False).at[7, 3:9].set(False))
    shown = {env: jax.jit(partial(env.classes, params=env.default_params)) for env in (high, low)}
    assert (shown[low](state) == SKY).sum() > (shown[high](state) == SKY).sum()
    turned = [state._replace(heading=jnp.float32(heading)) for heading in np.arange(0, 6.28, 0.5)]
    seen = [np.isin(range(OBJECT, OBJECT + 3), shown[low](each)) for each in turned]
    assert np.all(np.any(seen, axis=0)), "every object is seen from every place"


def test_textures_fade_with_distance_as_in_the_original():
    """The spread of brightness at 0.5 to 1, 1 to 2, 2 to 3 and 3 to 4 m is within 30 % of the recorded one."""
    spread = [level.std() for level in wall_textures()]
    assert len(spread) == NUM_LEVELS
    for got, wanted in zip(spread, (0.105, 0.076, 0.071, 0.067), strict=True):
        assert 0.7 * wanted < got < 1.3 * wanted
    np.testing.assert_allclose(wall_textures().mean((2, 3)), 1, atol=0.06)


def test_flat_colours_have_one_brightness_for_each_face():
    env = MemoryMaze(9, textures=False)
    state = hall(env, heading=jnp.float32(0.3))
    image, classes = (jax.jit(f)(state, env.default_params) for f in (env.observe, env.classes))
    colours = np.unique(np.asarray(image)[2:-2, 2:-2][np.asarray(classes)[2:-2, 2:-2] == 2], axis=0)
    assert len(colours) <= 5, "five of the nine blocks in view at most, and each from one side"
