"""Rules of Memory Maze: rewards on recorded paths, targets, time limits, names, views for probes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from src_pure.envs.memory_maze import MemoryMaze
from src_pure.envs.memory_maze_motion import cell_at, place_of
from src_pure.envs.memory_maze_names import NAMES, memory_maze_task
from src_pure.envs.spaces import Box, Discrete
from src_pure.envs.vector import VectorEnv

KEY = jax.random.key(0)
NOTHING, FORWARD = 0, 1


def hall(env, **changes):
    """The state at the start of an episode in a maze without inner walls; it takes no time to make."""
    n, corners = env.size + 2, [(1, 1), (1, -2), (-2, 1), (-2, -2), (1, 5), (5, 1)]
    is_open = np.zeros((n, n), bool)
    is_open[1:-1, 1:-1] = True
    targets = np.array(corners[: env.num_targets]) % n
    spawn, texture = np.array([5, 5]), np.arange(9).reshape(3, 3) % 8
    maze = [is_open, is_open * 1, targets, texture, spawn]
    start = jax.jit(lambda: env.reset_to(KEY, env.default_params, *maze, heading=0.0, target=0)[1])  # draws nothing
    return start()._replace(**changes)


def test_rewards_and_targets_on_recorded_paths(recording):
    """From every recorded state one step: the same reward, and another target exactly then.

    Steps whose closest approach is within what a step may differ by (2.5 cm) of the reach are left out.
    """
    arrays = recording("memory_maze/dynamics")
    states, actions = arrays["maze9_state"], arrays["maze9_action"].astype(int)
    target = arrays["maze9_target_index"].astype(int)
    env = MemoryMaze(9, observation="symbolic")
    params = env.default_params

    @jax.jit
    @jax.vmap
    def step(state, action, is_open, room, targets, texture, target):
        _, start = env.reset_to(KEY, params, is_open, room, targets, texture, targets[0], state[3], target)
        start = start._replace(position=state[:2], velocity=state[4:6], yaw_rate=state[7])
        _, after, reward, *_ = env.step_env(KEY, start, action, params)
        return reward, after.target

    rewarded = 0
    for run in range(len(states)):
        steps = actions.shape[1]
        maze = [arrays[f"maze9_{name}"][run] for name in ("open", "room", "targets", "wall_texture")]
        maze = [np.broadcast_to(part, (steps, *part.shape)) for part in maze]
        reward, after = step(states[run, :-1], actions[run], *maze, target[run, :-1])
        least = arrays["maze9_min_dist"][run][np.arange(steps), target[run, :-1]]
        clear = np.abs(least - 0.7746) > 0.025
        wanted = arrays["maze9_reward"][run]
        np.testing.assert_array_equal(np.asarray(reward)[clear], wanted[clear])
        changed = np.asarray(after) != target[run, :-1]
        np.testing.assert_array_equal(changed, np.asarray(reward) > 0)
        np.testing.assert_array_equal(changed[clear], (target[run, 1:] != target[run, :-1])[clear])
        rewarded += wanted[clear].sum()
    assert rewarded > 0


def test_the_next_target_is_any_other():
    env = MemoryMaze(11, observation="symbolic")
    state = hall(env, target=jnp.int32(2))
    state = state._replace(position=place_of(state.targets[state.target], 13))
    step = jax.jit(jax.vmap(lambda key: env.step_env(key, state, NOTHING, env.default_params)))
    _, after, reward, *_ = step(jax.random.split(KEY, 200))
    assert (reward == 1).all()
    assert set(np.unique(after.target)) == set(range(4)) - {int(state.target)}
    assert set(np.unique(after.reached)) == {1}


def test_only_the_target_pays():
    env = MemoryMaze(9, observation="symbolic")
    state = hall(env)
    other = (state.target + 1) % 3
    state = state._replace(position=place_of(state.targets[other], 11))
    _, after, reward, *_ = env.step_env(KEY, state, NOTHING, env.default_params)
    assert float(reward) == 0 and int(after.target) == int(state.target)


@pytest.mark.parametrize(("options", "steps"), [({}, 1000), ({"size": 15}, 4000), ({"time_limit": 7}, 7)])
def test_the_only_end_is_the_time_limit(options, steps):
    env = MemoryMaze(**options, observation="symbolic")
    params, state = env.default_params, hall(env)
    for time, over in ((steps - 2, False), (steps - 1, True)):
        _, _, _, terminated, truncated, _ = env.step_env(KEY, state._replace(time=jnp.int32(time)), FORWARD, params)
        assert bool(truncated) == over and not terminated
    assert env.longest_episode(params) == steps


def test_a_fast_variant_takes_ten_steps_for_one():
    slow, fast = MemoryMaze(9, observation="symbolic"), MemoryMaze(9, observation="symbolic", frequency=40)
    assert fast.default_params.time_limit == 10 * slow.default_params.time_limit
    state = hall(slow)
    _, once, *_ = slow.step_env(KEY, state, 4, slow.default_params)
    for _ in range(10):
        _, state, *_ = fast.step_env(KEY, state, 4, fast.default_params)
    np.testing.assert_allclose(state.position, once.position, atol=1e-5)
    np.testing.assert_allclose(state.heading, once.heading, atol=1e-5)


def test_continuous_actions_are_drive_and_turn():
    env, discrete = (MemoryMaze(9, observation="symbolic", actions=a) for a in ("continuous", "discrete"))
    assert env.action_space(env.default_params) == Box(-1.0, 1.0, (2,))
    assert discrete.action_space(env.default_params) == Discrete(6)
    state = hall(env)
    for action, pair in enumerate([(0, 0), (1, 0), (0, 1), (0, -1), (1, 1), (1, -1)]):
        _, wanted, *_ = discrete.step_env(KEY, state, action, env.default_params)
        _, got, *_ = env.step_env(KEY, state, jnp.array(pair, jnp.float32), env.default_params)
        np.testing.assert_allclose(got.position, wanted.position, atol=1e-6)
        np.testing.assert_allclose(got.heading, wanted.heading, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_builds(name):
    env = memory_maze_task(name)
    params = env.default_params
    obs, state = jax.eval_shape(env.reset_env, KEY, params)
    side = 256 if "HD" in name or "Top" in name else 64
    assert obs.shape == (side, side, 3) == env.observation_space(params).shape and obs.dtype == jnp.uint8
    assert state.open.shape == (env.size + 2,) * 2
    assert env.shuffle_colors == ("6CL" in name) and env.low_walls == ("Vis" in name)
    assert env.minimap == ("Oracle" in name) and (env.view == "top") == ("Top" in name)


def test_colours_are_shuffled_only_where_the_name_says_so():
    fixed, shuffled = memory_maze_task("MemoryMaze-9x9-v0"), memory_maze_task("MemoryMaze-9x9-6CL-v0")
    start = hall(fixed)
    maze = [start.open, start.room, start.targets, start.wall_texture, jnp.array([5, 5]), 0.0, 0]

    def colors_of(env):
        reset = jax.jit(jax.vmap(lambda key: env.reset_to(key, env.default_params, *maze)[1].colors))
        return np.asarray(reset(jax.random.split(KEY, 100)))

    assert (colors_of(fixed) == [0, 1, 2]).all()
    colors = colors_of(shuffled)
    assert set(colors.flat) == set(range(6)) and all(len(set(row)) == 3 for row in colors.tolist())


def test_extra_observations():
    """As the original's: cells from the south-west corner, vectors to the right of the agent and ahead."""
    env = MemoryMaze(9)
    state = hall(env)
    is_open = jnp.zeros((11, 11), bool).at[1:10, 1].set(True).at[9, 1:4].set(True)
    state = state._replace(
        open=is_open, targets=jnp.array([[9, 3], [1, 1], [5, 1]]), target=jnp.int32(0), heading=jnp.float32(np.pi / 2)
    )
    state = state._replace(position=place_of(jnp.array([9, 1]), 11))
    extra = env.extra_observations(state, env.default_params)
    np.testing.assert_allclose(extra["agent_pos"], [0.5, 0.5])
    np.testing.assert_allclose(extra["agent_dir"], [0, 1], atol=1e-6)
    assert extra["maze_layout"][0].tolist() == [1, 1, 1, 0, 0, 0, 0, 0, 0], "row 0 is in the south"
    np.testing.assert_allclose(extra["targets_pos"], [[2.5, 0.5], [0.5, 8.5], [0.5, 4.5]])
    np.testing.assert_allclose(extra["target_vec"], [2, 0], atol=1e-6)
    np.testing.assert_allclose(extra["targets_vec"], [[2, 0], [0, 8], [0, 4]], atol=1e-5)
    np.testing.assert_allclose(extra["target_color"], np.array([170, 38, 30]) / 220, rtol=1e-6)
    flat = MemoryMaze(9, observation="extra")
    obs = flat.observe(state, flat.default_params)
    assert obs.shape == flat.observation_space(flat.default_params).shape == (4 + 81 + 12 + 4 + 3,)


def test_symbols_show_what_is_in_view():
    """An object ahead is seen, one behind a wall or in the back is not; distances are in widths of the maze."""
    env = MemoryMaze(9, observation="symbolic")
    state = hall(env)
    is_open = jnp.zeros((11, 11), bool).at[5, 1:10].set(True)
    state = state._replace(open=is_open, targets=jnp.array([[5, 7], [5, 1], [1, 7]]), target=jnp.int32(1))
    state = state._replace(position=place_of(jnp.array([5, 4]), 11), heading=jnp.float32(0))
    obs = np.asarray(env.observe(state, env.default_params))
    assert obs.shape == env.observation_space(env.default_params).shape
    np.testing.assert_array_equal(obs[:3], [0, 1, 0])
    seen, right, ahead = obs[5:14].reshape(3, 3).T
    np.testing.assert_array_equal(seen, [1, 0, 0])
    np.testing.assert_allclose([right[0], ahead[0]], [0, (6 - 0.15) / 18], atol=1e-6)
    np.testing.assert_allclose(obs[14 + 4], (5.5 * 2 - 0.15) / 18, atol=1e-5)  # the ray ahead meets the wall at +x


@pytest.mark.slow
def test_a_batch_draws_once_and_starts_mazes_of_their_own():
    env = MemoryMaze(9, observation="symbolic", time_limit=5)
    batch = VectorEnv(env, env.default_params, 8, reset_ratio=4)
    state, _ = jax.jit(batch.reset)(KEY)
    mazes = [np.asarray(state.env.open)]
    step = jax.jit(batch.step)
    for time in range(6):
        state, timestep = step(jax.random.key(time), state, jnp.full(8, FORWARD))
        assert bool(timestep.finished.all()) == (time == 4)
    mazes.append(np.asarray(state.env.open))
    assert len({maze.tobytes() for maze in np.concatenate(mazes)}) == 16


def directions_to(is_open, goal):
    """[n, n, 2] the next cell on a shortest way to `goal`."""
    n = len(is_open)
    steps = np.full((n, n), np.inf)
    reached = np.zeros((n, n), bool)
    reached[tuple(goal)], steps[tuple(goal)] = True, 0
    for distance in range(1, n * n):
        grown = ndimage.binary_dilation(reached) & is_open
        steps[grown & ~reached] = distance
        reached = grown
    around = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])
    ways = np.zeros((n, n, 2), int)
    for row, column in np.argwhere(is_open):
        ways[row, column] = (row, column) + around[
            np.argmin([steps[row + i, column + j] if is_open[row + i, column + j] else np.inf for i, j in around])
        ]
    ways[tuple(goal)] = goal
    return ways


@pytest.mark.slow
def test_returns_of_a_walker_that_knows_the_maze_and_of_random_play():
    """A shortest-path walker reaches 25 to 36 objects in 1,000 steps of 9x9 (23, 28 and 31 in the original's)."""
    num, env = 16, MemoryMaze(9, observation="symbolic")
    params = env.default_params
    _, states = jax.vmap(lambda k: env.reset_env(k, params))(jax.random.split(jax.random.key(1), num))
    ways = np.array(
        [
            [directions_to(is_open, cell) for cell in cells]
            for is_open, cells in zip(np.asarray(states.open), np.asarray(states.targets), strict=True)
        ]
    )  # [num, T, n, n, 2]

    def walk(state, ways):
        """Aims at the centre of the next cell, and beyond it the closer it is."""
        way = ways[state.target]
        cell = cell_at(state.position, 11)
        first = way[cell[0], cell[1]]
        near, far = place_of(first, 11), place_of(way[first[0], first[1]], 11)
        beyond = 0.5 * jnp.clip(1 - jnp.hypot(*(near - state.position)) / 2, 0, 1)
        offset = near + beyond * (far - near) - state.position
        error = (jnp.arctan2(offset[1], offset[0]) - state.heading + jnp.pi) % (2 * jnp.pi) - jnp.pi
        turn = jnp.where(error > 0.16, 1, jnp.where(error < -0.16, 2, 0))
        return jnp.where(jnp.abs(error) < 1, jnp.array([1, 4, 5])[turn], jnp.array([0, 2, 3])[turn])

    @partial(jax.jit, static_argnums=1)
    def play(states, random):
        def step(states, key):
            keys = jax.random.split(key, num)
            action = jax.random.randint(key, (num,), 0, 6) if random else jax.vmap(walk)(states, jnp.asarray(ways))
            _, states, reward, *_ = jax.vmap(env.step_env, in_axes=(0, 0, 0, None))(keys, states, action, params)
            return states, reward

        return jax.lax.scan(step, states, jax.random.split(KEY, 1000))[1].sum(0)

    assert 25 <= np.mean(play(states, False)) <= 36
    assert np.mean(play(states, True)) <= 0.8
