"""Last action and last reward as part of the observation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.envs.gymnax import Gymnax
from src_pure.envs.history import WithHistory
from src_pure.envs.mystery_path import MysteryPath
from src_pure.envs.tmaze import TMaze
from src_pure.envs.vector import VectorEnv


def timesteps(env, actions):
    """Timesteps [1 + T, B] of a batch that takes actions [T, B]."""
    batch = VectorEnv(env, env.default_params, actions.shape[1])
    state, first = batch.reset(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), len(actions))
    _, rest = jax.lax.scan(lambda state, x: batch.step(x[0], state, x[1]), state, (keys, actions))
    return jax.tree.map(lambda a, b: np.concatenate([a[None], b]), first, rest)


@pytest.mark.parametrize(
    ("last_action", "last_reward"),
    [(True, True), *(pytest.param(action, not action, marks=pytest.mark.slow) for action in (True, False))],
)
def test_appends_what_led_to_the_observation_and_nothing_after_a_reset(last_action, last_reward):
    plain = TMaze(corridor_len=3)
    env = WithHistory(plain, last_action, last_reward)
    actions = jax.random.randint(jax.random.key(2), (30, 4), 0, 4)
    expected, shown = timesteps(plain, actions), timesteps(env, actions)
    for name in ("reset", "reward", "terminated", "finished"):
        np.testing.assert_array_equal(getattr(shown, name), getattr(expected, name))
    assert expected.reset[1:].any() and not expected.reset[1:].all()

    started = expected.reset[1:, :, None]
    one_hot = np.where(started, 0, np.eye(4)[actions])
    reward = np.where(started, 0, expected.reward[1:, :, None])
    parts = [expected.obs[1:], *([one_hot] if last_action else []), *([reward] if last_reward else [])]
    np.testing.assert_allclose(shown.obs[1:], np.concatenate(parts, axis=-1), rtol=1e-6)
    np.testing.assert_array_equal(shown.obs[0, :, 16:], 0)
    space = env.observation_space(env.default_params)
    assert shown.obs.shape[2:] == space.shape and shown.obs.dtype == space.dtype
    assert space.low <= shown.obs.min() and shown.obs.max() <= space.high


def test_vectors_are_appended_as_they_acted():
    """Actions are clipped to the action space; the environment's own observation confirms it."""
    env = WithHistory(Gymnax("PointRobot-misc", time_limit=3), last_action=True, last_reward=False)
    space = env.observation_space(env.default_params)
    assert space.shape == (6 + 2,) and env.action_space(env.default_params).shape == (2,)
    actions = 0.1 * jax.random.normal(jax.random.key(2), (5, 4, 2))
    shown = timesteps(env, actions)
    assert shown.obs.dtype == space.dtype
    appended = np.where(shown.reset[1:, :, None], 0, np.clip(actions, -0.1, 0.1))
    assert (np.abs(appended) == np.float32(0.1)).any() and shown.reset[1:].any()
    np.testing.assert_array_equal(shown.obs[1:, :, 6:], appended)
    np.testing.assert_array_equal(shown.obs[1:, :, 3:5], appended)  # the last action according to the environment
    np.testing.assert_array_equal(shown.obs[0, :, 6:], 0)


@pytest.mark.slow
def test_pixels_are_flattened_and_scaled():
    plain = MysteryPath("grid")
    env = WithHistory(plain, last_action=True, last_reward=True)
    key, params = jax.random.key(0), env.default_params
    obs, state = env.reset_env(key, params)
    frame, _ = plain.reset_env(key, params)
    np.testing.assert_allclose(obs[:-5], np.asarray(frame, np.float32).reshape(-1) / 255, rtol=1e-6)
    assert obs.shape == env.observation_space(params).shape == (84 * 84 * 3 + 4 + 1,)
    np.testing.assert_array_equal(env.render(state, params), plain.render(state.env, params))


def test_starts_in_a_given_layout():
    env = WithHistory(TMaze(), last_action=True, last_reward=True)
    obs, state = env.reset_to(jax.random.key(0), env.default_params, cue=1)
    assert state.env.cue == 1
    np.testing.assert_array_equal(obs[-5:], jnp.zeros(5))


def test_configuration():
    experiment = build(compose(["observation.last_action=true", "observation.last_reward=true"]))
    for batch in (experiment.env, experiment.evaluation_env):
        assert batch.observation_space.shape == (16 + 4 + 1,)
    assert build(compose([])).env.observation_space.shape == (16,)
