"""A finished sweep that tests of this folder read, copy and compare with."""

import pytest

import trainer_pure
from tests.test_command_line import TINY

AXES = ["sweep.algo.learning_rate=[1e-3,1e-2]", "sweep.task.corridor_len=[2,3]", "num_seeds=2"]
# three batches of 2, 3 and 3 runs
SWEEP = [*TINY, "total_steps=320", "checkpoint.updates=2", "seed=5", *AXES, "sweep.lanes_per_batch=3"]


@pytest.fixture(scope="session")
def swept(tmp_path_factory):
    """The folder of a finished sweep; not to be written into."""
    folder = tmp_path_factory.mktemp("sweeps") / "swept"
    assert trainer_pure.main([*SWEEP, f"run_dir={folder}"]) == 0
    return folder
