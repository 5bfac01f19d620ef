"""What all of it is for: an agent with memory learns what an agent without cannot."""

import pytest

from src_pure.build import build, compose
from src_pure.runs.loop import train
from src_pure.runs.rundir import RunDir


@pytest.mark.slow
@pytest.mark.parametrize(("model", "low", "high"), [("agalite_small", 0.95, 1.0), ("mlp", 0.3, 0.7)])
def test_memory_solves_a_short_tmaze(model, low, high, tmp_path):
    experiment = build(compose(["+tmaze=quickstart", f"model={model}", "task.corridor_len=10", "total_steps=4e5"]))
    summary = train(experiment, RunDir.create(tmp_path / "run", experiment.config_yaml), [])
    score = summary["final"]["success_rate"]
    assert score["episodes"] == 256
    assert low <= score["mean"] <= high
