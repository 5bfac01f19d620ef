"""The Craftax adapter: the package's own steps, but with `done` split into two flags and without the reset inside."""

from importlib import import_module
from pathlib import Path

import craftax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from craftax.craftax_env import make_craftax_env_from_name

from src_pure.envs.craftax import PACKAGES, Craftax
from src_pure.envs.spaces import Box, Discrete
from src_pure.envs.vector import VectorEnv
from src_pure.ops import craftax_view

CLASSIC = "Craftax-Classic-Symbolic-v1"
SHAPES = {
    "Craftax-Symbolic-v1": ((8268,), 43, 100_000, 67, 226),
    "Craftax-Pixels-v1": ((130, 110, 3), 43, 100_000, 67, 226),
    CLASSIC: ((1345,), 17, 10_000, 22, 22),
    "Craftax-Classic-Pixels-v1": ((63, 63, 3), 17, 10_000, 22, 22),
}


def numbers(x):
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


@pytest.mark.parametrize("name", [CLASSIC, *(pytest.param(x, marks=pytest.mark.slow) for x in SHAPES if x != CLASSIC)])
def test_types_and_spaces(name):
    shape, num_actions, time_limit, num_achievements, value = SHAPES[name]
    env = Craftax(name)
    params, key = env.default_params, jax.random.key(0)
    assert params.time_limit == time_limit
    assert env.observation_space(params) == Box(0.0, 1.0, shape)
    assert env.action_space(params) == Discrete(num_actions)
    assert (len(env.achievements), sum(env.achievements.values())) == (num_achievements, value)
    obs, state = jax.eval_shape(env.reset_env, key, params)
    step = jax.eval_shape(env.step_env, key, state, jnp.int32(0), params)
    assert obs.shape == step[0].shape == shape and obs.dtype == step[0].dtype == jnp.float32
    assert step[1] == state
    assert [x.dtype for x in step[2:5]] == [jnp.float32, bool, bool]
    assert set(step[5]) == {"percent", *(f"achievement/{name}" for name in env.achievements)}


def test_nothing_is_written_into_the_package():
    """Textures are made in memory; the installed package stays unchanged."""
    Craftax("Craftax-Classic-Pixels-v1")
    assert not list(Path(craftax.__file__).parent.rglob("*.pbz2"))
    for package in set(PACKAGES.values()):
        constants, renderer = import_module(f"{package}.constants"), import_module(f"{package}.renderer")
        assert renderer.load_all_textures is constants.load_all_textures


@pytest.mark.slow
@pytest.mark.parametrize("name", [CLASSIC, "Craftax-Symbolic-v1"])
def test_steps_as_the_package_does(name):
    """`done` is the union of both flags; rewards and observations agree; percent is the return in % of the best."""
    limit, num_steps, num_envs = 40, 42, 4
    env, original = Craftax(name, time_limit=limit), make_craftax_env_from_name(name, auto_reset=False)
    params, original_params = env.default_params, original.default_params.replace(max_timesteps=limit)
    num_actions = env.action_space(params).n

    def play(key):
        obs, state = env.reset_env(key, params)
        original_obs, original_state = original.reset_env(key, original_params)

        def step(states, key):
            key_action, key = jax.random.split(key)
            action = jax.random.randint(key_action, (), 0, num_actions)
            obs, state, *ours = env.step_env(key, states[0], action, params)
            original_obs, original_state, *theirs = original.step_env(key, states[1], action, original_params)
            original_state = jax.tree.map(lambda new, old: new.astype(old.dtype), original_state, states[1])
            return (state, original_state), ((obs, *ours), (original_obs, *theirs))

        original_state = jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), original_state, state)
        states = (state, original_state)
        return (obs, original_obs), jax.lax.scan(step, states, jax.random.split(key, num_steps))

    keys = jax.random.split(jax.random.key(0), num_envs)
    first, (states, (ours, theirs)) = jax.device_get(jax.jit(jax.vmap(play))(keys))
    np.testing.assert_allclose(first[0], first[1], atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, *(jax.tree.map(numbers, state) for state in states))
    obs, reward, terminated, truncated, info = ours
    np.testing.assert_allclose(obs, theirs[0], atol=1e-6)
    np.testing.assert_allclose(reward, theirs[1], atol=1e-6)
    np.testing.assert_array_equal(terminated | truncated, theirs[2])
    np.testing.assert_array_equal(truncated, np.tile(np.arange(1, num_steps + 1) >= limit, (num_envs, 1)))
    percent = 100 * np.cumsum(reward, axis=1) / sum(env.achievements.values())
    np.testing.assert_allclose(info["percent"], percent, atol=1e-3)
    for achievement in env.achievements:  # the package reports them when an episode ends
        theirs_told = theirs[3][f"Achievements/{achievement}"][theirs[2]] / 100
        np.testing.assert_array_equal(info[f"achievement/{achievement}"][theirs[2]], theirs_told)
    assert percent.max() > 0


@pytest.mark.slow
def test_every_episode_has_a_world_of_its_own_and_death_terminates():
    num_envs = 6
    env = Craftax(CLASSIC, time_limit=3)
    batch = VectorEnv(env, env.default_params, num_envs, reset_ratio=3)
    state, _ = jax.jit(batch.reset)(jax.random.key(0))
    step, worlds = jax.jit(batch.step), [np.asarray(state.env.map)]
    action = jnp.zeros(num_envs, jnp.int32)
    dying = state.env.replace(player_health=state.env.player_health.at[1].set(-9))
    state, timestep = step(jax.random.key(1), state._replace(env=dying), action)
    np.testing.assert_array_equal(timestep.terminated, np.arange(num_envs) == 1)
    np.testing.assert_array_equal(timestep.reset, timestep.terminated)
    worlds.append(np.asarray(state.env.map)[1:2])
    for time in (2, 3):
        np.testing.assert_array_equal(state.env.timestep, np.where(np.arange(num_envs) == 1, time - 2, time - 1))
        state, timestep = step(jax.random.key(time), state, action)
    np.testing.assert_array_equal(timestep.reset, np.arange(num_envs) != 1)
    worlds.append(np.asarray(state.env.map)[np.arange(num_envs) != 1])
    assert len(np.unique(np.concatenate(worlds), axis=0)) == 2 * num_envs


@pytest.mark.slow
def test_picture_is_what_the_agent_of_pixels_sees():
    env, symbolic = Craftax("Craftax-Classic-Pixels-v1"), Craftax(CLASSIC)

    @jax.jit
    def look(key):
        obs, state = env.reset_env(key, env.default_params)
        return obs, symbolic.render(state, symbolic.default_params)

    obs, picture = look(jax.random.key(0))
    assert picture.shape == (63, 63, 3) and picture.dtype == jnp.uint8
    assert len(np.unique(picture)) > 10
    np.testing.assert_allclose(np.asarray(picture) / 255, obs, atol=1 / 255)


@pytest.mark.slow
def test_packed_observations_lose_nothing():
    """Random play on four floors: packed is the full observation packed; unpacking gives it back bit for bit."""
    env, packed_env = Craftax(), Craftax(observation="packed")
    constants = import_module("craftax.craftax.constants")
    assert (len(constants.BlockType), len(constants.ItemType)) == (craftax_view.NUM_BLOCKS, craftax_view.NUM_ITEMS)
    params = env.default_params
    assert packed_env.observation_space(params) == Box(0.0, 255.0, (843,))

    def play(key, floor):
        def step(state, key):
            key_action, key = jax.random.split(key)
            action = jax.random.randint(key_action, (), 0, env.action_space(params).n)
            packed, state, *_ = packed_env.step_env(key, state, action, params)
            return state, (env.observe(state, params), packed)

        state = packed_env.reset_env(key, params)[1].replace(player_level=floor)
        return jax.lax.scan(step, state, jax.random.split(key, 200))[1]

    keys, floors = jax.random.split(jax.random.key(0), 4), jnp.array([0, 1, 3, 4])  # each with mobs of its own
    full, packed = jax.device_get(jax.jit(jax.vmap(play))(keys, floors))
    assert packed.shape == (4, 200, 843) and packed.dtype == np.float32
    np.testing.assert_array_equal(jax.jit(craftax_view.unpack)(packed), full)
    np.testing.assert_array_equal(jax.jit(craftax_view.pack)(full), packed)
    tiles = packed[..., : 99 * 8].reshape(-1, 8)
    assert tiles.min() == 0 and tiles[:, 2:7].max() > 1 and len(np.unique(tiles[:, 0])) > 5  # dark; other types
