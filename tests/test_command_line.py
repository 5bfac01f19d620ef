"""trainer_pure.py as a user calls it; in a separate process where the exit code matters."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pandas as pd
import pytest
import yaml

import trainer_pure
from src_pure.errors import ConfigError
from src_pure.experiment import Experiment
from src_pure.lanes import Numbers
from src_pure.runs import training

ROOT = Path(__file__).parents[1]
TINY = ["model=gru", "model.size=8", "policy.head_size=8", "num_envs=4", "num_steps=16", "algo.num_minibatches=2",
        "algo.anneal_lr=true", "task.corridor_len=2", "evaluation.num_episodes=8", "total_steps=640"]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of ten updates and two seeds, with all metric sinks on."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    options = ["num_seeds=2", "seed=3", "evaluation.interval=5", "wandb.mode=offline", "tensorboard=true"]
    assert trainer_pure.main([*TINY, *options, f"run_dir={folder}"]) == 0
    return folder


def test_metrics_have_a_row_per_update_and_run(run):
    rows = pd.read_parquet(run / "metrics.parquet")
    assert len(rows) == 20
    assert list(zip(rows["update"], rows["run"], rows["seed"], strict=True)) == [
        (update, run, 3 + run) for update in range(1, 11) for run in range(2)
    ]
    assert (rows["env_steps"] == rows["update"] * 64).all()
    for name in (
        "episodes",
        "episode_return",
        "episode_length",
        "success_rate",
        "policy_loss",
        "value_loss",
        "entropy",
    ):
        assert name in rows
    assert rows["episode_return"].isna().equals(rows["episodes"] == 0)


def test_evaluation_has_a_row_per_run_and_mode(run):
    rows = pd.read_parquet(run / "evaluation.parquet")
    assert len(rows) == 2 * 2 * 2
    assert set(rows["mode"]) == {"greedy", "sampled"}
    assert sorted(set(rows["update"])) == [5, 10]


def test_summary(run):
    summary = json.loads((run / "summary.json").read_text())
    assert {"steps_per_second", "compile_seconds", "env_steps", "wall_seconds", "final", "versions", "commit"} <= set(
        summary
    )
    assert summary["env_steps"] == 640
    assert summary["episodes_in_shared_worlds"] == 0
    score = summary["final"]["success_rate"]
    assert score["episodes"] == 16
    assert score["runs"] == 2 and score["unfinished"] == 0
    low, high = score["interval"]
    assert low <= score["mean"] <= high


def test_a_checkpoint_has_a_score_if_each_run_had_enough_episodes(run):
    episodes = pd.read_parquet(run / "metrics.parquet").groupby("run")["episodes"].sum()
    description = json.loads((run / "checkpoints" / "10" / "checkpoint.json").read_text())
    assert description["config"]["checkpoint"]["min_episodes"] == 100
    assert (description["score"] is None) == (episodes.min() < 100)


def test_a_score_says_what_it_is_made_of():
    score = {"mean": 0.5, "interval": None, "episodes": 256, "unfinished": 0, "runs": 1}
    line = training.score_line
    assert line("success_rate", score) == "0.500 over 256 fresh episodes"
    score |= {"interval": [0.25, 0.75], "runs": 3, "unfinished": 12}
    assert line("success_rate", score) == (
        "0.500 over 256 fresh episodes, 12 of them cut off at evaluation.max_steps and counted as not solved; "
        "95% t-interval over 3 runs 0.250 to 0.750"
    )
    assert "counted as far as they came" in line("episode_return", score)
    assert line("episode_return", score | {"mean": None}) == "missing, it is not a number in any run"


def test_config_alone_reproduces_the_run(run, tmp_path):
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["num_envs"] == 4
    again = tmp_path / "again"
    assert trainer_pure.main(["--config", str(run / "config.yaml"), "wandb.mode=disabled", f"run_dir={again}"]) == 0
    pd.testing.assert_frame_equal(pd.read_parquet(run / "metrics.parquet"), pd.read_parquet(again / "metrics.parquet"))


def test_nothing_is_overwritten(run, capsys):
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    assert trainer_pure.main([*TINY, f"run_dir={run}"]) == 2
    assert "another configuration: evaluation.interval is 0, was 5, num_seeds is 1, was 2" in capsys.readouterr().err
    assert trainer_pure.main([*TINY, f"run_dir={run}", "resume=never"]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert trainer_pure.main([*TINY, f"run_dir={run / 'wandb'}"]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in run.iterdir() if path.is_file()}


def test_a_training_in_which_every_run_fails_stops(tmp_path, capsys):
    folder = tmp_path / "run"
    assert trainer_pure.main([*TINY, "num_seeds=2", "seed=3", "algo.learning_rate=1e38", f"run_dir={folder}"]) == 3
    error = capsys.readouterr().err
    assert re.search(r"seed 3 failed at update \d+: the (loss|param_norm) is (nan|inf)", error)
    assert re.search(r"error: no run is left: seed 3 at update \d+, seed 4 at update \d+ failed", error)
    assert (folder / "metrics.parquet").exists()
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary["failed"]) == {"3", "4"} and summary["final"] == {}


@pytest.mark.parametrize("broken", ["obs", pytest.param("reward", marks=pytest.mark.slow)])
def test_an_environment_that_gives_no_numbers_is_named(broken, tmp_path, capsys):
    """The error does not advise a smaller learning rate, and earlier checkpoints stay."""
    env = [
        "--trust",
        "tests",
        "task._target_=tests.probes.BrokenTMaze",
        f"+task.broken={broken}",
        "task.corridor_len=200",
    ]
    assert trainer_pure.main([*TINY, *env, "checkpoint.updates=1", f"run_dir={tmp_path / 'run'}"]) == 3
    error = capsys.readouterr().err
    assert "seed 0 failed at update 3: 4 observations or rewards are NaN or infinite" in error
    assert "learning_rate" not in error
    assert "no run is left: seed 0 at update 3 failed" in error
    assert (tmp_path / "run" / "checkpoints" / "2").is_dir()


def test_a_run_that_fails_leaves_the_others_alone(run, tmp_path, monkeypatch, capsys):
    """Also when continued after the failure: the other run gives the same numbers as next to a healthy run."""
    numbers = Experiment.numbers
    rates = jnp.array([2.5e-4, 1e38], jnp.float32)

    def with_rates(experiment):
        algo, task = numbers(experiment)
        return Numbers(algo.replace(learning_rate=rates), task)

    monkeypatch.setattr(Experiment, "numbers", with_rates)
    folder = tmp_path / "run"
    command = [*TINY, "num_seeds=2", "seed=3", "evaluation.interval=5", f"run_dir={folder}"]
    assert trainer_pure.main([*command, "checkpoint.updates=5"]) == 3
    assert capsys.readouterr().err.endswith("error: 1 of 2 runs failed: seed 4 at update 1\n")
    (folder / "summary.json").unlink()
    shutil.rmtree(folder / "checkpoints" / "10")
    for _ in ("continued from update 5", "finished"):
        assert trainer_pure.main(command) == 3
        assert capsys.readouterr().err.endswith("error: 1 of 2 runs failed: seed 4 at update 1\n")
    for table in ("metrics.parquet", "evaluation.parquet"):
        rows, healthy = pd.read_parquet(folder / table), pd.read_parquet(run / table)
        own, wanted = (frame[frame["run"] == 0].reset_index(drop=True) for frame in (rows, healthy))
        pd.testing.assert_frame_equal(own, wanted)
    assert pd.read_parquet(folder / "metrics.parquet").query("run == 1")["update"].tolist() == [1]
    assert set(pd.read_parquet(folder / "evaluation.parquet")["run"]) == {0}
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["failed"] == {"4": 1}
    assert summary["final"]["success_rate"]["runs"] == 1


def test_wandb_offline_and_tensorboard_need_no_network(run):
    assert list(run.glob("wandb/offline-run-*"))
    assert list(run.glob("tensorboard/events*"))


def test_a_run_that_never_starts_leaves_its_folder_free(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    monkeypatch.setattr(training, "open_sinks", lambda *_: (_ for _ in ()).throw(ConfigError("no network")))
    assert trainer_pure.main([*TINY, f"run_dir={folder}"]) == 2
    assert capsys.readouterr().err == "error: no network\n"
    assert not folder.exists()


def test_options_may_stand_anywhere(capsys):
    assert trainer_pure.main(["model=gru", "--help", "num_envs=8"]) == 0
    assert "num_envs=8 " in capsys.readouterr().out
    assert trainer_pure.main(["--nope"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


WRONG_INPUT = ("task.corridr_len=3", "error: unknown key task.corridr_len; did you mean task.corridor_len?")


def test_wrong_input_is_2_and_one_line(capsys):
    argument, line = WRONG_INPUT
    assert trainer_pure.main([argument]) == 2
    error = capsys.readouterr().err
    assert error.startswith(line) and error.count("\n") == 1


@pytest.mark.slow
def test_wrong_input_exits_with_2_and_one_line():
    """As a process; tests/test_device.py starts one in the quick tests."""
    argument, line = WRONG_INPUT
    command = [sys.executable, "trainer_pure.py", argument]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith(line) and done.stderr.count("\n") == 1


def test_an_override_of_two_lines_is_told_in_one(capsys):
    assert trainer_pure.main(["task.corridor_len=1\n2"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(("reader", "code"), [pytest.param("| head -1", 0, marks=pytest.mark.slow), ("> /dev/full", 4)])
def test_help_that_nobody_reads_to_its_end(reader, code):
    help = f"set -o pipefail; {sys.executable} trainer_pure.py --help"
    done = subprocess.run(["bash", "-c", f"{help} {reader}"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == code
    wanted = "error: [Errno 28] No space left on device\n"
    assert done.stderr == (wanted if code else "")


def test_help_lists_every_option(capsys):
    assert trainer_pure.main(["+tmaze=gru", "--help"]) == 0
    out = capsys.readouterr().out
    for text in ("model.size=680", "num_seeds=1 ", "+tmaze=agalite | arelit", "cells from the start to the junction"):
        assert text in out


def test_every_readme_command_exists():
    """Commands in the README name only existing scripts, targets, keys and experiments."""
    readme = (ROOT / "README.md").read_text()
    lines = [
        line.split("#")[0].strip()
        for block in re.findall(r"```bash\n(.*?)```", readme, re.S)
        for line in block.replace("\\\n", " ").splitlines()
    ]
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    trainings = 0
    for words in (shlex.split(line) for line in lines if line):
        assert words[0] in ("make", "python", "pytest", "python3", "source", ".venv/bin/python", ".venv/bin/uv")
        if words[0] == "make":
            assert words[1] in targets
        elif words[0] in ("python", ".venv/bin/python") and words[1].endswith(".py"):
            assert (ROOT / words[1]).is_file(), words
            if words[1] == "trainer_pure.py" and "--config" not in words:
                trainings += 1
                assert trainer_pure.main([*words[2:], "--help"]) == 0
    assert trainings >= 5
