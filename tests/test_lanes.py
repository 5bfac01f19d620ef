"""Lanes of one program: each equals the same training run alone."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import trainer_pure
from scripts import export
from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.config.files import parse_yaml
from src_pure.errors import ConfigError
from src_pure.experiment import side_by_side
from src_pure.lanes import Lane, Numbers, SeedLanes, repeat, stack, training_keys
from src_pure.runs.program import compile_program

SMALL = ["num_envs=4", "num_steps=8", "total_steps=96", "policy.head_size=8", "evaluation.num_episodes=4"]
TMAZE = [*SMALL, "task=tmaze", "model=gru", "model.size=8"]
PENDULUM = [*SMALL, "task=gymnax", "task.env_name=Pendulum-v1", "model=mlp", "model.size=8"]
PPO = ["algo=ppo", "algo.num_minibatches=2", "algo.update_epochs=1", "algo.anneal_lr=true"]
CASES = {
    "ppo": [
        [*TMAZE, *PPO, f"task.corridor_len={corridor}", f"algo.learning_rate={rate}", f"seed={seed}"]
        for corridor, rate, seed in ((10, 1e-3, 0), (40, 1e-2, 1))
    ],
    "a2c": [
        [*TMAZE, "algo=a2c", f"task.corridor_len={corridor}", f"algo.learning_rate={rate}", f"seed={seed}"]
        for corridor, rate, seed in ((40, 1e-2, 5), (10, 1e-3, 6))
    ],
    # a number of the task sets the bounds of the actions
    "pendulum": [
        [*PENDULUM, *PPO, f"task.time_limit={limit}", f"+task.params.max_torque={torque}"]
        for limit, torque in ((12, 1.0), (7, 3.0))
    ],
}


def train(experiment):
    """(metrics [U, R], evaluation metrics [R] for each mode) of the whole training."""
    program = compile_program(experiment)
    num_updates = experiment.settings.num_updates
    state, metrics = program.segment(program.init(), num_updates)
    metrics = {name: x[:num_updates] for name, x in metrics.items()}
    return jax.device_get((metrics, program.evaluate(state, num_updates)))


@pytest.mark.parametrize(
    ("case", "lanes"),
    [("ppo", (1,)), *(pytest.param(name, (0, 1), marks=pytest.mark.slow) for name in CASES)],  # each lane is a program
)
def test_a_lane_equals_its_training_alone(case, lanes):
    """Up to rounding, because programs with a different number of lanes split sums over a batch differently."""
    experiments = [build(compose(options)) for options in CASES[case]]
    together = side_by_side(experiments)
    metrics, evaluation = train(together)
    for lane in lanes:
        alone, evaluation_alone = train(experiments[lane])
        for name, values in alone.items():
            np.testing.assert_allclose(metrics[name][:, lane], values[:, 0], rtol=1e-5, atol=1e-6, err_msg=name)
        for mode, found in evaluation_alone.items():
            for name, values in found.items():
                np.testing.assert_allclose(evaluation[mode][name][lane], values[0], rtol=1e-5, err_msg=name)


def test_a_configuration_of_lanes_builds_the_same_lanes():
    experiments = [build(compose(options)) for options in CASES["ppo"]]
    together = side_by_side(experiments)
    again = build(parse_yaml(together.config_yaml))
    assert again.config == together.config and again.lanes == together.lanes
    assert [lane.label for lane in again.lanes] == [
        "0 with algo.learning_rate=0.001, task.corridor_len=10",
        "1 with algo.learning_rate=0.01, task.corridor_len=40",
    ]
    for run, experiment in enumerate(experiments):
        alone = again.of_lane(run)
        assert alone.config == experiment.config and alone.env == experiment.env and alone.algo == experiment.algo
        assert alone.lanes == (again.lanes[run],)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (
            ["num_envs=8"],
            "may differ in seed, algo.adam_eps, .*, task.time_limit; num_envs is 4 and",
        ),
        (["algo.num_minibatches=4"], "algo.num_minibatches is 2 and 4"),
        (["task.variant=v1"], "task.variant is "),
        (["model=lstm"], "lanes of one program"),
        (["num_seeds=2"], "num_seeds is 1 and 2"),
    ],
)
def test_what_needs_another_program_is_refused(options, error):
    base = CASES["ppo"][0]
    with pytest.raises(ConfigError, match=error):
        side_by_side([build(compose(base)), build(compose([*base, *options]))])


def test_several_seeds_are_not_one_lane():
    experiment = build(compose([*CASES["ppo"][0], "num_seeds=2"]))
    with pytest.raises(ConfigError, match="lanes must have one seed each: set num_seeds=1"):
        side_by_side([experiment, experiment])


def test_every_number_keeps_its_type():
    points = [Numbers({"rate": 0.5, "updates": 7}, {"corridor": np.int32(n), "table": jnp.zeros(3)}) for n in (10, 40)]
    for numbers in (stack(points), repeat(points[0], 2)):
        dtypes = [str(x.dtype) for x in jax.tree.leaves(numbers)]
        assert dtypes == ["float32", "int32", "int32", "float32"]
        assert [x.shape for x in jax.tree.leaves(numbers)] == [(2,), (2,), (2,), (2, 3)]
    assert stack(points).task["corridor"].tolist() == [10, 40]
    with pytest.raises(ConfigError, match="lanes must have numbers of the same kinds"):
        stack([points[0], points[1]._replace(algo={"rate": 1, "updates": 7})])


def test_seeds_are_lanes_that_take_no_memory():
    lanes = SeedLanes(range(3, 2**31))
    assert len(lanes) == 2**31 - 3
    assert lanes[5] == Lane(5, 8, {}) and lanes[-1] == Lane(len(lanes) - 1, 2**31 - 1, {})
    assert lanes[1:3] == (Lane(1, 4, {}), Lane(2, 5, {}))
    with pytest.raises(IndexError):
        lanes[2**31]
    explicit = [Lane(7, 4, {}), Lane(8, 3, {})]
    found, wanted = (jax.random.key_data(training_keys(x)) for x in (explicit, SeedLanes([4, 3])))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.slow
def test_a_run_folder_of_lanes_is_read_as_its_runs(tmp_path, capsys):
    """Also if two lanes share a seed and one of the two fails."""
    options = [*TMAZE, *PPO, "seed=3"]
    numbers = (["task.corridor_len=4"], ["task.corridor_len=9", "algo.learning_rate=1e38"])
    lanes = side_by_side([build(compose([*options, "algo.learning_rate=1e-3", *values])) for values in numbers])
    file, run, policy = (tmp_path / name for name in ("lanes.yaml", "run", "policy"))
    file.write_text(lanes.config_yaml)
    for _ in ("trained", "finished"):
        assert trainer_pure.main(["--config", str(file), f"run_dir={run}"]) == 3
        failed = "seed 3 with algo.learning_rate=1e+38, task.corridor_len=9 at update 1"
        assert capsys.readouterr().err.endswith(f"error: 1 of 2 runs failed: {failed}\n")
    assert pd.read_parquet(run / "metrics.parquet").groupby("run")["seed"].agg(list).to_dict() == {0: [3] * 3, 1: [3]}
    assert export.main([str(run), "--run", "1", "--out", str(policy)]) == 0
    config = json.loads((policy / "policy.json").read_text())["config"]
    assert config == lanes.of_lane(1).config and config["task"]["corridor_len"] == 9
