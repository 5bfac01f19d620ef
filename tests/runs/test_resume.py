"""A training that was interrupted and started again equals an unbroken one, bit for bit."""

import os
import shutil
import signal
import time

import pandas as pd
import pytest

import trainer_pure
from src_pure.runs.columns import to_arrow
from src_pure.runs.folder import Folder
from src_pure.runs.identity import read_identity
from src_pure.runs.lock import locked
from src_pure.runs.rundir import RunDir
from tests.runs.conftest import OPTIONS
from tests.runs.disturbing import assert_same_run, disturbed, interrupted
from tests.runs.frames import write_part, write_table
from tests.runs.test_checkpoint import newest


@pytest.mark.parametrize("died", [4, *(pytest.param(update, marks=pytest.mark.slow) for update in (1, 7, 10))])
def test_it_continues_exactly(unbroken, tmp_path, monkeypatch, capsys, died):
    folder = interrupted(monkeypatch, tmp_path / "run", died)
    assert trainer_pure.main([*OPTIONS, "log_seconds=0.001", "tensorboard=true", f"run_dir={folder}"]) == 0
    wanted = f"continues after update {died // 3 * 3}" if died >= 3 else "begins again"
    assert wanted in capsys.readouterr().err
    assert_same_run(unbroken, folder)


@pytest.mark.slow
def test_it_survives_dying_again_and_again(unbroken, tmp_path, monkeypatch):
    for died in (4, 5, 6, 8):
        folder = interrupted(monkeypatch, tmp_path / "run", died)
    assert trainer_pure.main([*OPTIONS, f"run_dir={folder}", "resume=must"]) == 0
    assert_same_run(unbroken, folder)


@pytest.mark.slow
@pytest.mark.parametrize("whole", [1, 0])
def test_damaged_checkpoints_are_reported_and_skipped(unbroken, tmp_path, monkeypatch, capsys, whole):
    folder = interrupted(monkeypatch, tmp_path / "run", 7)
    for path in list((folder / "checkpoints").iterdir())[whole:] if whole == 0 else [folder / "checkpoints" / "6"]:
        (path / "checkpoint.json").write_text("{}")
    capsys.readouterr()
    if not whole:
        assert trainer_pure.main([*OPTIONS, f"run_dir={folder}", "resume=must"]) == 2
        assert "resume=must, but there is no checkpoint" in capsys.readouterr().err
    assert trainer_pure.main([*OPTIONS, f"run_dir={folder}"]) == 0
    error = capsys.readouterr().err
    assert ("continues after update 3" if whole else "begins again") in error
    assert not whole or "6 is damaged" in error
    assert_same_run(unbroken, folder)


@pytest.mark.slow
@pytest.mark.parametrize(("reported", "number"), [(1, signal.SIGTERM), (4, signal.SIGUSR1), (10, signal.SIGTERM)])
def test_a_signal_stops_it_with_everything_saved(unbroken, tmp_path, monkeypatch, capsys, reported, number):
    folder = tmp_path / "run"

    def signal_myself():
        os.kill(os.getpid(), number)
        time.sleep(0.3)

    assert disturbed(monkeypatch, folder, reported, signal_myself) == 75
    update = newest(folder / "checkpoints")[0].update
    assert update == pd.read_parquet(folder / "metrics.parquet")["update"].max() >= reported
    assert (
        f"stopped by {signal.Signals(number).name} after update {update} of 10; the same command"
        in capsys.readouterr().err
    )
    assert not (folder / "summary.json").exists()
    assert trainer_pure.main([*OPTIONS, f"run_dir={folder}"]) == 0
    assert_same_run(unbroken, folder)


def test_two_processes_never_share_a_folder(unbroken, tmp_path, capsys):
    folder = shutil.copytree(unbroken, tmp_path / "run")
    with Folder(folder) as opened, locked(opened):
        assert trainer_pure.main([*OPTIONS, f"run_dir={folder}", "total_steps=1280"]) == 5
    error = capsys.readouterr().err
    assert f"pid {os.getpid()};" in error and error.count("\n") == 1
    assert "total_steps: 640" in (folder / "config.yaml").read_text()


def test_a_finished_run_is_left_alone(unbroken, capsys):
    before = {path: path.read_bytes() for path in unbroken.rglob("*") if path.is_file()}
    assert trainer_pure.main([*OPTIONS, f"run_dir={unbroken}"]) == 0
    assert "is finished" in capsys.readouterr().out
    assert before == {path: path.read_bytes() for path in unbroken.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_an_end_without_its_summary_gets_it(unbroken, tmp_path):
    folder = shutil.copytree(unbroken, tmp_path / "run")
    (folder / "summary.json").unlink()
    RunDir.open(folder).evaluation.rewind(5)
    assert trainer_pure.main([*OPTIONS, f"run_dir={folder}"]) == 0
    assert_same_run(unbroken, folder)
    assert (folder / "summary.json").exists()


@pytest.mark.slow
def test_total_steps_may_be_raised_and_not_lowered(unbroken, tmp_path, capsys):
    """Without a schedule, a training whose end is raised equals one that had the new end from the start."""
    constant, end = [*OPTIONS, "algo.anneal_lr=false"], "total_steps=1000"
    raised, whole = tmp_path / "raised", tmp_path / "whole"
    assert trainer_pure.main([*constant, f"run_dir={raised}"]) == 0
    assert trainer_pure.main([*constant, end, f"run_dir={raised}"]) == 0
    assert "total_steps was 640, is 1,000\n" in capsys.readouterr().err
    assert trainer_pure.main([*constant, end, f"run_dir={whole}"]) == 0
    assert pd.read_parquet(raised / "metrics.parquet")["update"].max() == 15
    assert_same_run(raised, whole)
    assert trainer_pure.main([*constant, f"run_dir={raised}"]) == 2
    assert "total_steps is 640.0, was 1000" in capsys.readouterr().err.replace("640,", "640.0,")
    folder = shutil.copytree(unbroken, tmp_path / "annealed")
    assert trainer_pure.main([*OPTIONS, end, f"run_dir={folder}"]) == 0
    assert "is 1,000; the learning rate now falls to 0 at update 15" in capsys.readouterr().err


def test_there_must_be_something_to_continue(tmp_path, capsys):
    folder = tmp_path / "run"
    assert trainer_pure.main([*OPTIONS, "resume=must", f"run_dir={folder}"]) == 2
    assert "resume=must, but there is no run to continue" in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.slow
@pytest.mark.parametrize(("table", "update"), [("metrics", 4), ("evaluation", 5)])
def test_lost_rows_are_not_passed_over(unbroken, tmp_path, capsys, table, update):
    folder = shutil.copytree(unbroken, tmp_path / "run")
    (folder / "summary.json").unlink()
    rows = pd.read_parquet(folder / f"{table}.parquet")
    write_table(folder / f"{table}.parquet", rows[rows["update"] != update])
    assert trainer_pure.main([*OPTIONS, f"run_dir={folder}"]) == 2
    assert f"{table}.parquet has no rows of update {update}" in capsys.readouterr().err


def test_parts_that_do_not_end_at_the_checkpoint_are_refused(to_continue, capsys):
    path = to_continue / "metrics.parquet"
    rows = to_arrow(pd.read_parquet(path))
    shutil.rmtree(path)
    part = write_part(path, rows, 1, 10, read_identity(to_continue))
    assert trainer_pure.main([*OPTIONS, f"run_dir={to_continue}"]) == 2
    error = capsys.readouterr().err
    assert "has rows from before and after update 9" in error and error.count("\n") == 1
    assert part.exists()


def test_an_unknown_metric_for_the_best_is_wrong_input(tmp_path, capsys):
    assert trainer_pure.main([*OPTIONS, "checkpoint.metric=succes", f"run_dir={tmp_path / 'run'}"]) == 2
    assert "checkpoint.metric must be one of" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
