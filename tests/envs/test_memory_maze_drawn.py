"""Memory Maze with drawn walls, and with places of objects that are shown once: what a policy without memory can do."""

from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from src_pure.config.names import CONFIG_DIR
from src_pure.envs.memory_maze import MemoryMaze
from src_pure.envs.memory_maze_drawn import draw_cells
from src_pure.envs.memory_maze_motion import place_of

CUE = yaml.safe_load((CONFIG_DIR / "memorymaze/cue.yaml").read_text())["task"] | {"cue_steps": 2}
ROWS = tuple(CUE["maze"])
ENDS = {(2, 5), (5, 2), (5, 8), (8, 5)}
FORWARD = 1


def test_a_drawn_maze_and_its_places():
    layout = jax.vmap(lambda key: draw_cells(key, ROWS))(jax.random.split(jax.random.key(0), 2000))
    for is_open, targets, spawn in zip(*map(np.asarray, (layout.open, layout.targets, layout.spawn)), strict=True):
        assert ["".join(".#"[not cell] for cell in row[1:-1]) for row in is_open[1:-1]] == [
            row.replace("o", ".").replace("s", ".") for row in ROWS
        ]
        assert len({*map(tuple, targets.tolist())} & ENDS) == 3 and spawn.tolist() == [5, 5]
    north = (np.asarray(layout.targets) == (2, 5)).all(-1).mean(0)  # [T], of 2,000 episodes
    np.testing.assert_allclose(north, 1 / 4, atol=0.04)


def test_without_memory_one_placement_in_four_is_solved():
    """What follows the cue is the same wherever the objects are, so a policy without memory goes to the same end.

    All 24 placements next to each other, the same actions in each.
    """
    env = MemoryMaze(**CUE | {"maze": ROWS})
    params, rows = env.default_params, draw_cells(jax.random.key(0), ROWS)
    placements = jnp.array(list(permutations(sorted(ENDS), 3)))  # [24, T, 2]

    @jax.jit
    @jax.vmap
    def play(targets):
        def step(state, action):
            obs, state, reward, *_ = env.step_env(jax.random.key(0), state, action, params)
            return state, (obs, reward, state.position)

        maze = rows._replace(targets=targets)._asdict()
        first, state = env.reset_to(jax.random.key(0), params, **maze, heading=0.0, target=0)
        return first, *jax.lax.scan(step, state, jnp.full(env.time_limit, FORWARD))[1]

    first, obs, reward, position = map(np.asarray, play(placements))
    targets = np.asarray(place_of(placements, 11)) / 2  # cells east and north of the middle
    np.testing.assert_allclose(first[:, 85:91], targets.reshape(24, 6) + 4.5, err_msg="targets_pos")
    np.testing.assert_array_equal(first, obs[:, 0])
    assert (position[:, :2] == 0).all() and (position[:, 2] != 0).any(), "at rest as long as the cue is shown"
    assert (obs[:, 1:, 85:101] == 0).all()
    east = targets[:, 0, 0] == 3
    np.testing.assert_array_equal(reward.sum(1), east)
    assert east.mean() == 1 / 4
    until = np.argmax(reward.max(0) > 0)
    assert (obs[:, 1:until] == obs[:1, 1:until]).all()


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"maze": ROWS[1:]}, "9 rows of 9 cells, got 8 of"),
        ({"maze": ("o" * 10, *ROWS[1:])}, r"got 9 of \[10, 9"),
        ({"maze": ("####x####", *ROWS[1:])}, "got 'x'"),
        ({"maze": ("o.s......", *["#" * 9] * 8)}, "at least 3 cells o .* got 1 and 1"),
        ({"maze": ("ooo......", *["#" * 9] * 8)}, "got 3 and 0"),
        ({"observation": "pixels"}, "cue_steps must be null, or observation must be extra, got 'pixels'"),
    ],
)
def test_wrong_options(changes, wanted):
    with pytest.raises(ValueError, match=wanted):
        MemoryMaze(**CUE | {"maze": ROWS} | changes)
