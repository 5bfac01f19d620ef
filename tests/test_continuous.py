"""Vector actions on Pendulum, from the configuration to the score."""

import jax
import numpy as np
import pytest

from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.evaluate import make_evaluate
from src_pure.lanes import SeedLanes, training_keys
from src_pure.train import init_runs, make_train, rollout, run_updates

PENDULUM = ["task=gymnax", "task.env_name=Pendulum-v1", "vector.truncation=bootstrap"]
TINY = ["model=gru", "model.size=8", "num_envs=8", "num_steps=16", "policy.head_size=null", "task.time_limit=5"]


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["algo=ppo", "algo=a2c"])
def test_ratio_stays_one_without_learning(algo):
    """The ratio uses unclipped samples, even though the environment gets clipped ones."""
    experiment = build(compose([*PENDULUM, *TINY, algo, "algo.learning_rate=0", "observation.last_action=true"]))
    init, update = make_train(experiment.env, experiment.policy)

    @jax.jit
    def run(key):
        state, metrics = jax.lax.scan(lambda s, _: update(s, experiment.algo), init(key, experiment.algo), length=2)
        return metrics, rollout(key, experiment.env, experiment.policy.apply, state.learner.params, state.actor, 50)[1]

    metrics, trajectory = run(jax.random.key(0))
    assert np.all(metrics["first_minibatch_max_abs_log_ratio"] < 1e-5)
    assert np.all(metrics.get("max_abs_log_ratio", 0) < 1e-5)
    assert np.all(metrics["episodes"] > 0)
    assert all(np.isfinite(x).all() for x in metrics.values())
    assert trajectory.action.shape == (50, 8, 1) and trajectory.action.dtype == np.float32
    assert np.isfinite(trajectory.action).all() and np.abs(trajectory.action).max() > 2  # the bound of the torque
    torque = np.clip(trajectory.action[:-1, :, 0], -2, 2)
    np.testing.assert_array_equal(trajectory.obs[1:, :, 3], np.where(trajectory.reset[1:], 0, torque))


@pytest.mark.slow
def test_ppo_learns_to_swing_a_pendulum_up():
    """Random play earns about -1200, a policy that stands up from any start about -150."""
    sizes = ["model=mlp", "num_envs=32", "num_steps=100", "total_steps=320_000", "policy.head_size=64"]
    numbers = [
        "algo.learning_rate=1e-3",
        "algo.anneal_lr=true",
        "algo.gamma=0.9",
        "algo.ent_coef=0",
        "algo.num_minibatches=4",
    ]
    experiment = build(compose([*PENDULUM, *sizes, *numbers, "algo.update_epochs=5", "evaluation.num_episodes=64"]))
    init, update = make_train(experiment.env, experiment.policy)
    evaluate = jax.jit(make_evaluate(experiment.evaluation_env, experiment.policy, 200))
    algo, num_updates = experiment.numbers().algo, experiment.settings.num_updates

    def returns(state):
        """Mean returns, (greedy, sampled)."""
        params = jax.tree.map(lambda x: x[0], state.learner.params)
        scores = [evaluate(jax.random.key(1), params, greedy) for greedy in (True, False)]
        assert all(score["episodes"] == 64 for score in scores)
        return [score["sum/episode_return"] / 64 for score in scores]

    state = jax.jit(init_runs, static_argnums=0)(init, training_keys(SeedLanes([0])), algo)
    assert max(returns(state)) < -1000
    state, _ = jax.jit(lambda state: run_updates(update, state, algo, num_updates, num_updates))(state)
    assert all(-500 < score < -100 for score in returns(state))
