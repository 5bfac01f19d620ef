"""A run folder that cannot be written: one line, exit code 4, and what was saved before stays."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import pytest

import trainer_pure
from src_pure.build import build
from src_pure.runs import atomic, parquet, training
from tests.conftest import REPOSITORY
from tests.runs.conftest import OPTIONS
from tests.runs.disturbing import assert_same_run, disturbed
from tests.runs.test_checkpoint import newest
from tests.test_command_line import TINY

NOBODY = 65534  # a user without rights


@pytest.mark.slow
@pytest.mark.parametrize("update", [1, 4])  # with nothing to write, and perhaps while a checkpoint is written
def test_a_folder_that_vanishes_ends_it_in_one_line(tmp_path, monkeypatch, capsys, update):
    folder = tmp_path / "run"

    def remove():
        while folder.exists():  # a file that appears during the deletion would keep the folder
            shutil.rmtree(folder, ignore_errors=True)

    assert disturbed(monkeypatch, folder, update, remove) == 4
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
    """Files may have at most 100 kB; a checkpoint of 64 units has a larger one."""
    options = [*TINY, "model.size=64", "checkpoint.updates=3", f"run_dir={tmp_path / 'run'}"]
    limited = ["bash", "-c", 'ulimit -f 100 && exec "$@"', "bash", sys.executable, "trainer_pure.py", *options]
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    done = subprocess.run(limited, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1 and "cannot write" in done.stderr and "File too large" in done.stderr
    assert len(pd.read_parquet(tmp_path / "run" / "metrics.parquet")) >= 3


@pytest.fixture
def unprivileged():
    """(a folder, a function that makes the process a user without rights); undone at the end."""
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

    find_start = training.find_start
    monkeypatch.setattr(training, "find_start", vanished)
    assert trainer_pure.main([*OPTIONS, f"run_dir={to_continue}"]) == 4
    error = capsys.readouterr().err
    assert str(to_continue) in error and "No such file or directory" in error and error.count("\n") == 1


@pytest.mark.parametrize("place", [".", "checkpoints"])
def test_a_folder_may_be_unwritable_before_training_too(to_continue, unprivileged, capsys, monkeypatch, place):
    folder, become = unprivileged
    folder = shutil.copytree(to_continue, folder / "run")

    def build_and_become(config, trust):
        """Changes the user once the project's files have been read, because the new user may not read them."""
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
