"""What one number of devices wrote, any other number of devices reads the same."""

import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from tests.conftest import REPOSITORY
from tests.runs.conftest import OPTIONS

LANES = [*OPTIONS, "algo.anneal_lr=false", "num_seeds=5", "lanes_per_block=1"]
CODE = """
import sys

import jax

from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.runs.program import compile_program

program = compile_program(build(compose([*sys.argv[1:], "lanes_per_block=2", "num_seeds=17"])))
assert program.blocks.size == 16 and len(program.blocks) == 2
state = program.init()
for array in jax.tree.leaves(state):
    assert len(array.sharding.device_set) == 8
for compiled in (program.compiled_init, program.compiled_segment, program.compiled_evaluate):
    text = compiled.as_text()
    assert "while" in text
    for exchange in ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
        assert exchange not in text
"""


def with_devices(number, *arguments):
    """Runs Python in a process with some number of host devices."""
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(number), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_devices_exchange_nothing():
    with_devices(8, "-c", CODE, *OPTIONS)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(1, 8), (8, 1)])
def test_a_training_continues_with_another_number_of_devices(tmp_path, before, after):
    """Up to rounding, because XLA fuses a program of several devices differently; equal before the checkpoint."""
    command, folder = ["trainer_pure.py", *LANES], tmp_path / "run"
    with_devices(before, *command, "total_steps=384", f"run_dir={folder}")
    other = shutil.copytree(folder, tmp_path / "other")
    with_devices(before, *command, f"run_dir={folder}")
    with_devices(after, *command, f"run_dir={other}")
    for table in ("metrics", "evaluation"):
        left, right = (pd.read_parquet(run / f"{table}.parquet") for run in (folder, other))
        pd.testing.assert_frame_equal(left, right, rtol=1e-4, atol=1e-5)
        early = left["update"] <= 6
        pd.testing.assert_frame_equal(left[early], right[early], check_exact=True)
        assert set(left["run"]) == set(range(5))
