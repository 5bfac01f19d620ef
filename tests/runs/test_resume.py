"""A training that was interrupted and started again equals an unbroken one, bit for bit."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from orbax.checkpoint import Checkpointer, StandardCheckpointHandler

import trainer_pure
from src_pure.build import build
from src_pure.runs import atomic, parquet
from src_pure.runs.columns import to_arrow
from src_pure.runs.folder import Folder
from src_pure.runs.identity import read_identity
from src_pure.runs.lock import locked
from src_pure.runs.rundir import RunDir
from tests.conftest import REPOSITORY
from tests.runs.conftest import OPTIONS
from tests.runs.frames import write_part, write_table
from tests.runs.test_checkpoint import newest
from tests.test_command_line import TINY

NOBODY = 65534  # a user without rights


class After:
    """A sink that calls a function once an update is written."""

    def __init__(self, update, function):
        self.update = update
        self.function = function

    def log(self, frame, elapsed):
        if frame["update"].max() >= self.update:
            self.function()

    def close(self):
        pass


def disturbed(monkeypatch, folder, update, function):
    """The exit code of a training in which something happens after `update`, before its checkpoint."""
    with monkeypatch.context() as patch:
        patch.setattr(trainer_pure, "open_sinks", lambda *_: [After(update, function)])
        return trainer_pure.main([*OPTIONS, f"run_dir={folder}"])


def die():
    raise KeyboardInterrupt


def interrupted(monkeypatch, folder, update):
    """A run folder of a training that died after `update`, before it could save anything there."""
    assert disturbed(monkeypatch, folder, update, die) == 130
    return folder


def arrays(folder):
    """Every array of the newest checkpoint, by its name."""
    found, problems = newest(folder / "checkpoints")
    assert not problems
    return found.update, Checkpointer(StandardCheckpointHandler()).restore(found.path / "state")


def assert_same_run(left, right):
    for table in ("metrics", "evaluation"):
        frames = [pd.read_parquet(folder / f"{table}.parquet") for folder in (left, right)]
        pd.testing.assert_frame_equal(*frames, check_exact=True)
    (update, state), (other_update, other_state) = arrays(left), arrays(right)
    assert update == other_update
    jax.tree.map(np.testing.assert_array_equal, state, other_state)


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
@pytest.mark.parametrize(("told", "number"), [(1, signal.SIGTERM), (4, signal.SIGUSR1), (10, signal.SIGTERM)])
def test_a_signal_stops_it_with_everything_saved(unbroken, tmp_path, monkeypatch, capsys, told, number):
    folder = tmp_path / "run"

    def signal_myself():
        os.kill(os.getpid(), number)
        time.sleep(0.3)

    assert disturbed(monkeypatch, folder, told, signal_myself) == 75
    update = newest(folder / "checkpoints")[0].update
    assert update == pd.read_parquet(folder / "metrics.parquet")["update"].max() >= told
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


@pytest.mark.slow
@pytest.mark.parametrize("update", [1, 4])  # with nothing to write, and while a checkpoint may be being written
def test_a_folder_that_vanishes_ends_it_in_one_line(tmp_path, monkeypatch, capsys, update):
    folder = tmp_path / "run"
    assert disturbed(monkeypatch, folder, update, lambda: shutil.rmtree(folder, ignore_errors=True)) == 4
    error = capsys.readouterr().err
    assert str(folder) in error and error.count("\n") == 1
    assert "was moved, deleted or replaced" in error or (update > 1 and "No such file or directory" in error)
    assert not folder.exists()


@pytest.mark.slow
def test_a_full_disk_ends_it_in_one_line_and_what_was_saved_stays(unbroken, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    for module, name, update in ((parquet.pq, "write_table", 4), (atomic, "digests", 3)):
        with monkeypatch.context() as patch:
            assert disturbed(monkeypatch, folder, update, lambda: patch.setattr(module, name, full)) == 4  # noqa: B023
        error = capsys.readouterr().err
        assert "No space left on device; what was saved before stays\n" in error
        assert newest(folder / "checkpoints")[0].update == 3
        assert not list(folder.rglob("*.partial"))
    assert trainer_pure.main([*OPTIONS, f"run_dir={folder}"]) == 0
    assert_same_run(unbroken, folder)


@pytest.mark.slow
def test_an_exceeded_quota_ends_it_in_one_line(tmp_path):
    """No file may be larger than 100 kB; a checkpoint of 64 units has one that is."""
    options = [*TINY, "model.size=64", "checkpoint.updates=3", f"run_dir={tmp_path / 'run'}"]
    limited = ["bash", "-c", 'ulimit -f 100 && exec "$@"', "bash", sys.executable, "trainer_pure.py", *options]
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    done = subprocess.run(limited, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1 and "cannot write" in done.stderr and "File too large" in done.stderr
    assert len(pd.read_parquet(tmp_path / "run" / "metrics.parquet")) >= 3


@pytest.fixture
def unprivileged():
    """(a folder, a function after which the process is a user whom permissions hold back); undone at the end."""
    folder, user = Path(tempfile.mkdtemp()), os.geteuid()

    def become():
        if user == 0:
            for path in [folder, *folder.rglob("*")]:
                os.chown(path, NOBODY, -1)
            os.seteuid(NOBODY)

    yield folder, become
    os.seteuid(user)
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("place", [".", "checkpoints"])
@pytest.mark.parametrize("mode", [0o500, 0o000])
def test_a_folder_that_may_not_be_written_ends_it_in_one_line(unbroken, unprivileged, monkeypatch, capfd, place, mode):
    folder, become = unprivileged
    folder = folder / "run"

    def forbid():
        while not (folder / "checkpoints" / "3").exists():
            time.sleep(0.01)
        become()
        (folder / place).chmod(mode)

    assert disturbed(monkeypatch, folder, 4, forbid) == 4
    os.seteuid(os.getuid())
    (folder / place).chmod(0o700)
    error = capfd.readouterr().err
    assert "Permission denied" in error and error.endswith("; what was saved before stays\n")
    assert error.count("\n") == 1 and str(folder) in error
    assert newest(folder / "checkpoints")[0].update == 3
    assert trainer_pure.main([*OPTIONS, f"run_dir={folder}"]) == 0
    assert_same_run(unbroken, folder)


def test_a_full_disk_is_met_before_training_too(to_continue, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parquet.pq, "write_table", full)
    assert trainer_pure.main([*OPTIONS, f"run_dir={to_continue}"]) == 4
    line = f"error: stopped in {to_continue}: [Errno 28] No space left on device; what was saved before stays\n"
    assert capsys.readouterr().err == f"continues after update 9\n{line}"
    assert newest(to_continue / "checkpoints")[0].update == 9


def test_a_folder_may_vanish_before_training_too(to_continue, monkeypatch, capsys):
    def vanished(run_dir, experiment):
        shutil.rmtree(run_dir.path)
        return find_start(run_dir, experiment)

    find_start = trainer_pure.find_start
    monkeypatch.setattr(trainer_pure, "find_start", vanished)
    assert trainer_pure.main([*OPTIONS, f"run_dir={to_continue}"]) == 4
    error = capsys.readouterr().err
    assert str(to_continue) in error and "No such file or directory" in error and error.count("\n") == 1


@pytest.mark.parametrize("place", [".", "checkpoints"])
def test_a_folder_may_be_unwritable_before_training_too(to_continue, unprivileged, capsys, monkeypatch, place):
    folder, become = unprivileged
    folder = shutil.copytree(to_continue, folder / "run")

    def build_and_become(config, trust):
        """Another user, to whom the project itself may be closed, once its files have been read."""
        experiment = build(config)
        become()
        (folder / place).chmod(0o500 if place == "." else 0o000)
        return experiment

    monkeypatch.setattr(trainer_pure, "build", build_and_become)
    code = trainer_pure.main([*OPTIONS, f"run_dir={folder}"])
    os.seteuid(os.getuid())
    assert code == 4
    error = capsys.readouterr().err
    assert "Permission denied" in error and str(folder) in error and error.count("\n") == 1


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
    """Without a schedule a raised training equals one that had the new end from the start."""
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
