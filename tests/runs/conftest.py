"""A finished training that tests of this folder read, copy and compare with."""

import shutil

import pytest

import trainer_pure
from scripts import export
from tests.test_command_line import TINY

OPTIONS = [*TINY, "num_seeds=2", "seed=3", "evaluation.interval=5", "checkpoint.updates=3"]


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory):
    """The folder of a training with OPTIONS that nothing disturbed; not to be written into."""
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    assert trainer_pure.main([*OPTIONS, f"run_dir={folder}"]) == 0
    return folder


@pytest.fixture
def to_continue(unbroken, tmp_path):
    """A copy of that folder, of which the summary and the last checkpoint are missing."""
    folder = shutil.copytree(unbroken, tmp_path / "run")
    (folder / "summary.json").unlink()
    shutil.rmtree(folder / "checkpoints" / "10")
    return folder


@pytest.fixture(scope="session")
def policies(unbroken, tmp_path_factory):
    """The policies of both runs."""
    folder = tmp_path_factory.mktemp("policies")
    for number in (0, 1):
        assert export.main([str(unbroken), "--run", str(number), "--out", str(folder / str(number))]) == 0
    return [folder / "0", folder / "1"]
