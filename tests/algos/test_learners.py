"""A replay of sequences and a target network fit into one algorithm class; and what every algorithm promises."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

from src_pure.algos.base import Algorithm
from src_pure.algos.optimizer import apply_gradient
from src_pure.algos.returns import lambda_returns, masked_mean
from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.config.names import known_names
from src_pure.distributions import EpsilonGreedy
from src_pure.envs.tmaze import TMaze
from src_pure.envs.vector import VectorEnv
from src_pure.lanes import Numbers, SeedLanes, repeat, training_keys
from src_pure.models.encoders import Flatten
from src_pure.models.q_network import QNetwork
from src_pure.models.rnn import GRU
from src_pure.runs.blocks import Blocks
from src_pure.runs.mesh import mesh_of
from src_pure.runs.program import learners_from
from src_pure.train import init_runs, make_train, run_updates
from src_pure.types import Learner
from tests.partners import policy_of

CAPACITY = 3


@struct.dataclass
class Replay(Algorithm):
    """A minimal R2D2 (Kapturowski et al., 2019): replays rollouts from their stored memory, with a target network.

    Learns from one random stored rollout per update; the target network is copied every two updates.
    """

    learning_rate: float = 1e-2
    epsilon: float = 0.3
    num_updates: int = 1
    num_steps: int = struct.field(pytree_node=False, default=8)

    def check(self, num_envs, actions):
        assert actions is EpsilonGreedy

    def optimizer(self):
        return optax.adam(self.learning_rate)

    def init(self, params, example=None):
        stored = jax.tree.map(lambda x: jnp.zeros((CAPACITY, *x.shape), x.dtype), example())
        extra = {"target": params, "stored": stored, "added": jnp.int32(0)}
        return Learner(params, self.optimizer().init(params), extra)

    def explore(self, actions, update):
        return actions._replace(epsilon=jnp.full_like(actions.epsilon, self.epsilon))

    def update(self, key, learner, apply, carry, trajectory, last_value):
        extra = learner.extra
        stored = jax.tree.map(
            lambda memory, x: memory.at[extra["added"] % CAPACITY].set(x), extra["stored"], (carry, trajectory)
        )
        added = extra["added"] + 1
        drawn = jax.random.randint(key, (), 0, jnp.minimum(added, CAPACITY))
        batch = jax.tree.map(lambda x: x[drawn], stored)
        learner, metrics = apply_gradient(self.optimizer(), learner, self.loss, apply, extra["target"], *batch)
        target = jax.tree.map(lambda x, old: jnp.where(added % 2 == 0, x, old), learner.params, extra["target"])
        return learner._replace(extra={"target": target, "stored": stored, "added": added}), metrics

    def loss(self, params, apply, target_params, carry, batch):
        output = apply(params, carry, batch.obs, batch.reset)[1]
        value = jnp.take_along_axis(output.actions.values, batch.action[..., None], -1)[..., 0][:-1]
        values = apply(target_params, carry, batch.obs, batch.reset)[1].value
        start = jax.tree.map(lambda x: x[:-1], batch)
        target = lambda_returns(start.reward, start.terminated, start.truncated, values[:-1], values[-1], 0.9, 0.5)
        loss = masked_mean(jnp.square(value - target), ~start.ignored)
        return loss, {"loss": loss}


@cache
def programs():
    """(start, segment) of two runs of Replay, compiled once for every learning rate and number of updates."""
    env = TMaze(corridor_len=3)
    init, update = make_train(VectorEnv(env, env.default_params, 4), QNetwork(Flatten(), GRU(8), 4, head_size=8))
    return jax.jit(partial(init_runs, init)), jax.jit(lambda *args: run_updates(update, *args, 5))


def trained(algo, num_updates):
    """(states after 0 and num_updates updates, metrics of these updates)."""
    start, segment = programs()
    algo = repeat(Numbers(algo, None), 2).algo
    state = start(training_keys(SeedLanes(range(2))), algo)
    after, metrics = segment(state, algo, jnp.int32(num_updates))
    return state, after, jax.tree.map(lambda x: x[:num_updates], metrics)


def test_replay_and_target_network_fit_into_a_learner():
    start, state, metrics = trained(Replay(), 5)
    extra, before = state.learner.extra, start.learner.extra
    assert np.isfinite(metrics["loss"]).all() and state.update.tolist() == [5, 5]
    assert extra["added"].tolist() == [5, 5]
    carry, trajectory = extra["stored"]
    assert trajectory.obs.shape[:4] == (2, CAPACITY, 8, 4)
    _, earlier, _ = trained(Replay(), 4)  # update 5 goes to slot 1, with the memory it started from
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[:, 1], y), carry, earlier.actor.carry)
    assert differs(extra["target"], before["target"])
    assert differs(extra["target"], state.learner.params)  # update 5 changed the parameters, not the target


def differs(a, b):
    return any(np.any(x != y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_a_run_whose_numbers_end_does_not_learn_again_from_what_it_stored():
    _, state, metrics = trained(Replay(learning_rate=float("inf")), 4)
    assert state.update.tolist() == [0, 0]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.learner.params))
    assert not np.isfinite(metrics["param_norm"]).any()
    assert all(np.isnan(x).all() for x in jax.tree.leaves(state.learner.extra["target"]))


def test_a_warm_start_has_the_extra_state_too():
    experiment = build(compose(["model=gru", "model.size=8", "policy=q_network", "algo=pqn", "num_steps=8"]))
    env = experiment.env
    params = experiment.policy.init(
        jax.random.key(0), experiment.policy.initialize_carry(1), jnp.zeros((1, 1, *env.observation_space.shape)),
        jnp.ones((1, 1), bool),
    )  # fmt: skip
    experiment = replace(experiment, algo=Replay())
    learner = learners_from(experiment, Blocks(3, 3, mesh_of(1)), params, repeat(Numbers(Replay(), None), 3).algo)
    assert jax.tree.leaves(learner.extra["stored"])[0].shape[:2] == (3, CAPACITY)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[2], y), learner.extra["target"], params)


@pytest.mark.parametrize("name", known_names("algo"))
def test_acting_and_learning_are_one_function(name):
    """Without learning, the metric of the first minibatch is 0, wherever rollouts cut episodes."""
    sizes = ["model=gru", "model.size=8", "policy.head_size=8", "num_steps=16", "num_envs=8"]
    task = ["task.corridor_len=3", "task.time_limit=5", "vector.truncation=bootstrap"]
    experiment = build(compose([f"algo={name}", f"policy={policy_of(name)}", *sizes, *task]))
    init, update = make_train(experiment.env, experiment.policy)
    algo = experiment.algo.replace(learning_rate=0.0)
    state = jax.jit(init)(jax.random.key(0), algo)
    _, metrics = jax.jit(lambda state: jax.lax.scan(lambda s, _: update(s, algo), state, length=3))(state)
    reported = [x for key, x in metrics.items() if key.startswith("first_minibatch_max_abs")]
    assert len(reported) == 1 and np.all(reported[0] < 1e-5)
    assert np.all(metrics.get("max_abs_log_ratio", 0.0) < 1e-5)
    assert np.all(metrics["episodes"] > 0)


@pytest.mark.parametrize("name", known_names("algo"))
def test_learners_of_shipped_algorithms_need_no_example(name):
    algo = build(compose([f"algo={name}", f"policy={policy_of(name)}", "model=gru"])).algo
    learner = algo.init({"w": jnp.ones(3)})
    assert learner.extra == ()
    assert jax.tree.leaves(learner.params)[0].shape == (3,)
