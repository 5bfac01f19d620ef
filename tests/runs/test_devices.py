"""What one number of devices wrote, any other number of devices reads the same."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY
from tests.runs.conftest import OPTIONS
from tests.runs.disturbing import assert_same_run

CODE = """
import sys
from pathlib import Path

import jax
from jax.sharding import NamedSharding, PartitionSpec

from src_pure.runs.arrays import named_arrays
from src_pure.runs.checkpoint import Checkpoints
from tests.runs.frames import IDENTITY
from tests.runs.test_checkpoint import DESCRIPTION, assert_equal, make_state, newest

command, folder, num_devices = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
assert jax.device_count() == num_devices


def placed(state):  # two runs, one on each of two devices where there are some
    mesh = jax.make_mesh((min(2, num_devices),), ("run",), devices=jax.devices()[:2])
    return jax.device_put(state, NamedSharding(mesh, PartitionSpec("run")))


if command == "save":
    checkpoints = Checkpoints(folder, 2, IDENTITY)
    checkpoints.save(placed(make_state(7)), 7, score=None, **DESCRIPTION)
    checkpoints.wait()
    checkpoints.close()
else:
    like = placed(make_state(0))
    restored = newest(folder)[0].restore(like)
    assert_equal(make_state(7), restored)
    wanted, found = named_arrays(like), named_arrays(restored)
    assert all(found[name].sharding == wanted[name].sharding for name in wanted)
"""


def with_devices(number, *arguments):
    """Runs Python in a process with some number of host devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={number}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 1), (4, 2)])
def test_a_state_is_restored_with_another_number_of_devices(tmp_path, before, after):
    with_devices(before, "-c", CODE, "save", tmp_path, before)
    with_devices(after, "-c", CODE, "restore", tmp_path, after)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 1)])
def test_a_training_continues_with_another_number_of_devices(tmp_path, before, after):
    """On the host the program runs on one of them, so it gives the same bits."""
    command, folder = ["trainer_pure.py", *OPTIONS, "algo.anneal_lr=false"], tmp_path / "run"
    with_devices(before, *command, "total_steps=384", f"run_dir={folder}")
    other = shutil.copytree(folder, tmp_path / "other")
    with_devices(before, *command, f"run_dir={folder}")
    with_devices(after, *command, f"run_dir={other}")
    assert_same_run(folder, other)
