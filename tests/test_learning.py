"""The purpose of the project: an agent with memory learns what one without cannot."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY


@pytest.mark.slow
@pytest.mark.parametrize(("model", "low", "high"), [("agalite_small", 0.95, 1.0), ("mlp", 0.3, 0.7)])
def test_memory_solves_a_short_tmaze(model, low, high, tmp_path):
    """Trains in a separate process, as users do, because the tests compile their own programs without optimisation."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    options = ["+tmaze=quickstart", f"model={model}", "task.corridor_len=10", "total_steps=4e5", "log_seconds=null"]
    command = [sys.executable, "trainer_pure.py", *options, f"run_dir={tmp_path / 'run'}"]
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True)
    score = json.loads((tmp_path / "run" / "summary.json").read_text())["final"]["success_rate"]
    assert score["episodes"] == 256
    assert low <= score["mean"] <= high
