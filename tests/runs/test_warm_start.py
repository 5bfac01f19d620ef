"""A training that starts from the parameters of an exported policy."""

import re
import shutil
from functools import partial

import jax
import numpy as np
import pytest

import trainer_pure
from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.lanes import training_keys
from src_pure.runs.arrays import named_arrays
from src_pure.runs.blocks import Blocks
from src_pure.runs.checkpoint import read
from src_pure.runs.mesh import mesh_of
from src_pure.runs.policies import read_params, read_warm_start
from src_pure.runs.program import learners_from
from src_pure.train import init_runs, make_train
from tests.runs.conftest import OPTIONS


@pytest.fixture(scope="module")
def cold():
    """(experiment, state at its start, algorithms), with other seeds than those of the policies."""
    experiment = build(compose([*OPTIONS, "seed=9"]))
    init, _ = make_train(experiment.env, experiment.policy)
    algo = experiment.numbers().algo
    return experiment, jax.jit(partial(init_runs, init))(training_keys(experiment.lanes), algo), algo


def test_a_warm_start_has_the_parameters_and_a_fresh_optimiser(policies, cold):
    experiment, state, algo = cold
    learner = learners_from(
        experiment, Blocks(2, 2, mesh_of(1)), read_warm_start(policies[1], state.learner.params), algo
    )
    assert jax.tree.structure(learner) == jax.tree.structure(state.learner)
    params = read_params(policies[1])[1]
    for name, x in named_arrays(learner.params).items():
        np.testing.assert_array_equal(x, np.stack([params[name]] * 2), err_msg=name)
    jax.tree.map(np.testing.assert_array_equal, learner.opt_state, state.learner.opt_state)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["model.size=9"], r"policy: params.actor_hidden.kernel is float32 \[8, 8\], wanted float32 \[9, 8\]"),
        (["policy.head_size=null"], r"params.actor_hidden.bias is float32 \[8\], wanted no such array"),
        (["warm_start=nowhere"], "nowhere is not an exported policy: `python scripts/export.py RUN` writes one"),
        (["warm_start=''"], "warm_start: String should have at least 1 character"),
    ],
)
def test_a_warm_start_from_another_policy_is_wrong_input(policies, tmp_path, capsys, monkeypatch, options, error):
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda *_: pytest.fail("compiled before it was checked"))
    folder = tmp_path / "run"
    assert trainer_pure.main([*OPTIONS, f"warm_start={policies[0]}", *options, f"run_dir={folder}"]) == 2
    found = capsys.readouterr().err
    assert re.search(error, found) and found.count("\n") == 1
    assert not folder.exists()


@pytest.mark.slow
@pytest.mark.parametrize("algo", [[], ["algo=a2c"]])
def test_a_training_starts_from_a_policy(policies, tmp_path, capsys, algo):
    """With almost no learning rate it ends where it began; to continue, it does not need the policy."""
    policy, folder = shutil.copytree(policies[1], tmp_path / "policy"), tmp_path / "run"
    options = [option for option in OPTIONS if not (algo and option.startswith("algo."))]
    options += [*algo, "seed=9", "algo.learning_rate=1e-30", "algo.anneal_lr=false", f"run_dir={folder}"]
    assert trainer_pure.main([*options, f"warm_start={policy}"]) == 0
    shutil.rmtree(policy)
    assert trainer_pure.main([*options, f"warm_start={policy}", "total_steps=768"]) == 0
    params = read_params(policies[1])[1]
    saved = read(folder / "checkpoints" / "12").arrays()
    for name, x in params.items():
        np.testing.assert_array_equal(saved[f"learner.params.{name}"], np.stack([x] * 2), err_msg=name)
    assert trainer_pure.main([*options, "total_steps=768"]) == 2
    assert f"warm_start is None, was '{policy}'" in capsys.readouterr().err
