"""The gymnax adapter agrees with gymnax itself, step by step, on every environment."""

import re

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces

from src_pure.envs.gymnax import Gymnax
from src_pure.envs.spaces import Discrete
from src_pure.envs.vector import VectorEnv

DOWNLOADED = ["MNISTBandit-bsuite"]
NAMES = [name for name in gymnax.registered_envs if name not in DOWNLOADED]
QUICK = ["CartPole-v1", "Catch-bsuite", "FourRooms-misc", "Pendulum-v1"]  # the others run with the slow tests
NUM_STEPS = 60


def as_shown(obs, space):
    return np.eye(space.n)[obs] if isinstance(space, spaces.Discrete) else obs


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in NAMES]
)
def test_steps_as_gymnax_does(name):
    """gymnax's own `step` resets by itself and puts the last observation into info; same keys give same numbers.

    gymnax's `step` splits the key; the adapter gets the part that goes to gymnax's `step_env`.
    """
    original, params = gymnax.make(name)
    env = Gymnax(name)
    assert jax.tree.all(jax.tree.map(np.array_equal, env.default_params, params))
    actions, our_actions = original.action_space(params), env.action_space(params)
    if isinstance(actions, spaces.Discrete):
        assert our_actions == Discrete(actions.n)
    else:
        assert our_actions.shape == actions.shape and our_actions.dtype == jnp.float32
        np.testing.assert_array_equal([our_actions.low, our_actions.high], np.unique([actions.low, actions.high]))

    @jax.jit
    def play(key):
        obs, state = original.reset(key, params)
        our_obs, our_state = env.reset_env(key, params)
        no = jnp.bool_(False)
        start = {"original": state, "ours": our_state, "live": ~no}

        def step(loop, key):
            action = actions.sample(jax.random.fold_in(key, 1))
            _, state, reward, terminated, truncated, info = original.step(key, loop["original"], action, params)
            state = jax.tree.map(lambda new, old: jnp.asarray(new, jnp.result_type(old)), state, loop["original"])
            theirs = (info["final_observation"], reward, terminated, truncated)
            ours = env.step_env(jax.random.split(key)[0], loop["ours"], action, params)
            our_obs, our_state, our_reward, our_terminated, our_truncated, info = ours
            assert info == {}
            ours = (our_obs, our_reward, our_terminated, our_truncated)
            live = loop["live"] & ~terminated & ~truncated
            return {"original": state, "ours": our_state, "live": live}, (loop["live"], theirs, ours)

        return (obs, our_obs), jax.lax.scan(step, start, jax.random.split(key, NUM_STEPS))[1]

    (obs, our_obs), (live, theirs, ours) = jax.device_get(play(jax.random.key(0)))
    space, our_space = original.observation_space(params), env.observation_space(params)
    np.testing.assert_array_equal(our_obs, as_shown(obs, space))
    assert our_obs.shape == our_space.shape and our_obs.dtype == our_space.dtype
    assert live.sum() >= 1
    shown = as_shown(theirs[0], space)[live]
    np.testing.assert_allclose(ours[0][live], shown, rtol=1e-5, atol=1e-5)  # two programs round differently
    np.testing.assert_allclose(ours[1][live], theirs[1][live], rtol=1e-5, atol=1e-5)
    for our, their in zip(ours[2:], theirs[2:], strict=True):
        np.testing.assert_array_equal(our[live], their[live])
    assert ours[1].dtype == np.float32 and ours[2].dtype == ours[3].dtype == bool


def test_time_limits_are_truncations_with_their_final_observation():
    """Under action 1 MountainCar never terminates: the limit truncates, and the batch shows the last state."""
    env = Gymnax("MountainCar-v0", time_limit=3)
    batch = VectorEnv(env, env.default_params, 2, "bootstrap")
    state, first = batch.reset(jax.random.key(0))
    _, rest = jax.lax.scan(
        lambda state, key: batch.step(key, state, jnp.ones(2, jnp.int32)), state, jax.random.split(jax.random.key(1), 4)
    )
    np.testing.assert_array_equal(rest.truncated[:, 0], [False, False, True, False])
    np.testing.assert_array_equal(rest.reset[:, 0], [False, False, False, True])
    assert not rest.terminated.any()
    np.testing.assert_allclose(rest.obs[2, 0], first.obs[0], atol=0.02)  # the car has hardly moved and was not reset
    assert (np.abs(rest.obs[2] - rest.obs[1]) < 0.01).all()


def test_options_and_params():
    """Constructor arguments and numbers in the parameters take effect: they set the length of an episode."""
    env = Gymnax("MemoryChain-bsuite", options={"num_bits": 3}, params={"memory_length": 4})
    original, params = gymnax.make("MemoryChain-bsuite", num_bits=3)
    params = params.replace(memory_length=4)
    assert env.default_params == params and type(env.default_params.memory_length) is int
    assert env.observation_space(params).shape == original.observation_space(params).shape == (5,)
    hash(env)

    def last_step(step_env, state):
        def step(state, key):
            _, state, _, terminated, *_ = step_env(key, state, jnp.int32(0), params)
            return state, terminated

        return jnp.argmax(jax.lax.scan(step, state, jax.random.split(jax.random.key(1), 8))[1])

    _, state = env.reset_env(jax.random.key(0), params)
    assert last_step(env.step_env, state) == last_step(original.step_env, state) == 4


def test_params_have_the_types_of_their_defaults():
    params = Gymnax("Pendulum-v1", time_limit=7, params={"g": 9}).default_params
    assert params.g == 9.0 and type(params.g) is float and params.max_steps_in_episode == 7
    torques = Gymnax("Acrobot-v1", params={"available_torque": [-2, 0, 2]}).default_params.available_torque
    assert torques.tolist() == [-2, 0, 2] and torques.dtype == jnp.float32


WRONG = {
    "names": ({"options": {"bits": 3}}, "options of MemoryChain-bsuite must be one of num_bits, got 'bits'"),
    "parameters": ({"params": {"length": 3}}, "params of MemoryChain-bsuite besides time_limit must be one of memory_"),
    "time limit": (
        {"params": {"max_steps_in_episode": 3}},
        "besides time_limit must be one of memory_length, got 'max",
    ),
    "fraction": ({"options": {"num_bits": 2.5}}, "num_bits must be of the kind of 1, got 2.5"),
    "bool": ({"params": {"memory_length": True}}, "memory_length must be of the kind of 5, got True"),
    "list": ({"params": {"memory_length": [1, 2]}}, "memory_length must be of the kind of 5, got [1, 2]"),
    "text": ({"options": {"num_bits": "a"}}, "num_bits must be of the kind of 1, got 'a'"),
    "nan": ({"params": {"memory_length": float("nan")}}, "memory_length must be of the kind of 5, got nan"),
    "negative": (
        {"options": {"num_bits": -1}},
        "MemoryChain-bsuite does not run with options={'num_bits': -1} params=N",
    ),
    "unsolvable": (
        {"params": {"memory_length": 9}, "time_limit": 9},
        "time_limit must be at least 10 for MemoryChain-",
    ),
    "umbrella": ({"env_name": "UmbrellaChain-bsuite", "time_limit": 9}, "time_limit must be at least 10 for Umbrella"),
    "catch": ({"env_name": "Catch-bsuite", "time_limit": 8}, "time_limit must be at least 9 for Catch-bsuite"),
    "sea": ({"env_name": "DeepSea-bsuite", "time_limit": 7}, "time_limit must be at least 8 for DeepSea-bsuite"),
    "huge": ({"options": {"num_bits": 10**6}}, "option num_bits must be at most 100, got 1000000"),
    "none": ({"env_name": "Pendulum-v1", "options": {"g": 9}}, "options of Pendulum-v1: there are none, got 'g'"),
    "refused": (
        {"env_name": "FrozenLake-misc", "options": {"map_name": "9x9"}},
        "FrozenLake-misc cannot be made with options={'map_name': '9x9'}: ValueError",
    ),
}


def test_time_limits_that_just_suffice_are_accepted():
    Gymnax("MemoryChain-bsuite", time_limit=10, params={"memory_length": 9})
    for name, limit in (("UmbrellaChain-bsuite", 10), ("Catch-bsuite", 9), ("DeepSea-bsuite", 8)):
        Gymnax(name, time_limit=limit)


@pytest.mark.parametrize("case", WRONG)
def test_wrong_options_are_refused(case):
    given, message = WRONG[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        Gymnax(**{"env_name": "MemoryChain-bsuite"} | given)


def test_no_world_is_made_inside_a_step(monkeypatch):
    env = Gymnax("CartPole-v1")
    _, state = env.reset_env(jax.random.key(0), env.default_params)
    monkeypatch.setattr(type(env._environment), "reset_env", None)
    env.step_env(jax.random.key(1), state, jnp.int32(0), env.default_params)


def test_vectors_are_clipped_to_the_action_space():
    """MountainCarContinuous charges 0.1 times the squared action and does not clip the action for that."""
    env = Gymnax("MountainCarContinuous-v0")
    batch = VectorEnv(env, env.default_params, 3)
    state, _ = batch.reset(jax.random.key(0))
    _, timestep = batch.step(jax.random.key(1), state, jnp.array([[0.5], [-7.0], [3.0]]))
    np.testing.assert_allclose(timestep.reward, [-0.025, -0.1, -0.1], rtol=1e-6)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Dict({"left": spaces.Discrete(3)}),
        spaces.Box(jnp.array([-1.0, -2.0]), jnp.array([1.0, 2.0]), (2,)),
        spaces.Box(0, 3, (2,), jnp.int32),
    ],
)
def test_other_actions_are_refused(space, monkeypatch):
    pendulum = type(gymnax.make("Pendulum-v1")[0])
    monkeypatch.setattr(pendulum, "action_space", lambda *_: space)
    message = "the action space of Pendulum-v1 must be Discrete, or a Box of floats with the same bounds for all, got "
    with pytest.raises(ValueError, match=re.escape(message + str(space))):
        Gymnax("Pendulum-v1")


def test_observations_that_are_no_array_are_refused(monkeypatch):
    cartpole = type(gymnax.make("CartPole-v1")[0])
    monkeypatch.setattr(cartpole, "observation_space", lambda *_: spaces.Dict({"position": spaces.Discrete(3)}))
    with pytest.raises(ValueError, match="the observation space of CartPole-v1 must be Box or Discrete, got Dict"):
        Gymnax("CartPole-v1")


def test_data_that_cannot_be_downloaded(monkeypatch):
    def make(name):
        raise OSError("no network")

    monkeypatch.setattr(gymnax, "make", make)
    with pytest.raises(ValueError, match="MNISTBandit-bsuite needs data that cannot be downloaded: no network"):
        Gymnax("MNISTBandit-bsuite")


@pytest.mark.parametrize(
    ("env_name", "params", "error"),
    [
        ("MountainCar-v0", {"goal_position": 5.0}, "cannot be solved"),
        ("MountainCarContinuous-v0", {"max_speed": 0.0}, "cannot be solved"),
        ("MemoryChain-bsuite", {"memory_length": 0}, "cannot be solved"),
        ("MemoryChain-bsuite", {"memory_length": -5}, "cannot be solved"),
        ("MountainCar-v0", {"gravity": float("nan")}, "gravity must be finite"),
        ("MountainCar-v0", {"gravity": float("inf")}, "gravity must be finite"),
    ],
)
def test_parameters_under_which_nothing_can_be_solved_are_refused(env_name, params, error):
    with pytest.raises(ValueError, match=error):
        Gymnax(env_name, params=params)
