import jax
import jax.numpy as jnp
import numpy as np
import pytest

from src_pure.envs import memory_chain
from src_pure.envs.memory_chain import (
    DistributedMemory,
    DistributedMemoryParams,
    MemoryChain,
    MemoryChainParams,
    memory_task,
)
from src_pure.envs.spaces import Box, Discrete
from tests.envs import oracles

LAST = 2  # step type that ends an episode in the recordings


@jax.jit(static_argnums=0)
def play_batch(env, params, layout, actions):
    """Episodes with actions [E, T], continuing past their end; every leaf is [E, ...]."""

    def play(params, layout, actions):
        def step(state, action):
            obs, state, reward, terminated, truncated, info = env.step_env(key, state, action, params)
            flags = {"terminated": terminated, "truncated": truncated}
            return state, {"obs": obs, "reward": reward, "success": info["success"]} | flags

        key = jax.random.key(0)
        obs, state = env.reset_to(key, params, **layout)
        _, steps = jax.lax.scan(step, state, actions)
        return steps | {"obs": jnp.concatenate([obs[None], steps["obs"]])}

    return jax.vmap(play)(params, layout, actions)


def assert_as_recorded(played, episodes):
    played = jax.device_get(played)
    shown = episodes["step_type"] != -1  # [E, T+1]
    acted = shown[:, 1:]
    columns = np.arange(episodes["obs"].shape[-1]) < 2 + episodes["num_bits"][:, None]  # [E, D], the rest is padding
    compared = shown[:, :, None] & columns[:, None, :]
    np.testing.assert_array_equal(played["obs"][compared], episodes["obs"][compared])
    np.testing.assert_array_equal(played["reward"][acted], episodes["reward"][acted])
    last = episodes["step_type"][:, 1:] == LAST
    np.testing.assert_array_equal(played["terminated"][acted], last[acted])
    np.testing.assert_array_equal(played["terminated"][acted], episodes["discount"][acted] == 0)
    assert not played["truncated"].any()
    perfect = episodes["total_perfect_after"] - episodes["total_perfect_before"]
    np.testing.assert_array_equal((played["success"] * acted).sum(axis=1), perfect)


@pytest.mark.parametrize("name", ["bsuite_memory_len", "bsuite_memory_size", "bsuite_memory_general"])
def test_memory_chain_replays_recorded_episodes(name, recording):
    """All in one batch: bits that an episode lacks are zeros and are never queried."""
    episodes = recording(name)
    layout = {"context": np.maximum(episodes["context"], 0), "query": episodes["query"]}
    params = MemoryChainParams(memory_length=episodes["memory_length"])
    env = MemoryChain(num_bits=int(episodes["num_bits"].max()))
    assert_as_recorded(play_batch(env, params, layout, episodes["actions"]), episodes)


def test_distributed_memory_replays_recorded_episodes_at_its_own_schedules(recording):
    recorded = recording("distributed_memory")
    for num_bits in np.unique(recorded["num_bits"]).tolist():
        episodes = {key: values[recorded["num_bits"] == num_bits] for key, values in recorded.items()}
        episodes["obs"] = episodes["obs"][..., : 2 + num_bits]
        own = [DistributedMemory(length, num_bits).default_params for length in episodes["memory_length"].tolist()]
        params = jax.tree.map(lambda *leaves: np.stack(leaves), *own)
        np.testing.assert_array_equal(params.context_timesteps, episodes["context_timesteps"][:, :num_bits])
        layout = {"context": episodes["context"][:, :num_bits]}
        assert_as_recorded(play_batch(DistributedMemory(30, num_bits), params, layout, episodes["actions"]), episodes)


@pytest.mark.parametrize(("memory_length", "num_bits"), [(1, 1), (1, 4), (6, 3)])
def test_memory_chain_matches_loop(memory_length, num_bits):
    rng = np.random.default_rng(num_bits)
    context, query = rng.integers(2, size=(10, num_bits)), rng.integers(num_bits, size=10)
    actions = rng.integers(2, size=(10, memory_length + 1))
    params = MemoryChainParams(np.full(10, memory_length))
    played = play_batch(MemoryChain(num_bits=num_bits), params, {"context": context, "query": query}, actions)
    for episode in range(10):
        obs, reward, terminated = oracles.memory_chain_episode(
            memory_length, context[episode], query[episode], actions[episode]
        )
        np.testing.assert_array_equal(played["obs"][episode], obs)
        np.testing.assert_array_equal(played["reward"][episode], reward)
        np.testing.assert_array_equal(played["terminated"][episode], terminated)


def test_distributed_memory_matches_loop_at_any_schedule():
    rng = np.random.default_rng(0)
    context = rng.integers(2, size=(10, 3))
    timesteps = np.stack([rng.permutation(7)[:3] for _ in range(10)])
    actions = rng.integers(2, size=(10, 7))
    env = DistributedMemory(memory_length=7, num_bits=3)
    params = DistributedMemoryParams(np.full(10, 7), np.zeros((10, 3), int))
    layout = {"context": context, "query": np.zeros(10, int), "context_timesteps": timesteps}
    played = play_batch(env, params, layout, actions)
    for episode in range(10):
        obs, reward, terminated = oracles.distributed_memory_episode(
            7, context[episode], timesteps[episode], actions[episode]
        )
        np.testing.assert_array_equal(played["obs"][episode], obs)
        np.testing.assert_array_equal(played["reward"][episode], reward)
        np.testing.assert_array_equal(played["terminated"][episode], terminated)


@pytest.mark.parametrize("memory_length", [7, 10, 30])
def test_time_left_is_exact_where_the_length_is_a_constant_too(memory_length):
    env = MemoryChain(memory_length)

    @jax.jit
    def time_left(time):
        _, state = env.reset_to(jax.random.key(0), env.default_params, context=jnp.zeros(1), query=0)
        return env.step_env(jax.random.key(0), state._replace(time=time), 0, env.default_params)[0][0]

    times = np.arange(memory_length + 1)
    expected = (1 - times / memory_length).astype(np.float32)
    np.testing.assert_array_equal([time_left(time) for time in times], expected)


def test_schedules_are_the_constants_of_the_original():
    assert memory_chain.distributed_schedule(10, 3) == (0, 6, 9)
    assert memory_chain.distributed_schedule(30, 3) == (12, 24, 27)
    for memory_length, num_bits in memory_chain.SWEEPS["distributed_memory"]:
        schedule = DistributedMemory(memory_length, num_bits).default_params.context_timesteps
        assert len(set(schedule.tolist())) == num_bits and schedule.max() < memory_length


def test_settings_of_the_sweeps():
    sweeps = memory_chain.SWEEPS
    assert {name: len(settings) for name, settings in sweeps.items()} == {
        "memory_length": 23,
        "memory_size": 17,
        "distributed_memory": 13,
    }
    assert sweeps["memory_length"][-1] == (100, 1) and sweeps["memory_size"][-1] == (2, 40)
    for name, settings in sweeps.items():
        for setting in settings:
            memory_task(name, *setting)


@pytest.mark.parametrize("env", [MemoryChain(3, 5), DistributedMemory(5, 3)])
def test_resets_are_fair_and_types_stay(env):
    params, key = env.default_params, jax.random.key(0)
    keys = jax.random.split(key, 1000)
    obs, state = jax.jit(jax.vmap(env.reset_env, in_axes=(0, None)))(keys, params)
    np.testing.assert_allclose(state.context.mean(axis=0), 0.5, atol=0.08)
    if isinstance(env, MemoryChain):
        np.testing.assert_allclose(np.bincount(state.query) / 1000, 0.2, atol=0.06)
    one = jax.tree.map(lambda leaf: leaf[0], state)
    next_obs, next_state, reward, terminated, truncated, info = jax.jit(env.step_env)(key, one, jnp.int32(1), params)
    space = env.observation_space(params)
    assert obs.shape[1:] == next_obs.shape == space.shape and obs.dtype == next_obs.dtype == space.dtype
    assert reward.dtype == info["success"].dtype == jnp.float32
    assert terminated.dtype == truncated.dtype == bool
    assert jax.tree.map(jnp.result_type, next_state) == jax.tree.map(jnp.result_type, state)
    assert env.action_space(params) == Discrete(2)
    picture = jax.jit(env.render)(one, params)
    assert picture.shape == (48, 16 * env.num_bits, 3) and picture.dtype == jnp.uint8 and picture.any()


def test_query_is_within_the_space():
    assert MemoryChain(2, 40).observation_space(None) == Box(-1.0, 39.0, (42,))


@pytest.mark.parametrize(
    ("env", "fields", "words"),
    [
        (MemoryChain, {"memory_length": 0}, "memory_length must be at least 1, got 0"),
        (MemoryChain, {"num_bits": 0}, "num_bits must be at least 1, got 0"),
        (DistributedMemory, {"num_bits": 4}, "num_bits must be odd.* got 4"),
        (DistributedMemory, {"memory_length": 3, "num_bits": 5}, "memory_length must be at least num_bits.* 3 and 5"),
    ],
)
def test_wrong_settings_are_refused(env, fields, words):
    with pytest.raises(ValueError, match=words):
        env(**fields)


def test_published_names():
    assert memory_task("memory_length", memory_length=70) == MemoryChain(memory_length=70, num_bits=1)
    assert memory_task("memory_size", num_bits=20) == MemoryChain(memory_length=2, num_bits=20)
    assert memory_task("distributed_memory", 30, 5) == DistributedMemory(memory_length=30, num_bits=5)
