"""Motion of Memory Maze: equal to a plain loop, and close to the recordings of the original's physics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from src_pure.envs.memory_maze_motion import REACH, Body, cell_at, move, place_of
from tests.envs.oracles import MemoryMazeLoop

DRIVE, TURN = np.array([0, 1, 0, 0, 1, 1]), np.array([0, 0, 1, -1, 1, -1])
NEAR = 0.3  # m, from the centre to a wall


@jax.jit
def step(body, action, is_open):
    """Bodies after one step each; leaves [N, ...]."""
    drive, turn = jnp.asarray(DRIVE)[action], jnp.asarray(TURN)[action]
    far = jnp.full(2, 1e3)
    return jax.vmap(lambda b, d, t, o: move(b, d, t, o, far, steps=10)[0])(body, drive, turn, is_open)


def body_of(state):
    """Bodies of recorded states [N, 9]: x y z heading vx vy vz yaw rate, roll rate."""
    return Body(state[:, 0:2], state[:, 4:6], state[:, 3], state[:, 7])


def wall_distance(position, is_open):
    """[N] metres from each place [2] to the nearest wall of its maze."""
    n = is_open.shape[-1]
    found = []
    for p, cells in zip(position, is_open, strict=True):
        rows, columns = np.nonzero(~cells)
        centres = np.stack([2 * (columns - (n - 1) / 2), -2 * (rows - (n - 1) / 2)], axis=1)
        found.append(np.hypot(*np.maximum(np.abs(p - centres) - 1, 0).T).min())
    return np.array(found)


def recorded_runs(recording):
    """[(states [B, T + 1, 9], actions [B, T], open [B, n, n])]"""
    arrays = recording("memory_maze/dynamics")
    runs = []
    for name in ("const", "hall", "maze9", "maze15"):
        if f"{name}_state" in arrays:
            states, actions = arrays[f"{name}_state"], arrays[f"{name}_action"].astype(int)
            is_open = arrays["hall_open" if name in ("const", "hall") else f"{name}_open"].astype(bool)
            runs.append((states, actions, np.broadcast_to(is_open, (len(states), *is_open.shape[-2:]))))
    return runs


def angle(difference):
    """Absolute differences of headings in degrees."""
    return np.degrees(np.abs((difference + np.pi) % (2 * np.pi) - np.pi))


def test_one_step_from_recorded_states(recording):
    free, near = [], []
    for states, actions, is_open in recorded_runs(recording):
        length = actions.shape[1]
        before, after = states[:, :-1].reshape(-1, 9), states[:, 1:].reshape(-1, 9)
        mazes = is_open.repeat(length, axis=0)
        got = jax.device_get(step(body_of(before), actions.reshape(-1), mazes))
        position = np.hypot(*(got.position - after[:, :2]).T)
        heading = angle(got.heading - after[:, 3])
        ends = np.minimum(wall_distance(before[:, :2], mazes), wall_distance(after[:, :2], mazes))
        free.append(np.stack([position, heading])[:, ends > NEAR])
        near.append(np.stack([position, heading])[:, ends <= NEAR])
    position, heading = np.concatenate(free, axis=1)
    assert position.mean() <= 0.006 and np.quantile(position, 0.95) <= 0.025
    assert heading.mean() <= 0.2
    position, heading = np.concatenate(near, axis=1)
    assert position.mean() <= 0.008 and np.quantile(position, 0.95) <= 0.020
    assert heading.mean() <= 1.5


def test_ten_steps_from_recorded_states(recording):
    position, heading = [], []
    for states, actions, is_open in recorded_runs(recording):
        for start in range(0, actions.shape[1] - 10, 10):
            body = body_of(states[:, start])
            for t in range(start, start + 10):
                body = step(body, actions[:, t], is_open)
            position.append(np.hypot(*(np.asarray(body.position) - states[:, start + 10, :2]).T))
            heading.append(angle(np.asarray(body.heading) - states[:, start + 10, 3]))
    assert np.median(np.concatenate(position)) <= 0.06
    assert np.median(np.concatenate(heading)) <= 2


def test_motion_equals_a_plain_loop():
    """Random actions in a small maze with a pillar, in every kind of contact."""
    is_open = np.zeros((7, 7), bool)
    is_open[1:6, 1:6] = True
    is_open[3, 3] = False
    random = np.random.default_rng(0)
    for position in ([-3.0, 0.5], [1.5, 2.5], [3.5, -3.5], [-1.2, 1.3]):
        start = Body(np.array(position), random.normal(size=2), random.uniform(0, 6), 0.3)
        loop = MemoryMazeLoop(is_open, *start)
        body = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32)[None], start)
        for action in random.choice(6, 12, p=[0.05, 0.35, 0.1, 0.1, 0.2, 0.2]):
            loop = MemoryMazeLoop(is_open, *jax.tree.map(lambda x: np.asarray(x[0], float), body))  # no chaos
            loop.step(action)
            body = step(body, np.array([action]), is_open[None])
            for name, got, wanted in zip(
                Body._fields, body, (loop.p, loop.v, loop.heading, loop.yaw_rate), strict=True
            ):
                np.testing.assert_allclose(np.asarray(got[0]), wanted, atol=2e-3, err_msg=name)


def test_speeds_of_the_original():
    """From rest in the open: metres per step forward, then nothing; radians per step to the left."""
    is_open = np.ones((1, 17, 17), bool)
    body = Body(np.zeros((1, 2)), np.zeros((1, 2)), np.zeros(1), np.zeros(1))
    moved = []
    for action in [1] * 5 + [0] * 4:
        new = step(body, np.array([action]), is_open)
        moved.append(float(new.position[0, 0] - body.position[0, 0]))
        body = new
    np.testing.assert_allclose(moved[:5], [0.222, 0.438, 0.486, 0.497, 0.499], atol=0.02)
    np.testing.assert_allclose(sum(moved[5:]), 0.355, atol=0.06)
    body, turned = Body(np.zeros((1, 2)), np.zeros((1, 2)), np.zeros(1), np.zeros(1)), []
    for action in (2, 2, 2, 0, 0):
        new = step(body, np.array([action]), is_open)
        turned.append(float(new.heading[0] - body.heading[0]))
        body = new
    np.testing.assert_allclose(turned, [0.246, 0.320, 0.321, 0.050, 0], atol=0.01)


def test_walls_are_sticky():
    """Who runs into a wall at 60 degrees to its normal loses nearly all speed; no wall lets anyone through."""
    is_open = np.zeros((1, 11, 11), bool)
    is_open[:, 1:-1, 1:-1] = True
    heading = np.radians([60.0])
    body = Body(np.array([[8.0, 0.0]]), 2 * np.stack([np.cos(heading), np.sin(heading)], 1), heading, np.zeros(1))
    for _ in range(5):
        body = step(body, np.array([1]), is_open)
    assert np.hypot(*body.velocity[0]) < 0.3
    assert body.position[0, 0] < 9 - 0.2


@pytest.mark.parametrize("turn", [0.1, -0.1, 0.0])
def test_a_weak_turn_does_not_overcome_friction(turn):
    """30 N m times 0.1 is below the dry friction of 4.28 N m."""
    body = Body(jnp.zeros(2), jnp.zeros(2), jnp.float32(0), jnp.float32(0))
    body, _ = jax.jit(lambda b: move(b, 0.0, turn, jnp.ones((9, 9), bool), jnp.zeros(2), steps=10))(body)
    assert float(body.heading) == 0 and float(body.yaw_rate) == 0


def test_the_least_distance_is_within_the_step():
    """An object passed by in the middle of a step is reached, though not at its end."""
    body = Body(jnp.array([-0.25, REACH - 0.01]), jnp.array([2.0, 0.0]), jnp.float32(0), jnp.float32(0))
    after, nearest = move(body, 1, 0, jnp.ones((9, 9), bool), jnp.zeros(2), steps=10)
    assert float(nearest) < REACH < float(jnp.hypot(*after.position))


def test_cells_and_places():
    cells = jnp.array([[1, 1], [5, 5], [9, 2]])
    np.testing.assert_array_equal(place_of(cells, 11), [[-8, 8], [0, 0], [-6, -8]])
    assert [cell_at(place, 11).tolist() for place in place_of(cells, 11) + 0.9] == cells.tolist()
