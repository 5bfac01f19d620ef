"""A finished sweep that tests of this folder read, copy and compare with; stand-ins for the trainer and for Slurm."""

import shutil

import pytest

import trainer_pure
from scripts import submit
from src_pure.sweeps import search, tasks
from tests.sweeps.searches import PROGRAMS, SEARCH
from tests.test_command_line import TINY

AXES = ["sweep.algo.learning_rate=[1e-3,1e-2]", "sweep.task.corridor_len=[2,3]", "num_seeds=2"]
# three batches of 2, 3 and 3 runs
SWEEP = [*TINY, "total_steps=320", "checkpoint.updates=2", "seed=5", *AXES, "sweep.lanes_per_batch=3"]


def refused(command_line, capsys):
    """The line with which a command is refused."""
    assert submit.main([*map(str, command_line)]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    return printed.err


@pytest.fixture(scope="session")
def swept(tmp_path_factory):
    """The folder of a finished sweep; not to be written into."""
    folder = tmp_path_factory.mktemp("sweeps") / "swept"
    assert trainer_pure.main([*SWEEP, f"run_dir={folder}"]) == 0
    return folder


@pytest.fixture
def one_program(monkeypatch):
    """All searches of this process train with the same compiled program."""
    monkeypatch.setattr(search, "Programs", lambda: PROGRAMS)


@pytest.fixture(scope="session")
def searched(tmp_path_factory):
    """The folder of a search that nothing disturbed; not to be written into."""
    folder = tmp_path_factory.mktemp("searches") / "searched"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "Programs", lambda: PROGRAMS)
        assert trainer_pure.main([*SEARCH, f"run_dir={folder}"]) == 0
    return folder


@pytest.fixture
def begun(swept, tmp_path):
    """A copy of that folder; its last two batches lack the end."""
    folder = shutil.copytree(swept, tmp_path / "sweep")
    for name in ("001", "002"):
        (folder / "batches" / name / "summary.json").unlink()
    return folder


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A function that puts a shell script on PATH under the name of a program of Slurm; nothing else is there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(name, script):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return put


@pytest.fixture
def trainer(tmp_path, monkeypatch):
    """A function that puts Python code in the place of the trainer; `batch` is the path of its folder."""
    file = tmp_path / "trainer.py"
    monkeypatch.setattr(tasks, "TRAINER", file)

    def put(code):
        start = "import os, pathlib, signal, sys, time\nbatch = pathlib.Path(sys.argv[3].partition('=')[2])\n"
        file.write_text(f"{start}{code}\n")

    return put


@pytest.fixture
def batches(tmp_path):
    """Three folders."""
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder in folders:
        folder.mkdir()
    return folders
