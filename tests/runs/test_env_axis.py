"""One run on many devices, each with a part of its environments."""

import json
import shutil

import jax
import pytest

import trainer_pure
from tests.runs.conftest import OPTIONS
from tests.runs.test_devices import with_devices

CODE = """
import sys

import jax
import numpy as np

from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.runs.program import compile_program

experiment = build(compose([*sys.argv[1:], "num_envs=16", "num_seeds=1", "total_steps=2560"]))
one = compile_program(experiment)
assert one.blocks.mesh.size == 1
experiment = build(compose([*sys.argv[1:], "num_envs=16", "num_seeds=1", "total_steps=2560", "devices=envs"]))
many = compile_program(experiment)
assert many.blocks.mesh.size == 8
assert "all-reduce" in many.compiled_segment.as_text()
start = one.gather(one.init())
results = []
for program in (one, many):
    state = program.scatter(start)
    for _ in range(2):
        state, metrics = program.segment(state, 5)
    results.append((program.gather(state), metrics, program.evaluate(state, 10)))
jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), *results)
(block,) = state
divided = {x.addressable_shards[0].data.shape[1] for x in jax.tree.leaves(block.actor.timestep)}
assert divided == {2}, divided
assert all(x.is_fully_replicated for x in jax.tree.leaves(block.learner))
jax.tree.map(np.testing.assert_array_equal, one.gather(one.init()), many.gather(many.init()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("model", ["gru", "agalite"])
def test_many_devices_give_the_numbers_of_one(model):
    options = [] if model == "gru" else ["model=agalite", "model.num_layers=1", "model.d_model=8", "model.d_ffc=8"]
    kept = [option for option in OPTIONS if model == "gru" or not option.startswith("model")]
    with_devices(8, "-c", CODE, *kept, *options)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 1)])
def test_a_training_continues_on_another_number_of_devices(tmp_path, before, after):
    command, folder = ["trainer_pure.py", *OPTIONS, "devices=envs", "algo.anneal_lr=false"], tmp_path / "run"
    with_devices(before, *command, "total_steps=384", f"run_dir={folder}")
    other = shutil.copytree(folder, tmp_path / "other")
    with_devices(before, *command, f"run_dir={folder}")
    with_devices(after, *command, f"run_dir={other}")
    one, two = (json.loads((path / "summary.json").read_text())["final"] for path in (folder, other))
    assert one["episode_return"]["mean"] == pytest.approx(two["episode_return"]["mean"], abs=1e-4)


def test_environments_that_cannot_be_divided_are_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("jax.local_devices", lambda: jax.devices()[:1] * 3)
    assert trainer_pure.main([*OPTIONS, "devices=envs", f"run_dir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert "num_envs must be a multiple of the 3 devices" in error and error.count("\n") == 1
