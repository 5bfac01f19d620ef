import jax
import jax.numpy as jnp
import numpy as np
import pytest

from src_pure.envs.mystery_path_layout import (
    LayoutDraws,
    draw_layout,
    find_path,
    layout_from_draws,
    place_walls,
    random_draws,
)
from tests.envs import oracles

ALL_SIDES = (0, 1, 2, 3)


@jax.jit
def build(draws):
    """(layout, walls) for a batch of draws."""
    return jax.vmap(lambda one: (layout_from_draws(one), place_walls(one)))(draws)


def unpack(bits):
    """[N, 7] bytes -> [N, 7, 7] bool."""
    return np.unpackbits(bits, axis=1)[:, :49].reshape(-1, 7, 7).astype(bool)


def test_recorded_draws_give_the_recorded_walls_and_paths(recording):
    recorded = recording("mp_layout_stats")
    names = ("start_xy", "goal_xy", "draw_inner", "draw_k_outer", "draw_pick_idx", "draw_noise")
    layout, walls = build(LayoutDraws(*(recorded[name].astype(np.int32) for name in names)))
    np.testing.assert_array_equal(walls, unpack(recorded["wall_bits"]))
    np.testing.assert_array_equal(layout.path, unpack(recorded["path_bits"]))
    np.testing.assert_array_equal(layout.path.sum(axis=(1, 2)), recorded["path_len"])


def test_random_draws_match_loop():
    keys = jax.random.split(jax.random.key(0), 5000)  # as many as recorded, so that `build` compiles only once
    draws = jax.device_get(jax.jit(jax.vmap(lambda key: random_draws(key, ALL_SIDES)))(keys))
    layout, walls = jax.device_get(build(draws))
    for number in range(200):
        origin, goal, inner, num_outer, picks, noise = (leaf[number] for leaf in draws)
        expected = oracles.mystery_path_walls(origin, goal, inner, num_outer, picks)
        np.testing.assert_array_equal(walls[number], expected)
        np.testing.assert_array_equal(
            layout.path[number], oracles.mystery_path_search(expected, origin, goal, noise), err_msg=f"layout {number}"
        )


def test_dearest_possible_search_has_enough_noise():
    """Without walls and with both ends in corners, most edges are drawn, but never twice."""
    origin, goal, noise = np.array([0, 0]), np.array([6, 6]), np.arange(84) % 8 + 1
    path = jax.jit(find_path)(jnp.zeros((7, 7), bool), origin, goal, jnp.array(noise))
    np.testing.assert_array_equal(path, oracles.mystery_path_search(np.zeros((7, 7), bool), origin, goal, noise))


@jax.jit(static_argnums=1)
def sample_layouts(key, origin_sides, number=10_000):
    return jax.vmap(lambda one: draw_layout(one, origin_sides))(jax.random.split(key, number))


@pytest.mark.slow
def test_paths_have_the_distribution_of_the_original(recording):
    original = recording("mp_layout_stats_large")
    path = np.asarray(sample_layouts(jax.random.key(0), ALL_SIDES).path)
    difference = path.mean(axis=0).ravel() - original["cell_visit_freq"].ravel()
    covariance = original["cell_cov"].astype(np.float64) * (1 / len(path) + 1 / original["n"])
    chi2 = difference @ np.linalg.pinv(covariance, hermitian=True) @ difference
    assert 15 < chi2 < 95  # 49 degrees of freedom: p = 1e-4 at the upper bound; the lower would be suspiciously close

    lengths = np.bincount(path.sum(axis=(1, 2)), minlength=50)
    expected = original["hist_path_len"] / original["n"] * len(path)
    error = np.sqrt(expected * (1 + len(path) / original["n"]))
    np.testing.assert_array_less(np.abs(lengths - expected)[expected > 20], 4.5 * error[expected > 20])


def test_origin_is_on_the_side_asked_for_and_the_goal_opposite():
    keys = jax.random.split(jax.random.key(1), 2000)
    draw = jax.jit(lambda side: jax.vmap(lambda key: random_draws(key, (side,)))(keys))
    for side, axis, start, end in ((0, 0, 0, 6), (1, 0, 6, 0), (2, 1, 0, 6), (3, 1, 6, 0)):
        draws = draw(side)
        np.testing.assert_array_equal(draws.origin[:, axis], start)
        np.testing.assert_array_equal(draws.goal[:, axis], end)
        for cell in (draws.origin, draws.goal):
            np.testing.assert_allclose(np.bincount(cell[:, 1 - axis], minlength=7) / 2000, 1 / 7, atol=0.04)


def test_several_sides_are_equally_frequent_and_the_draws_in_range():
    keys = jax.random.split(jax.random.key(1), 4000)
    draws = jax.device_get(jax.jit(jax.vmap(lambda key: random_draws(key, (0, 3))))(keys))
    left, bottom = draws.origin[:, 0] == 0, draws.origin[:, 1] == 6
    assert (left | bottom).all()
    np.testing.assert_allclose((left & (draws.goal[:, 0] == 6)).mean(), 0.5, atol=0.05)
    np.testing.assert_allclose((draws.inner < 33).mean(), 0.33, atol=0.01)
    np.testing.assert_allclose((draws.num_outer == 4).mean(), 0.5, atol=0.04)
    np.testing.assert_allclose((draws.picks % 10).mean(), 4.5, atol=0.1)
    np.testing.assert_allclose(
        np.bincount(draws.noise.ravel(), minlength=10) / draws.noise.size, [0, *[0.125] * 8, 0], atol=0.003
    )
    assert set(np.unique(draws.num_outer)) == {4, 8}
