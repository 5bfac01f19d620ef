"""An exported policy plays as the training's own evaluation did, and anything else is refused in one line."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from flax.traverse_util import unflatten_dict

from src_pure import load_actor_critic, load_policy
from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.lanes import SeedLanes, evaluation_keys
from src_pure.runs.arrays import named_arrays
from src_pure.runs.checkpoint import read
from src_pure.runs.policies import Trained, export_policy, params_of, read_params
from tests.conftest import REPOSITORY


def play(folder, key, mode):
    """Means of return and length over one episode in each environment, on the keys that evaluation uses."""
    initialize_carry, act = load_policy(folder)
    env = build(json.loads((folder / "policy.json").read_text())["config"]).evaluation_env
    key_reset, key_run = jax.random.split(key)
    env_state, timestep = env.reset(key_reset)
    carry, playing, ended = initialize_carry(env.num_envs), np.ones(env.num_envs, bool), []

    @jax.jit
    def step(time, env_state, timestep, carry):
        key_action, key_env = jax.random.split(jax.random.fold_in(key_run, time))
        carry, action = act(key_action if mode == "sampled" else None, carry, timestep.obs, timestep.reset)
        return *env.step(key_env, env_state, action), carry

    time = 0
    while playing.any():
        env_state, timestep, carry = step(time, env_state, timestep, carry)
        first_end = np.asarray(timestep.finished) & playing
        scores = np.stack([timestep.info["episode_return"], timestep.info["episode_length"]], axis=-1)
        ended.extend(scores[first_end])
        playing &= ~first_end
        time += 1
    return np.mean(ended, axis=0)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("mode", ["sampled", "greedy"])
def test_it_plays_as_in_the_evaluation_of_its_run(unbroken, policies, number, mode):
    rows = pd.read_parquet(unbroken / "evaluation.parquet").query("update == 10 and mode == @mode")
    scores = rows.set_index("run")[["episode_return", "episode_length"]].to_numpy()
    own, other = scores[number], scores[1 - number]
    assert mode == "greedy" or (own != other).any()
    played = play(policies[number], evaluation_keys(SeedLanes([3 + number]), 10)[0], mode)
    np.testing.assert_allclose(played, own, rtol=1e-6)


def test_it_acts_step_by_step_as_its_network_does_on_the_sequence(unbroken, policies):
    """The network is applied to the arrays of the checkpoint, which hold both runs."""
    saved = read(unbroken / "checkpoints" / "10").arrays()
    network = build(json.loads((policies[1] / "policy.json").read_text())["config"]).policy
    obs = 5 * jax.random.normal(jax.random.key(0), (12, 8, observation_size(policies[1])))
    reset = jax.random.bernoulli(jax.random.key(1), 0.2, (12, 8)).at[0].set(True)
    keys = jax.random.split(jax.random.key(2), 12)
    acted = []
    for number in (0, 1):
        names = {
            tuple(name.split(".")[2:]): x[number] for name, x in saved.items() if name.startswith("learner.params")
        }
        _, output = network.apply(unflatten_dict(names), network.initialize_carry(8), obs, reset)
        initialize_carry, act = load_policy(policies[number])
        carry = initialize_carry(8)
        for t in range(12):
            _, sampled = act(keys[t], carry, obs[t], reset[t])
            carry, greedy = act(None, carry, obs[t], reset[t])
            np.testing.assert_array_equal(greedy, np.argmax(output.logits[t], axis=-1))
            np.testing.assert_array_equal(sampled, jax.random.categorical(keys[t], output.logits[t]))
            acted.append(greedy)
    assert (np.array(acted[:12]) != np.array(acted[12:])).any()


def test_it_holds_the_parameters_of_its_run(unbroken, policies):
    saved = read(unbroken / "checkpoints" / "10").arrays()
    description, params = read_params(policies[1])
    assert (description.run, description.seed, description.update) == (1, 4, 10)
    assert {f"learner.params.{name}" for name in params} == {name for name in saved if "learner.params" in name}
    for name, x in params.items():
        np.testing.assert_array_equal(x, saved[f"learner.params.{name}"][1])
    assert (params["params.actor.kernel"] != read_params(policies[0])[1]["params.actor.kernel"]).any()


def test_memory_is_cleared_where_an_episode_starts(policies):
    initialize_carry, act = load_policy(policies[0])
    obs = jax.random.normal(jax.random.key(0), (2, 3, observation_size(policies[0])))
    carry, _ = act(None, initialize_carry(3), obs[0], np.ones(3, bool))
    after, action = act(None, carry, obs[1], np.array([True, False, True]))
    fresh, _ = act(None, initialize_carry(3), obs[1], np.ones(3, bool))
    for x, y in zip(jax.tree.leaves(after), jax.tree.leaves(fresh), strict=True):
        assert [np.array_equal(x[i], y[i]) for i in range(3)] == [True, False, True]
    assert action.shape == (3,) and jnp.issubdtype(action.dtype, jnp.integer)


@pytest.fixture(scope="module")
def robot(unbroken, tmp_path_factory):
    """(policy of a PointRobot, experiment): its actions lie within 0.1, while those drawn have a deviation of 1."""
    task = ["task=gymnax", "task.env_name=PointRobot-misc", "observation.last_action=true"]
    experiment = build(compose([*task, "model=mlp", "policy.head_size=8", "num_envs=4", "algo=a2c"]))
    params = jax.tree.map(lambda x: 0.1 * np.ones((1, *x.shape), x.dtype), params_of(experiment))
    folder = tmp_path_factory.mktemp("robot") / "policy"
    checkpoint = read(unbroken / "checkpoints" / "10")._replace(config=experiment.config)
    export_policy(Trained(experiment, checkpoint, named_arrays(params), []), 0, folder)
    return folder, experiment


def test_vectors_are_clipped_to_the_action_space_and_shown_so(robot):
    """As in training, where the environment and the next observation get the clipped ones."""
    folder, experiment = robot
    initialize_carry, act = load_policy(folder)
    state, timestep = jax.jit(experiment.env.reset)(jax.random.key(0))
    carry, action = act(jax.random.key(1), initialize_carry(4), timestep.obs, timestep.reset)
    assert action.shape == (4, 2) and action.dtype == jnp.float32
    assert np.abs(action).max() == np.float32(0.1)
    _, timestep = jax.jit(experiment.env.step)(jax.random.key(2), state, action)
    np.testing.assert_array_equal(timestep.obs[:, -2:], action)
    assert np.abs(act(None, carry, timestep.obs, timestep.reset)[1]).max() == np.float32(0.1)


def test_the_probability_of_an_action_comes_from_the_actor_critic(robot):
    folder, experiment = robot
    initialize_carry, apply = load_actor_critic(folder)
    _, act = load_policy(folder)
    _, timestep = jax.jit(experiment.env.reset)(jax.random.key(0))
    carry, output = apply(initialize_carry(4), timestep.obs, timestep.reset)
    drawn = output.actions.sample(jax.random.key(1))
    assert np.abs(drawn).max() > 0.1 and output.value.shape == (4,)
    np.testing.assert_array_equal(
        jnp.clip(drawn, -0.1, 0.1), act(jax.random.key(1), initialize_carry(4), timestep.obs, timestep.reset)[1]
    )
    mean, log_std = output.logits
    wanted = scipy.stats.norm.logpdf(drawn, mean, np.exp(log_std)).sum(axis=-1)
    np.testing.assert_allclose(output.actions.log_prob(drawn), wanted, rtol=1e-5)
    with pytest.raises(ValueError, match="the policy needs obs float32"):
        apply(carry, timestep.obs[:, 1:], timestep.reset)


def observation_size(folder):
    return build(json.loads((folder / "policy.json").read_text())["config"]).env.observation_space.shape[0]


def test_observations_that_are_not_the_tasks_are_refused(policies):
    initialize_carry, act = load_policy(policies[0])
    size = observation_size(policies[0])
    carry, reset = initialize_carry(2), np.ones(2, bool)
    for obs, found in [
        (np.zeros((2, size + 1), np.float32), rf"float32 \[2, {size + 1}\]"),
        (np.zeros((2, size), np.int32), rf"int32 \[2, {size}\]"),
        (np.zeros((3, size), np.float32), rf"float32 \[3, {size}\] and \[2\]"),
    ]:
        with pytest.raises(
            ValueError, match=rf"needs obs float32 \[B, {size}\] and reset \[B\], B at least 1, got {found}"
        ):
            act(None, carry, obs, reset)


def test_an_empty_batch_and_a_carry_of_another_are_refused(policies):
    initialize_carry, act = load_policy(policies[0])
    size = observation_size(policies[0])
    with pytest.raises(ValueError, match="B at least 1"):
        act(None, initialize_carry(0), np.zeros((0, size), np.float32), np.zeros(0, bool))
    with pytest.raises(ValueError, match="needs a carry of batch size 3, as obs has, got 2"):
        act(None, initialize_carry(2), np.zeros((3, size), np.float32), np.ones(3, bool))


def test_the_package_alone_imports_nothing():
    code = "import sys, src_pure; sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0
