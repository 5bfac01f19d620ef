"""A sweep from the command line: its folder, its numbers, and what happens when something goes wrong."""

import json
import shutil
import signal

import numpy as np
import pandas as pd
import pytest

import trainer_pure
from src_pure.config.files import parse_yaml, to_yaml
from src_pure.experiment import side_by_side, with_seed
from src_pure.runs import programs, training
from src_pure.runs.folder import Folder
from src_pure.runs.lock import locked
from src_pure.runs.program import compile_program
from src_pure.sweeps import plan, sweep
from src_pure.sweeps.estimate import memory_of
from src_pure.sweeps.folder import batch_folders, read_runs, status_of
from src_pure.sweeps.plan import make_plan
from tests.runs.disturbing import After
from tests.sweeps.conftest import SWEEP
from tests.test_command_line import TINY


def tables(folder):
    """The metrics and the evaluation of all batches."""
    return [
        pd.concat([pd.read_parquet(batch / name) for batch in batch_folders(folder)], ignore_index=True)
        for name in ("metrics.parquet", "evaluation.parquet")
    ]


def times(folder):
    """When each file was last written, but for the copy of the states."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "runs.parquet"]
    return {path: path.stat().st_mtime_ns for path in files}


def assert_same_numbers(found, wanted):
    for one, other in zip(tables(found), tables(wanted), strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def states(folder):
    return read_runs(folder).groupby("batch")["state"].agg(lambda x: "/".join(sorted(set(x)))).tolist()


def test_the_folder_says_what_each_run_is(swept):
    runs = pd.read_parquet(swept / "runs.parquet")
    assert runs.columns.tolist() == [
        *("run", "seed", "point", "program", "batch", "state"),
        *("algo.learning_rate", "task.corridor_len"),
    ]
    assert runs["run"].tolist() == list(range(8)) and runs["seed"].tolist() == [5, 6] * 4
    assert runs["point"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3] and set(runs["program"]) == {0}
    assert runs["batch"].tolist() == ["000"] * 2 + ["001"] * 3 + ["002"] * 3
    assert runs["algo.learning_rate"].tolist() == [1e-3] * 4 + [1e-2] * 4
    assert runs["task.corridor_len"].tolist() == [2, 2, 3, 3] * 2 and set(runs["state"]) == {"finished"}
    metrics, evaluation = tables(swept)
    assert sorted(metrics["run"].unique()) == sorted(evaluation["run"].unique()) == list(range(8))
    assert metrics.groupby("run")["update"].agg(list).tolist() == [[1, 2, 3, 4, 5]] * 8


def test_a_run_of_a_sweep_is_that_run_alone(swept, tmp_path):
    """Up to rounding, because the programs have other widths."""
    metrics, evaluation = tables(swept)
    options = [*TINY, "total_steps=320", "seed=6", "algo.learning_rate=1e-2", "task.corridor_len=2"]
    assert trainer_pure.main([*options, f"run_dir={tmp_path / 'alone'}"]) == 0
    for name, table in (("metrics", metrics), ("evaluation", evaluation)):
        alone = pd.read_parquet(tmp_path / "alone" / f"{name}.parquet")
        found = table[table["run"] == 5].reset_index(drop=True)[alone.columns]
        numbers = alone.columns.drop("mode", errors="ignore").drop("run")
        np.testing.assert_allclose(found[numbers].astype(float), alone[numbers].astype(float), rtol=1e-4, atol=1e-5)


def test_one_program_is_compiled_for_all_batches(tmp_path, monkeypatch):
    compiled = []

    def count(experiment, *arguments):
        compiled.append(len(experiment.lanes))
        return compile_program(experiment, *arguments)

    compile_program = programs.compile_program
    monkeypatch.setattr(programs, "compile_program", count)
    folder = tmp_path / "sweep"
    assert trainer_pure.main([*SWEEP, "sweep.algo.gamma=[0.9,0.99]", "total_steps=64", f"run_dir={folder}"]) == 0
    assert len(batch_folders(folder)) == 6 and compiled == [2]


def test_the_same_command_again_changes_nothing(swept, capsys):
    before = times(swept)
    assert trainer_pure.main([*SWEEP, f"run_dir={swept}"]) == 0
    assert "3 finished of 3 batches" in capsys.readouterr().out
    assert times(swept) == before


def test_the_file_of_a_sweep_repeats_it(swept, tmp_path):
    assert trainer_pure.main(["--config", str(swept / "sweep.yaml"), f"run_dir={tmp_path / 'again'}"]) == 0
    assert_same_numbers(tmp_path / "again", swept)
    assert (tmp_path / "again" / "sweep.yaml").read_text() == (swept / "sweep.yaml").read_text()


def test_a_batch_runs_by_itself(swept, tmp_path):
    config = swept / "batches" / "001" / "config.yaml"
    assert trainer_pure.main(["--config", str(config), f"run_dir={tmp_path / 'batch'}"]) == 0
    for name in ("metrics.parquet", "evaluation.parquet"):
        found, wanted = (pd.read_parquet(folder / name) for folder in (tmp_path / "batch", config.parent))
        assert found["run"].unique().tolist() == [2, 3, 4]
        np.testing.assert_allclose(found.select_dtypes("number"), wanted.select_dtypes("number"), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("update", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_a_killed_sweep_continues_exactly(swept, tmp_path, monkeypatch, capsys, update):
    """In the second batch: by a signal at once, or by a kill that saves nothing."""
    folder, seen = tmp_path / "sweep", []

    def signal_or_die():
        if update == 1:
            signal.raise_signal(signal.SIGTERM)
        else:
            raise KeyboardInterrupt

    def sinks(experiment, *_):
        seen.append(experiment)
        return [After(update, signal_or_die)] if len(seen) == 2 else []

    with monkeypatch.context() as patch:
        patch.setattr(training, "open_sinks", sinks)
        assert trainer_pure.main([*SWEEP, f"run_dir={folder}"]) == (75 if update == 1 else 130)
    if update == 1:
        assert f"the same command with run_dir={folder} continues" in capsys.readouterr().err
    assert states(folder) == ["finished", "stopped", "waiting"]
    assert trainer_pure.main([*SWEEP, f"run_dir={folder}"]) == 0
    assert states(folder) == ["finished"] * 3
    assert_same_numbers(folder, swept)


@pytest.mark.slow
def test_batches_of_other_processes_are_left_to_them(swept, tmp_path, capsys):
    folder = tmp_path / "sweep"
    shutil.copytree(swept, folder)
    for batch in batch_folders(folder):
        (batch / "summary.json").unlink()
    with Folder(folder / "batches" / "001") as held, locked(held):
        assert states(folder) == ["stopped", "running", "stopped"]
        assert trainer_pure.main([*SWEEP, f"run_dir={folder}"]) == 5
        assert states(folder) == ["finished", "running", "finished"]
    assert "other processes are training batches" in capsys.readouterr().err
    assert trainer_pure.main([*SWEEP, f"run_dir={folder}"]) == 0
    assert_same_numbers(folder, swept)


def test_runs_that_fail_are_told_from_the_others(tmp_path, capsys):
    folder = tmp_path / "sweep"
    options = [*TINY, "total_steps=192", "sweep.algo.learning_rate=[1e-3,1e38,1e-2]", "sweep.lanes_per_batch=2"]
    for _ in range(2):
        assert trainer_pure.main([*options, f"run_dir={folder}"]) == 3
        assert "seed 0 with algo.learning_rate=1e+38 at update 1" in capsys.readouterr().err
    assert pd.read_parquet(folder / "runs.parquet")["state"].tolist() == ["finished", "failed", "finished"]


def test_a_batch_that_cannot_go_on_does_not_stop_the_others(swept, tmp_path, capsys):
    folder = tmp_path / "sweep"
    shutil.copytree(swept, folder)
    for batch in batch_folders(folder):
        (batch / "summary.json").unlink()
    damaged = folder / "batches" / "000" / "metrics.parquet"
    (damaged / "notes.txt").write_text("mine")
    assert trainer_pure.main([*SWEEP, f"run_dir={folder}"]) == 2
    assert states(folder) == ["failed", "finished", "finished"]
    assert status_of(batch_folders(folder)[0]).reason.endswith("notes.txt is not a part of a table; remove it")
    (damaged / "notes.txt").unlink()
    assert trainer_pure.main([*SWEEP, f"run_dir={folder}"]) == 0
    assert_same_numbers(folder, swept)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["algo.gamma=0.5"], 2, "holds another sweep: algo.gamma is 0.5, was 0.99"),
        (["sweep.algo.learning_rate=[1e-3,1e-1]"], 2, "holds another sweep: sweep.algo.learning_rate is [0.001, 0.1]"),
        (["resume=never"], 2, "holds a sweep; choose another run_dir"),
        (["log_seconds=7"], 0, ""),
    ],
)
def test_a_folder_keeps_its_sweep(swept, capsys, options, code, message):
    assert trainer_pure.main([*SWEEP, *options, f"run_dir={swept}"]) == code
    assert message in capsys.readouterr().err


def test_nothing_is_written_for_a_wrong_point_or_over_other_files(tmp_path, capsys):
    folder = tmp_path / "sweep"
    assert trainer_pure.main([*SWEEP, "sweep.algo.gamma=[0.9,2]", f"run_dir={folder}"]) == 2
    assert "point 2 (" in capsys.readouterr().err and not folder.exists()
    assert trainer_pure.main([*SWEEP, "resume=must", f"run_dir={folder}"]) == 2 and not folder.exists()
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    assert trainer_pure.main([*SWEEP, f"run_dir={folder}"]) == 2
    assert "is not empty (mine.txt)" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["sweep", "mine.txt"]
    assert trainer_pure.main([*SWEEP, "--help"]) == 0


def test_a_sweep_stands_in_an_experiment_file(tmp_path, monkeypatch, capsys):
    """As in the files of configs: the section `sweep` of a configuration."""
    config = parse_yaml(to_yaml(trainer_pure.compose(TINY)))
    config["sweep"] = {"algo": {"gamma": [0.9, 0.99]}}
    file = tmp_path / "sweep.yaml"
    file.write_text(to_yaml(config))
    monkeypatch.setattr(sweep, "train_in_folder", lambda *_: None)
    trainer_pure.main(["--config", str(file), f"run_dir={tmp_path / 'sweep'}"])
    assert "2 points x 1 seed, 2 runs, 1 program, 1 batch" in capsys.readouterr().out
    lanes = parse_yaml((tmp_path / "sweep" / "batches" / "000" / "config.yaml").read_text())["lanes"]
    assert lanes == [{"run": 0, "seed": 0, "algo.gamma": 0.9}, {"run": 1, "seed": 0, "algo.gamma": 0.99}]


def test_the_identity_of_a_sweep_is_its_own(swept):
    identities = {json.loads(path.read_text())["run_id"] for path in swept.rglob("run.json")}
    assert len(identities) == 4


@pytest.mark.slow
def test_a_plan_is_printed_and_nothing_is_written(tmp_path, monkeypatch, capsys):
    """Its bytes are those that the compiler states for a third width."""
    monkeypatch.chdir(tmp_path)
    assert trainer_pure.main([*SWEEP, "sweep.model=[gru,mlp]", "plan=only"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("tmaze-gru-ppo: 8 points x 2 seeds, 16 runs, 2 programs, 6 batches\n")
    assert "  task.corridor_len: side by side\n  model: a program each\n" in out
    assert "program 1 (model=mlp)\n  8 lanes in 3 batches of at most 3, 3 at once on a device\n" in out
    assert list(tmp_path.iterdir()) == []
    alone = make_plan(trainer_pure.compose(SWEEP)).groups[0].points[0].experiment
    memory = memory_of(alone)
    four = side_by_side([with_seed(alone, seed) for seed in range(4)])
    compiled = compile_program(four).compiled_segment.memory_analysis()
    needed = compiled.argument_size_in_bytes + compiled.output_size_in_bytes + compiled.temp_size_in_bytes
    assert memory.fixed + 4 * memory.per_lane == pytest.approx(needed - compiled.alias_size_in_bytes, rel=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["plan=all"], "plan must be only, or null to train, got all"),
        (["sweep.lanes_per_batch=1000000", "num_seeds=200000"], "does not fit into"),
        (["num_seeds=900000"], "a sweep may have 1,000,000 runs, this has 4 points x 900,000 seeds"),
    ],
)
def test_a_plan_that_cannot_be_is_one_line(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.setattr(plan, "all_memory", lambda: 10**9)
    assert trainer_pure.main([*SWEEP, *options, f"run_dir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and list(tmp_path.iterdir()) == []
