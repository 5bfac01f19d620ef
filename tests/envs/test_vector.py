"""The batch of environments: resets, both meanings of a time limit, and episode statistics."""

import jax
import jax.numpy as jnp
import numpy as np

from src_pure.envs.vector import VectorEnv
from tests.probes import Probe, probe_params

NUM_ENVS = 3


def play(probe, truncation, num_steps):
    """Timesteps [1 + num_steps, B] of always taking action 1."""
    env = VectorEnv(Probe(), probe, NUM_ENVS, truncation)
    state, first = env.reset(jax.random.key(0))
    action = jnp.ones(NUM_ENVS, jnp.int32)

    def step(state, key):
        return env.step(key, state, action)

    _, rest = jax.lax.scan(step, state, jax.random.split(jax.random.key(1), num_steps))
    return jax.tree.map(lambda a, b: np.concatenate([a[None], b]), first, rest)


def flags(timesteps):
    """Of the first environment: one letter per step, in the order of the fields."""
    names = ("reset", "terminated", "truncated", "ignored", "finished")
    return {name: [int(x) for x in getattr(timesteps, name)[:, 0]] for name in names}


def test_termination_resets_at_once():
    timesteps = play(probe_params("constant", length=2), "terminate", 4)
    assert flags(timesteps) == {
        "reset": [1, 0, 1, 0, 1],
        "terminated": [0, 0, 1, 0, 1],
        "truncated": [0, 0, 0, 0, 0],
        "ignored": [0, 0, 0, 0, 0],
        "finished": [0, 0, 1, 0, 1],
    }
    np.testing.assert_array_equal(timesteps.obs[:, 0, 1], [0, 1, 0, 1, 0])
    np.testing.assert_array_equal(timesteps.info["episode_return"][[2, 4], 0], [1, 1])
    np.testing.assert_array_equal(timesteps.info["episode_length"][[2, 4], 0], [2, 2])


def test_a_time_limit_counts_as_the_end():
    timesteps = play(probe_params("endless", length=2), "terminate", 4)
    assert flags(timesteps)["terminated"] == [0, 0, 1, 0, 1]
    assert not timesteps.truncated.any()
    assert flags(timesteps)["reset"] == [1, 0, 1, 0, 1]


def test_a_time_limit_shows_the_final_observation():
    """One more step, whose action is ignored and whose transition is neither rewarded nor counted."""
    timesteps = play(probe_params("endless", length=2), "bootstrap", 6)
    assert flags(timesteps) == {
        "reset": [1, 0, 0, 1, 0, 0, 1],
        "terminated": [0, 0, 0, 0, 0, 0, 0],
        "truncated": [0, 0, 1, 0, 0, 1, 0],
        "ignored": [0, 0, 0, 1, 0, 0, 1],
        "finished": [0, 0, 1, 0, 0, 1, 0],
    }
    np.testing.assert_array_equal(timesteps.reward[:, 0], [0, 1, 1, 0, 1, 1, 0])
    np.testing.assert_array_equal(timesteps.info["episode_return"][[2, 5], 0], [2, 2])
    np.testing.assert_array_equal(timesteps.info["episode_length"][[2, 5], 0], [2, 2])


def test_environments_draw_their_own_episodes():
    timesteps = play(probe_params("observed", length=1), "terminate", 64)
    signs = timesteps.obs[..., 0]
    assert 0.3 < np.mean(signs > 0) < 0.7
    assert not np.array_equal(signs[:, 0], signs[:, 1])
