"""Lanes of one program: each is what the same training is alone."""

import jax
import numpy as np
import pytest

from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.experiment import side_by_side
from src_pure.runs.program import compile_program

SMALL = ["num_envs=4", "num_steps=8", "total_steps=96", "policy.head_size=8", "evaluation.num_episodes=4"]
TMAZE = [*SMALL, "task=tmaze", "model=gru", "model.size=8"]
PENDULUM = [*SMALL, "task=gymnax", "task.env_name=Pendulum-v1", "task.time_limit=12", "model=mlp", "model.size=8"]
PPO = ["algo=ppo", "algo.num_minibatches=2", "algo.update_epochs=2", "algo.anneal_lr=true"]
CASES = {
    "ppo": [
        [*TMAZE, *PPO, f"task.corridor_len={corridor}", f"algo.learning_rate={rate}", f"seed={seed}"]
        for corridor, rate, seed in ((10, 1e-3, 0), (40, 1e-3, 0), (40, 1e-2, 1))
    ],
    "a2c": [
        [*TMAZE, "algo=a2c", f"task.corridor_len={corridor}", f"algo.learning_rate={rate}", f"seed={seed}"]
        for corridor, rate, seed in ((10, 1e-3, 5), (40, 1e-2, 5))
    ],
    "pendulum": [[*PENDULUM, *PPO, f"task.params={{max_torque: {torque}}}"] for torque in (1.0, 2.0)],
}


def train(experiment):
    """(metrics [U, R], evaluation metrics [R] of each mode) of the whole training."""
    program = compile_program(experiment)
    num_updates = experiment.settings.num_updates
    state, metrics = program.segment(program.init(), num_updates)
    metrics = {name: x[:num_updates] for name, x in metrics.items()}
    return jax.device_get((metrics, program.evaluate(state, num_updates)))


@pytest.mark.parametrize("case", CASES)
def test_a_lane_equals_its_training_alone(case):
    experiments = [build(compose(options)) for options in CASES[case]]
    metrics, evaluation = train(side_by_side(experiments))
    for lane, experiment in enumerate(experiments):
        alone, evaluation_alone = train(experiment)
        for name, values in alone.items():
            np.testing.assert_allclose(metrics[name][:, lane], values[:, 0], rtol=2e-5, atol=1e-6, err_msg=name)
        for mode, found in evaluation_alone.items():
            for name, values in found.items():
                np.testing.assert_allclose(evaluation[mode][name][lane], values[0], rtol=1e-5, err_msg=name)
