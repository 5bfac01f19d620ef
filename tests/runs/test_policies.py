"""An exported policy plays as the training's own evaluation did, and anything else is refused in one line."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from flax.traverse_util import unflatten_dict

import trainer_pure
from src_pure import load_actor_critic, load_policy
from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.errors import CheckpointError, ConfigError
from src_pure.lanes import SeedLanes, evaluation_keys, training_keys
from src_pure.runs import atomic
from src_pure.runs import policies as policies_module
from src_pure.runs.arrays import named_arrays
from src_pure.runs.atomic import digests
from src_pure.runs.checkpoint import read
from src_pure.runs.policies import Trained, export_policy, params_of, read_params, read_trained, read_warm_start
from src_pure.runs.program import learners_from
from src_pure.train import init_runs, make_train
from tests.conftest import REPOSITORY
from tests.runs.conftest import OPTIONS
from tests.runs.frames import write_table

spec = importlib.util.spec_from_file_location("export", REPOSITORY / "scripts" / "export.py")
export = importlib.util.module_from_spec(spec)
spec.loader.exec_module(export)


@pytest.fixture(scope="module")
def policies(unbroken, tmp_path_factory):
    """The policies of both runs."""
    folder = tmp_path_factory.mktemp("policies")
    for number in (0, 1):
        assert export.main([str(unbroken), "--run", str(number), "--out", str(folder / str(number))]) == 0
    return [folder / "0", folder / "1"]


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
    """The policy of a PointRobot, whose actions lie within 0.1 while those drawn spread by 1, and its experiment."""
    task = ["task=gymnax", "task.env_name=PointRobot-misc", "observation.last_action=true"]
    experiment = build(compose([*task, "model=mlp", "policy.head_size=8", "num_envs=4", "algo=a2c"]))
    params = jax.tree.map(lambda x: 0.1 * np.ones((1, *x.shape), x.dtype), params_of(experiment))
    folder = tmp_path_factory.mktemp("robot") / "policy"
    checkpoint = read(unbroken / "checkpoints" / "10")._replace(config=experiment.config)
    export_policy(Trained(experiment, checkpoint, named_arrays(params), []), 0, folder)
    return folder, experiment


def test_vectors_are_clipped_to_the_action_space_and_shown_so(robot):
    """As in training, where the environment and its next observation get the clipped ones."""
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


def test_the_best_run_is_said_with_its_metric(unbroken, tmp_path, capsys):
    folder = shutil.copytree(unbroken, tmp_path / "run")
    rows = pd.read_parquet(folder / "evaluation.parquet")
    last = (rows["update"] == 10) & (rows["mode"] == "sampled")
    rows["success_rate"] = np.where(last == (rows["run"] == 1), 0.75, 0.25)  # everywhere else the other run is better
    rows["episode_return"] = -rows["success_rate"]
    write_table(folder / "evaluation.parquet", rows)
    assert export.main([str(folder)]) == 0
    assert capsys.readouterr().out == (
        "run 1 (seed 4) is best: success_rate 0.750, sampled, in the evaluation after update 10\n"
        f"{folder}/policies/run_1_update_10\n"
    )
    assert export.main([str(folder), "--run", "best", "--metric", "episode_return"]) == 0
    assert capsys.readouterr().out.startswith("run 0 (seed 3) is best: episode_return -0.250, sampled")
    rows.loc[last & (rows["run"] == 1), "episodes"] = 1  # of 8: luck
    write_table(folder / "evaluation.parquet", rows)
    assert export.main([str(folder), "--out", str(folder / "x")]) == 0
    assert capsys.readouterr().out.startswith("run 0 (seed 3) is best: success_rate 0.250, sampled")
    write_table(folder / "evaluation.parquet", rows.assign(episodes=7))
    assert export.main([str(folder)]) == 2
    assert "no run has a success_rate over 8 episodes in the last evaluation" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--run", "2"], "run must be one of 0 to 1, got 2"),
        (["--run", "-1"], "argument --run: must be a whole number from 0 to 2,147,483,647, got '-1'"),
        (["--run", "0", "--metric", "episode_return"], "--metric says which run is best: leave it out, or --run 0"),
        (["--run", f"{10**9}"], "run must be one of 0 to 1, got 1000000000"),
        (["--run", f"1{'0' * 5000}"], "argument --run: must be a whole number from 0 to 2,147,483,647, got '1000"),
        (["--metric", "loss"], "metric must be one of episode_return, episode_length, success_rate, got 'loss'"),
        (["run=3"], "unrecognized arguments: run=3; see --help"),
        (["--run"], "argument --run: expected one argument; see --help"),
        (["--run", "0", "--out", "{run}"], "{run} is there already; choose another --out FOLDER or delete it"),
        (["--run", "0", "--out", f"{{run}}/{'x' * 300}"], "{run}/" + "x" * 300 + ": File name too long"),
        (["--run", "0", "--out", "{run}/config.yaml/x"], "{run}/config.yaml: File exists"),
    ],
)
def test_wrong_options_are_one_line_and_write_nothing(unbroken, capsys, options, error):
    before = sorted(unbroken.rglob("*"))
    assert export.main([str(unbroken), *(option.format(run=unbroken) for option in options)]) == 2
    found = capsys.readouterr().err
    assert found.startswith(f"error: {error.format(run=unbroken)}") and found.count("\n") == 1
    assert sorted(unbroken.rglob("*")) == before


def test_what_a_killed_export_left_is_not_in_the_way(unbroken, tmp_path):
    """Nor is what another process writes at the moment."""
    partial = tmp_path / ".policy.partial"
    partial.mkdir()
    assert export.main([str(unbroken), "--run", "0", "--out", str(tmp_path / "policy")]) == 0
    assert read_params(tmp_path / "policy")[0] and partial.exists()


def test_an_export_that_another_one_was_faster_than_is_refused(unbroken, tmp_path, monkeypatch, capsys):
    """In one line, and the first policy stays whole."""
    out, serialize = tmp_path / "policy", policies_module.serialization.msgpack_serialize

    def meanwhile(params):
        monkeypatch.undo()
        assert export.main([str(unbroken), "--run", "1", "--out", str(out)]) == 0
        return serialize(params)

    monkeypatch.setattr(policies_module.serialization, "msgpack_serialize", meanwhile)
    assert export.main([str(unbroken), "--run", "0", "--out", str(out)]) == 2
    assert f"error: {out} is there already; choose another --out FOLDER or delete it\n" == capsys.readouterr().err
    assert json.loads((out / "policy.json").read_text())["run"] == 1 and len(list(tmp_path.iterdir())) == 1


def test_a_folder_without_what_it_needs_is_refused_in_one_line(unbroken, tmp_path, capsys):
    assert export.main([str(tmp_path)]) == 2
    assert f"{tmp_path} is not a run folder with checkpoints\n" in capsys.readouterr().err
    folder = shutil.copytree(unbroken, tmp_path / "run")
    shutil.rmtree(folder / "evaluation.parquet")
    assert export.main([str(folder)]) == 2
    assert "no evaluation yet that says which run is best: name one, --run 0\n" in capsys.readouterr().err
    for path in (folder / "checkpoints").iterdir():
        (path / "sha256.json").write_text("{}")
    assert export.main([str(folder), "--run", "0"]) == 2
    error = capsys.readouterr().err
    assert "damaged" in error and "there is no whole checkpoint" in error and error.count("\n") == 1


def test_a_damaged_checkpoint_is_passed_over_and_left_where_it_is(unbroken, tmp_path, capsys):
    folder = shutil.copytree(unbroken, tmp_path / "run")
    (folder / "checkpoints" / "10" / "sha256.json").write_text("{}")
    (folder / "checkpoints" / ".12.partial").mkdir()  # another process is writing it
    before = sorted(folder.rglob("*"))
    assert export.main([str(folder), "--run", "0", "--out", str(tmp_path / "policy")]) == 0
    assert "10 is damaged" in capsys.readouterr().err
    assert read_params(tmp_path / "policy")[0].update == 9
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("when", ["digests", "copytree"])
def test_a_checkpoint_that_training_removes_makes_place_for_the_next(unbroken, tmp_path, monkeypatch, when):
    """With checkpoint.keep=1: before its digests are compared, or after that, before its arrays are copied."""
    folder = shutil.copytree(unbroken, tmp_path / "run") / "checkpoints"
    for path in folder.iterdir():
        shutil.rmtree(path)
    shutil.copytree(unbroken / "checkpoints" / "9", folder / "9")
    holder = atomic if when == "digests" else shutil
    read = getattr(holder, when)

    def meanwhile(*arguments, **options):
        if (folder / "9").exists():
            (folder / "9").rename(folder / ".9.partial")
            shutil.copytree(unbroken / "checkpoints" / "10", folder / "10")
        return read(*arguments, **options)

    monkeypatch.setattr(holder, when, meanwhile)
    _, found, params, damaged = read_trained(tmp_path / "run")
    assert found.path == folder / "10" and params and not damaged


def test_other_folders_are_refused_in_one_line(unbroken, policies, tmp_path):
    for path in (tmp_path / "nothing", unbroken):
        with pytest.raises(FileNotFoundError, match=rf"{path} is no exported policy: [^\n]*$"):
            load_policy(path)
    damaged = shutil.copytree(policies[0], tmp_path / "damaged")
    content = bytearray((damaged / "params.msgpack").read_bytes())
    content[len(content) // 2] ^= 1
    (damaged / "params.msgpack").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"policy {damaged} is damaged: [^\n]*$"):
        load_policy(damaged)


@pytest.mark.parametrize(
    ("change", "kind", "error"),
    [
        ({"format": 1}, CheckpointError, "has format 1, this version reads 2; use the version that wrote it"),
        ({"format": None}, CheckpointError, "has format None, this version reads 2"),
        (
            {"model.size": 9},
            CheckpointError,
            r"another version of its model: params.*kernel is float32 .*8\], wanted",
        ),
        ({"model.sizes": 9}, ConfigError, "unknown key model.sizes; did you mean model.size"),
    ],
)
def test_policies_of_other_versions_are_refused_in_one_line(policies, tmp_path, change, kind, error):
    folder = shutil.copytree(policies[0], tmp_path / "policy")
    description = json.loads((folder / "policy.json").read_text())
    for name, value in change.items():
        section, _, key = name.rpartition(".")
        (description["config"][section] if section else description)[key] = value
    (folder / "policy.json").write_text(json.dumps(description))
    (folder / "sha256.json").write_text(json.dumps(digests(folder)))
    with pytest.raises(kind, match=rf"{error}[^\n]*$"):
        load_policy(folder)


@pytest.fixture(scope="module")
def cold():
    """An experiment and the state at its start, of other seeds than those of the policies."""
    experiment = build(compose([*OPTIONS, "seed=9"]))
    init, _ = make_train(experiment.env, experiment.policy)
    algo = experiment.numbers().algo
    return experiment, jax.jit(partial(init_runs, init))(training_keys(experiment.lanes), algo), algo


def test_a_warm_start_has_the_parameters_and_a_fresh_optimiser(policies, cold):
    experiment, state, algo = cold
    learner = learners_from(experiment, read_warm_start(policies[1], state.learner.params), algo)
    assert jax.tree.structure(learner) == jax.tree.structure(state.learner)
    params = read_params(policies[1])[1]
    for name, x in named_arrays(learner.params).items():
        np.testing.assert_array_equal(x, np.stack([params[name]] * 2), err_msg=name)
    jax.tree.map(np.testing.assert_array_equal, learner.opt_state, state.learner.opt_state)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["model.size=9"], r"policy: params.actor_hidden.kernel is float32 \[8, 8\], wanted float32 \[9, 8\]"),
        (["policy.head_size=null"], r"params.actor_hidden.bias is float32 \[8\], wanted no such array"),
        (["warm_start=nowhere"], "nowhere is no exported policy: `python scripts/export.py RUN` writes one"),
        (["warm_start=''"], "warm_start: String should have at least 1 character"),
    ],
)
def test_a_warm_start_from_another_policy_is_wrong_input(policies, tmp_path, capsys, monkeypatch, options, error):
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda *_: pytest.fail("compiled before it was checked"))
    folder = tmp_path / "run"
    assert trainer_pure.main([*OPTIONS, f"warm_start={policies[0]}", *options, f"run_dir={folder}"]) == 2
    found = capsys.readouterr().err
    assert re.search(error, found) and found.count("\n") == 1
    assert not folder.exists()


@pytest.mark.slow
@pytest.mark.parametrize("algo", [[], ["algo=a2c"]])
def test_a_training_starts_from_a_policy(policies, tmp_path, capsys, algo):
    """With a learning rate of nothing it ends where it began; continued, it needs the policy no longer."""
    policy, folder = shutil.copytree(policies[1], tmp_path / "policy"), tmp_path / "run"
    options = [option for option in OPTIONS if not (algo and option.startswith("algo."))]
    options += [*algo, "seed=9", "algo.learning_rate=1e-30", "algo.anneal_lr=false", f"run_dir={folder}"]
    assert trainer_pure.main([*options, f"warm_start={policy}"]) == 0
    shutil.rmtree(policy)
    assert trainer_pure.main([*options, f"warm_start={policy}", "total_steps=768"]) == 0
    params = read_params(policies[1])[1]
    saved = read(folder / "checkpoints" / "12").arrays()
    for name, x in params.items():
        np.testing.assert_array_equal(saved[f"learner.params.{name}"], np.stack([x] * 2), err_msg=name)
    assert trainer_pure.main([*options, "total_steps=768"]) == 2
    assert f"warm_start is None, was '{policy}'" in capsys.readouterr().err


def test_the_package_alone_imports_nothing():
    code = "import sys, src_pure; sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0
