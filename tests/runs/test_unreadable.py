"""What cannot be read is not damaged: the start ends with exit code 4 and changes nothing."""

import errno
import os
import shutil
from pathlib import Path

import orbax.checkpoint as ocp
import pytest

import trainer_pure
from src_pure.errors import CheckpointError
from src_pure.runs import atomic
from src_pure.runs.checkpoint import Checkpoints
from tests.runs.conftest import OPTIONS
from tests.runs.frames import IDENTITY
from tests.runs.test_checkpoint import names, save
from tests.runs.test_identity import snapshot

ERRORS = [OSError(getattr(errno, name), os.strerror(getattr(errno, name))) for name in
          ("EACCES", "EPERM", "EIO", "ESTALE", "EMFILE", "ENFILE", "ENOMEM", "ETIMEDOUT")]  # fmt: skip
NAMES = ("config.yaml", "run.json", "a part of metrics.parquet", "a part of evaluation.parquet", "summary.json",
         "checkpoint.json", "sha256.json", "_METADATA")  # fmt: skip


def start(folder, *options):
    """The exit code of a start that reads a folder."""
    return trainer_pure.main([*OPTIONS, *options, f"run_dir={folder}"])


@pytest.fixture(params=NAMES)
def unreadable(request, unbroken, tmp_path, monkeypatch):
    """(a run folder, a function after which one of its files raises an error when it is read)."""
    folder, name = shutil.copytree(unbroken, tmp_path / "run"), request.param
    if name.startswith("a part of "):
        name = min(path.name for path in (folder / name.removeprefix("a part of ")).iterdir())
    real_open, real_path_open = os.open, Path.open

    def refuse(error):
        def is_it(path):
            path = os.fspath(path)
            return Path(path).name == name and path.startswith((str(folder), "/proc/self/fd/"))

        def refusing_open(path, *arguments, **options):
            if is_it(path):
                raise error
            return real_open(path, *arguments, **options)

        def refusing_path_open(path, *arguments, **options):
            if is_it(path):
                raise error
            return real_path_open(path, *arguments, **options)

        monkeypatch.setattr(os, "open", refusing_open)
        monkeypatch.setattr(Path, "open", refusing_path_open)

    return folder, refuse


@pytest.mark.parametrize("error", [ERRORS[2], *(pytest.param(error, marks=pytest.mark.slow) for error in
                                                [*ERRORS[:2], *ERRORS[3:], MemoryError()])], ids=str)  # fmt: skip
def test_an_unreadable_file_ends_the_start_and_nothing_is_touched(unreadable, monkeypatch, capsys, error):
    folder, refuse = unreadable
    before = snapshot(folder)
    refuse(error)
    assert start(folder, "total_steps=1280") == 4
    monkeypatch.undo()
    assert capsys.readouterr().err.count("\n") == 1
    assert snapshot(folder) == before


@pytest.mark.slow
@pytest.mark.parametrize("error", [*ERRORS[2:6], MemoryError(), ValueError("OUT_OF_RANGE: read past the end")], ids=str)
def test_a_state_that_cannot_be_restored_ends_the_start_too(unbroken, tmp_path, monkeypatch, capsys, error):
    """After its digests were right. A damaged checkpoint and rows after the whole one would have to go."""
    folder = shutil.copytree(unbroken, tmp_path / "run")
    (folder / "summary.json").unlink()
    (folder / "checkpoints" / "10" / "checkpoint.json").write_text("{")
    (folder / "checkpoints" / ".12.partial").mkdir()
    before = snapshot(folder)

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(ocp.Checkpointer, "restore", fail)
    assert start(folder) == 4
    assert "cannot be read" in capsys.readouterr().err.splitlines()[-1]
    assert {path: content for path, content in snapshot(folder).items() if path.name != "log.txt"} == {
        path: content for path, content in before.items() if path.name != "log.txt"
    }


def test_a_checkpoint_whose_score_cannot_be_read_is_not_removed(tmp_path, monkeypatch):
    """It may be the best one."""
    checkpoints = Checkpoints(tmp_path, 1, IDENTITY)
    save(checkpoints, 1, 0.9)
    read = atomic.read_file

    def fail(path, *arguments):
        if path.parent.name == "1":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(path, *arguments)

    with monkeypatch.context() as patch, pytest.raises((CheckpointError, OSError)):
        patch.setattr(atomic, "read_file", fail)
        save(checkpoints, 2, 0.1)
    assert names(checkpoints) == ["1", "2"]
    save(checkpoints, 3, 0.2)
    assert names(checkpoints) == ["1", "3"]
    checkpoints.close()
