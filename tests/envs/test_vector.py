"""The batch of environments: resets, both meanings of a time limit, and episode statistics."""

import re
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from src_pure.envs.mystery_path import MysteryPath
from src_pure.envs.spaces import Discrete
from src_pure.envs.vector import VectorEnv
from tests.probes import Probe, probe_params

NUM_ENVS = 3


def play(probe, truncation, num_steps, reset_ratio=1):
    """Timesteps [1 + num_steps, B] when every action is 1."""
    return jax.device_get(compiled_play(probe, truncation, num_steps, reset_ratio))


@partial(jax.jit, static_argnums=(1, 2, 3))
def compiled_play(probe, truncation, num_steps, reset_ratio):
    env = VectorEnv(Probe(), probe, NUM_ENVS, truncation, reset_ratio)
    state, first = env.reset(jax.random.key(0))
    action = jnp.ones(NUM_ENVS, jnp.int32)

    def step(state, key):
        return env.step(key, state, action)

    _, rest = jax.lax.scan(step, state, jax.random.split(jax.random.key(1), num_steps))
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, rest)


def flags(timesteps):
    """Flags of the first environment: one letter per step, in the order of the fields."""
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
    """It takes one more step, whose action is ignored and whose transition earns no reward and is not counted."""
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


class WorldState(NamedTuple):
    world: jax.Array  # [] uint32, random: two episodes share one by accident once in four billion
    time: jax.Array
    length: jax.Array


class Worlds:
    """Episodes of random length, 1 to 4 steps, that show their world; if `length` is not 0, all have that length."""

    def __init__(self, length=0):
        self.length = length

    def reset_env(self, key, params):
        key_world, key_length = jax.random.split(key)
        length = jax.random.randint(key_length, (), 1, 5) if self.length == 0 else jnp.int32(self.length)
        state = WorldState(jax.random.bits(key_world), jnp.int32(0), length)
        return state.world, state

    def step_env(self, key, state, action, params):
        state = state._replace(time=state.time + 1)
        end = state.time >= state.length
        return state.world, state, jnp.float32(1.0), end, jnp.bool_(False), {}

    def observation_space(self, params):
        return Discrete(2**32)

    def action_space(self, params):
        return Discrete(2)


class ObservedWorlds(Worlds):
    def observe(self, state, params):
        return state.world


def play_worlds(env, num_steps, rollout_length=None):
    """Timesteps [2, 1 + num_steps, B] of two vmapped runs, with a refresh before each rollout."""

    @jax.jit
    @jax.vmap
    def run(key):
        state, first = env.reset(key)
        action = jnp.zeros(env.num_envs, jnp.int32)

        def step(state, x):
            key, time = x
            if rollout_length:
                fresh = env.refresh(jax.random.fold_in(key, 0), state)
                state = jax.tree.map(lambda a, b: jnp.where(time % rollout_length == 0, a, b), fresh, state)
            return env.step(key, state, action)

        _, rest = jax.lax.scan(step, state, (jax.random.split(key, num_steps), jnp.arange(num_steps)))
        return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, rest)

    return jax.device_get(run(jax.random.split(jax.random.key(0), 2)))


def check_episodes(timesteps, lengths):
    """Asserts: worlds change only at resets, resets only follow ends, and worlds determine the length of episodes."""
    goes_on = ~timesteps.reset[:, 1:]
    np.testing.assert_array_equal(timesteps.obs[:, 1:][goes_on], timesteps.obs[:, :-1][goes_on])
    np.testing.assert_array_equal(timesteps.reset[:, 1:], timesteps.terminated[:, 1:])
    assert set(timesteps.info["episode_length"][timesteps.finished].tolist()) == set(lengths)


@pytest.mark.parametrize(
    ("environment", "reset_ratio"),
    [
        *((Worlds(), 1), (Worlds(), 3), (ObservedWorlds(2), 3)),
        pytest.param(Worlds(), 100, marks=pytest.mark.slow),
        *(pytest.param(ObservedWorlds(2), ratio, marks=pytest.mark.slow) for ratio in (1, 100)),
    ],
)
def test_every_episode_has_a_world_of_its_own(environment, reset_ratio):
    """Also if more episodes end on one step than one group of resets holds, and in two runs side by side."""
    env = VectorEnv(environment, (), 20, "terminate", reset_ratio)
    timesteps = play_worlds(env, num_steps=12)
    starts = timesteps.obs[timesteps.reset]
    assert len(starts) > 2 * 20 * 12 / 4
    assert len(set(starts.tolist())) == len(starts)
    assert "shared_world" not in timesteps.info
    check_episodes(timesteps, [2] if environment.length else [1, 2, 3, 4])


@pytest.mark.parametrize(("resets", "reset_ratio"), [("optimistic", 1), ("optimistic", 3), ("pool", 3)])
def test_episodes_in_shared_worlds_are_counted(resets, reset_ratio):
    """Optimistic resets share worlds within a step, a pool within a rollout of four steps; runs never share."""
    env = VectorEnv(Worlds(), (), 20, "terminate", reset_ratio, resets)
    timesteps = play_worlds(env, num_steps=12, rollout_length=4)
    check_episodes(timesteps, [1, 2, 3, 4])
    shared = 0
    for run in range(2):
        starts = timesteps.obs[run][timesteps.reset[run]]
        shared += len(starts) - len(set(starts.tolist()))
        for step in range(1, 13):
            new = timesteps.obs[run, step][timesteps.reset[run, step]]
            if resets == "pool":
                rollout = slice(1 + (step - 1) // 4 * 4, step)
                begun = timesteps.reset[run, rollout].sum() + len(new)
                assert begun > 20 or len(set(new.tolist())) == len(new), (
                    "a pool of 20 that is not used up is not shared"
                )
            else:
                assert len(set(new.tolist())) == min(len(new), -(-20 // reset_ratio))
    assert not set(timesteps.obs[0].ravel().tolist()) & set(timesteps.obs[1].ravel().tolist())
    assert (shared > 0) == (reset_ratio > 1)
    if reset_ratio == 1:
        assert "shared_world" not in timesteps.info
        return
    reported = timesteps.info["shared_world"][timesteps.finished].sum()
    unfinished = shared_at_the_end(timesteps)
    assert reported + unfinished == shared


def test_a_pool_that_is_not_refreshed_has_the_first_worlds_again():
    timesteps = play_worlds(VectorEnv(Worlds(2), (), 20, "terminate", 3, "pool"), num_steps=4)
    assert len(set(timesteps.obs[:, 0].ravel().tolist())) == 2 * 20
    for run in range(2):
        assert set(timesteps.obs[run].ravel().tolist()) == set(timesteps.obs[run, 0].tolist())
    np.testing.assert_array_equal(timesteps.info["shared_world"][:, 2], 0)  # for the episodes that ended there
    np.testing.assert_array_equal(timesteps.info["shared_world"][:, 4], 1)


def shared_at_the_end(timesteps):
    """Environments whose last episode did not end and began in a world used before."""
    count = 0
    for run in range(2):
        begun = set()
        for step in range(13):
            for number in range(20):
                if timesteps.reset[run, step, number]:
                    again = timesteps.obs[run, step, number].item() in begun
                    begun.add(timesteps.obs[run, step, number].item())
                    count += again and not timesteps.finished[run, step + 1 :, number].any()
    return count


@pytest.mark.parametrize("truncation", ["terminate", "bootstrap"])
def test_when_worlds_are_made_changes_nothing_else(truncation):
    probe = probe_params("endless", length=2)  # random only in a sign that is not observed
    every_step, on_demand = play(probe, truncation, 6), play(probe, truncation, 6, reset_ratio=NUM_ENVS)
    jax.tree.map(np.testing.assert_array_equal, every_step, on_demand)


@pytest.mark.slow
@pytest.mark.parametrize("reset_ratio", [1, 3])
def test_pixels_are_drawn_once_per_step(reset_ratio):
    """As often as `observe` alone draws the agent's window: step and reset draw no extra pixels."""
    environment = MysteryPath("grid")
    params = environment.default_params._replace(time_limit=2)
    env = VectorEnv(environment, params, NUM_ENVS, reset_ratio=reset_ratio)
    state, first = jax.jit(env.reset)(jax.random.key(0))
    observe = jax.jit(jax.vmap(lambda state: environment.observe(state, environment.default_params)))
    np.testing.assert_array_equal(first.obs, observe(state.env))

    action = jnp.full(NUM_ENVS, 3)
    step = jax.jit(env.step).lower(jax.random.key(1), state, action).compile()
    for key in jax.random.split(jax.random.key(2), 4):
        state, timestep = step(key, state, action)
        np.testing.assert_array_equal(timestep.obs, observe(state.env))
    windows = [re.findall(r"= u8\[\d+,(?:1,)?20,20,3\]\S* (?:dynamic-slice|gather|while)\(", program.as_text())
               for program in (step, observe.lower(state.env).compile())]  # fmt: skip
    assert len(windows[0]) == len(windows[1]) > 0
