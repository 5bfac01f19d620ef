"""The training program: one compilation, independent runs, segments that add up, an exact ratio."""

from functools import cache, partial
from itertools import pairwise
from operator import itemgetter

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from src_pure import evaluate
from src_pure.algos.a2c import A2C
from src_pure.algos.ppo import PPO
from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.config.names import known_names
from src_pure.config.targets import instantiate
from src_pure.envs.mystery_path import MysteryPath
from src_pure.envs.tmaze import TMaze, TMazeParams
from src_pure.envs.vector import VectorEnv
from src_pure.evaluate import make_evaluate
from src_pure.lanes import Numbers, SeedLanes, evaluation_keys, repeat, training_keys
from src_pure.models.adaptive_computation import AdaptiveTransformer
from src_pure.models.agalite import AGaLiTe
from src_pure.models.encoders import Flatten
from src_pure.models.policy import ActorCritic
from src_pure.models.rnn import GRU
from src_pure.runs.policies import params_of
from src_pure.train import init_runs, make_train, run_updates
from tests.probes import Probe, probe_params

SMALL = PPO(num_steps=8, num_minibatches=2, update_epochs=2)


def make(memory, num_envs=4, truncation="terminate", time_limit=None):
    env = TMaze(corridor_len=3, time_limit=time_limit)
    env = VectorEnv(env, env.default_params, num_envs, truncation)
    return env, ActorCritic(Flatten(), memory, 4, head_size=16)


@jax.jit
def train_runs(keys, learning_rates):
    """(state, metrics) after two updates, with one run for each key and learning rate."""
    init, update = make_train(*make(GRU(8)))
    algo = repeat(Numbers(SMALL, None), len(keys)).algo.replace(learning_rate=learning_rates)
    return run_updates(update, init_runs(init, keys, algo), algo, 2, 2)


def assert_close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), a, b)


def numbers(state):
    return jax.tree.map(lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x, state)


@jax.jit
def train_tasks(keys, tasks):
    """(state, metrics, scores) after two updates and an evaluation, one run for each key and numbers of the task."""
    env, policy = make(GRU(8))
    init, update = make_train(env, policy)
    algo = repeat(Numbers(SMALL, None), len(keys)).algo
    state, metrics = run_updates(update, init_runs(init, keys, algo, tasks), algo, 2, 2, tasks)
    evaluate = make_evaluate(env, policy, max_steps=20)
    scores = jax.vmap(lambda key, params, task: evaluate(key, params, False, task))(keys, state.learner.params, tasks)
    return state, metrics, scores


def train_corridor(key, corridor_len, time_limit):
    """The same for one run, with an environment built with these numbers."""
    env = TMaze(corridor_len=corridor_len, time_limit=time_limit)
    env, (_, policy) = VectorEnv(env, env.default_params, 4), make(GRU(8))
    init, update = make_train(env, policy)
    algo = repeat(Numbers(SMALL, None), 1).algo
    state, metrics = run_updates(update, init_runs(init, key[None], algo), algo, 2, 2)
    state, metrics = jax.tree.map(lambda x: x[0], state), jax.tree.map(lambda x: x[:, 0], metrics)
    return state, metrics, make_evaluate(env, policy, max_steps=20)(key, state.learner.params, False)


@pytest.mark.slow
def test_corridors_side_by_side_equal_each_corridor_alone():
    """Numbers of the task may be traced; integers stay integers."""
    lengths, limits, keys = [1, 6], [4, 9], training_keys(SeedLanes([0, 0]))
    state, metrics, scores = train_tasks(keys, TMazeParams(jnp.array(lengths), jnp.array(limits)))
    assert state.actor.env_state.env.position.dtype == jnp.int32
    together = (state.actor.env_state, jax.tree.map(lambda x: x.T, metrics), scores)
    for run, key in enumerate(keys):
        alone = jax.jit(train_corridor, static_argnums=(1, 2))(key, lengths[run], limits[run])
        alone = (alone[0].actor.env_state, *alone[1:])
        assert_close(jax.tree.map(itemgetter(run), together), alone)


@pytest.mark.slow
def test_runs_together_equal_runs_alone():
    """Runs with different seeds and settings in one program learn what each learns alone.

    Here the whole state; tests/test_lanes.py compares what a training reports.
    """
    keys, rates = training_keys(SeedLanes([5, 6, 6])), jnp.array([1e-3, 1e-3, 1e-2])
    together, metrics = train_runs(keys, rates)
    for i in range(3):
        alone, own_metrics = train_runs(keys[i : i + 1], rates[i : i + 1])
        assert_close(jax.tree.map(lambda x, i=i: x[i], numbers(together)), jax.tree.map(lambda x: x[0], numbers(alone)))
        assert_close(jax.tree.map(lambda x, i=i: x[:, i], metrics), jax.tree.map(lambda x: x[:, 0], own_metrics))
    kernels = together.learner.params["params"]["actor"]["kernel"]
    assert not np.allclose(kernels[0], kernels[1])
    assert not np.allclose(kernels[1], kernels[2])


@pytest.mark.slow
def test_a_run_whose_numbers_end_stays_as_it_was_and_the_others_go_on():
    keys, rates = training_keys(SeedLanes([5, 6, 7])), jnp.array([1e-3, 1e38, 1e-3])
    together, metrics = train_runs(keys, rates)
    healthy, _ = train_runs(keys, jnp.full(3, 1e-3))
    assert together.update.tolist() == [2, 0, 2]
    assert not np.isfinite(metrics["param_norm"][:, 1]).any()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(together.learner.params))
    for run in (0, 2):
        own, wanted = (jax.tree.map(lambda x, run=run: x[run], numbers(state)) for state in (together, healthy))
        jax.tree.map(np.testing.assert_array_equal, own, wanted)


def test_segments_of_any_length_are_one_program_and_one_training():
    """The state that goes from one to the next holds arrays only."""
    init, update = make_train(*make(GRU(8)))
    algo = repeat(Numbers(SMALL, None), 2).algo
    state = jax.jit(partial(init_runs, init))(training_keys(SeedLanes([0, 1])), algo)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def segment(state, num_updates):
        return run_updates(update, state, algo, num_updates, 4)

    whole, metrics = segment(state, jnp.int32(3))
    part, first = segment(state, jnp.int32(1))
    part, rest = segment(part, jnp.int32(2))
    jax.tree.map(np.testing.assert_array_equal, numbers(whole), numbers(part))
    jax.tree.map(
        lambda a, b, c: np.testing.assert_array_equal(a[:3], np.concatenate([b[:1], c[:2]])), metrics, first, rest
    )
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(whole))
    assert whole.update.dtype == jnp.int32
    assert whole.update.tolist() == [3, 3]


def one_name_per_class():
    """One name in configs/model for each class, because sizes do not matter here."""
    targets = {compose([f"model={name}"])["model"]["_target_"]: name for name in known_names("model")}
    return [name for _, name in sorted(targets.items())]


@pytest.mark.slow
@pytest.mark.parametrize("name", one_name_per_class())
def test_ratio_stays_one_without_learning(name):
    """Acting step by step and learning from sequences compute the same, wherever rollouts cut episodes.

    tests/algos/test_learners.py shows it for every algorithm with one model, tests/models/test_contract.py that steps
    and sequences of a model agree.
    """
    config = compose([f"model={name}"])["model"]
    if "num_layers" in config:
        config |= {"num_layers": 1}
    env, policy = make(instantiate(config, "model"), truncation="bootstrap", time_limit=5)
    init, update = make_train(env, policy)
    algo = PPO(learning_rate=0.0, num_steps=16, num_minibatches=2, update_epochs=2)
    state = jax.jit(init)(jax.random.key(0), algo)
    _, metrics = jax.jit(lambda state: jax.lax.scan(lambda s, _: update(s, algo), state, length=3))(state)
    assert np.all(metrics["max_abs_log_ratio"] < 1e-5)
    assert np.all(metrics["episodes"] > 0)


@pytest.mark.parametrize("algo", [SMALL, A2C(num_steps=8)])
def test_learning_rate_anneals_to_zero_and_stays_there(algo):
    steps = algo.update_epochs * algo.num_minibatches if isinstance(algo, PPO) else 1
    algo = algo.replace(anneal_lr=True, num_updates=4, learning_rate=0.1, max_grad_norm=jnp.inf)
    optimizer = algo.optimizer()
    params = jnp.zeros(())
    opt_state = optimizer.init(params)
    sizes = []
    for _ in range(6 * steps):
        updates, opt_state = optimizer.update(jnp.ones(()), opt_state, params)
        sizes.append(-float(updates))
    np.testing.assert_allclose(sizes[::steps], [0.1, 0.075, 0.05, 0.025, 0.0, 0.0], rtol=1e-3, atol=1e-7)


@pytest.mark.slow
def test_many_runs_of_a_deep_model_initialise():
    """Parallel QR factorisations in one program have hung on CPU."""
    init, _ = make_train(*make(AGaLiTe(num_layers=4, d_model=16, num_heads=2, d_head=8, d_ffc=16)))
    initialise = jax.jit(partial(init_runs, init))
    for attempt in range(10):
        jax.block_until_ready(
            initialise(
                training_keys(SeedLanes(range(64 * attempt, 64 * attempt + 64))), repeat(Numbers(SMALL, None), 64).algo
            )
        )


@cache
def programs_of_evaluation():
    """(the state at the start, score(key, params, greedy, max_steps)) for 64 environments."""
    env, policy = make(GRU(8), num_envs=64)
    state = jax.jit(make_train(env, policy)[0])(jax.random.key(0), SMALL)

    def score(key, params, greedy, max_steps):
        return make_evaluate(env, policy, max_steps)(key, params, greedy)

    return state, jax.jit(score)


def test_evaluation_reads_parameters_alone():
    """Each environment plays one episode; the same key gives the same score; greedy is not sampled."""
    state, score = programs_of_evaluation()
    before = numbers(state)
    sampled, again, greedy = (
        score(jax.random.key(1), state.learner.params, greedy, 1000) for greedy in (False, False, True)
    )
    jax.tree.map(np.testing.assert_array_equal, before, numbers(state))
    jax.tree.map(np.testing.assert_array_equal, sampled, again)
    assert (sampled["episodes"], sampled["unfinished"]) == (64, 0)
    assert greedy["sum/episode_length"] != sampled["sum/episode_length"]


@pytest.mark.parametrize("greedy", [False, True])
def test_the_last_episodes_of_an_evaluation_get_the_numbers_of_all(monkeypatch, greedy):
    """Whether or not the network acts in a few environments alone at the end."""
    state, score = programs_of_evaluation()
    found = score(jax.random.key(1), state.learner.params, greedy, 300)
    monkeypatch.setattr(evaluate, "FEW", 65)
    all_act = jax.jit(make_evaluate(*make(GRU(8), num_envs=64), 300))
    jax.tree.map(np.testing.assert_array_equal, found, all_act(jax.random.key(1), state.learner.params, greedy))
    assert found["episodes"] == 64


def evaluation_of_worlds():
    """(experiment, parameters) of an environment whose worlds take long to compile."""
    options = ["task.observation=symbolic", "task.time_limit=6", "evaluation.num_episodes=32"]
    built = build(compose(["task=mysterypath", "model=gru", "model.size=8", *options]))
    return built, jax.tree.map(lambda x: jnp.full(x.shape, 0.01, x.dtype), params_of(built))


def test_evaluation_makes_worlds_in_one_place(monkeypatch):
    """Each call while tracing is another copy to compile."""
    calls, reset_env = [], MysteryPath.reset_env
    monkeypatch.setattr(MysteryPath, "reset_env", lambda *args: calls.append(1) or reset_env(*args))
    built, params = evaluation_of_worlds()
    jax.eval_shape(make_evaluate(built.evaluation_env, built.policy, 10), jax.random.key(0), params, False)
    assert len(calls) == 1


@pytest.mark.slow
def test_how_evaluation_makes_worlds_changes_no_score():
    """Evaluation ignores everything after the first episodes."""
    built, params = evaluation_of_worlds()
    environments = (built.evaluation_env, built.evaluation_env.replace(resets="on_demand"))
    scores = [jax.jit(make_evaluate(env, built.policy, 10))(jax.random.key(0), params, False) for env in environments]
    assert scores[0].pop("sum/shared_world") == 0
    assert scores[0]["episodes"] == 32
    jax.tree.map(np.testing.assert_array_equal, *scores)


def test_episodes_that_are_cut_off_count_as_far_as_they_came():
    """Cutting off one step later adds one to the sum of lengths for each episode still playing."""
    state, score = programs_of_evaluation()
    scores = [score(jax.random.key(1), state.learner.params, False, max_steps) for max_steps in range(1, 30)]
    assert scores[0]["sum/episode_length"] == 64
    assert 0 < scores[-1]["unfinished"] < scores[5]["unfinished"] < 64
    for before, after in pairwise(scores):
        assert after["episodes"] == 64
        assert after["sum/episode_length"] - before["sum/episode_length"] == before["unfinished"]
        assert after["sum/success"] <= 64 - after["unfinished"]


def test_an_episode_that_is_cut_off_is_not_solved():
    """Even if its last step reports success: here every step does, and earns 1."""
    probe = probe_params("endless", length=5)
    env = VectorEnv(Probe(), probe, 4)
    policy = ActorCritic(Flatten(), GRU(4), 2, head_size=None)
    params = policy.init(jax.random.key(0), policy.initialize_carry(1), jnp.zeros((1, 1, 2)), jnp.ones((1, 1), bool))
    score = jax.jit(lambda steps: make_evaluate(env, policy, steps)(jax.random.key(1), params, False))
    cut, whole = score(3), score(5)
    assert (cut["episodes"], cut["unfinished"], cut["sum/success"], cut["sum/episode_return"]) == (4, 4, 0, 12)
    assert (whole["episodes"], whole["unfinished"], whole["sum/success"], whole["sum/episode_return"]) == (4, 0, 4, 20)


def test_evaluation_shares_no_randomness_with_training():
    train, evaluation = training_keys(SeedLanes([3])), evaluation_keys(SeedLanes([3]), 5)
    used = {
        tuple(row) for key in (train[0], *jax.random.split(train[0], 64)) for row in [jax.random.key_data(key).tolist()]
    }
    assert tuple(jax.random.key_data(evaluation[0]).tolist()) not in used
    assert not np.array_equal(jax.random.key_data(evaluation), jax.random.key_data(evaluation_keys(SeedLanes([3]), 6)))


def test_what_a_model_sows_is_a_metric():
    init, update = make_train(*make(AdaptiveTransformer(2, 1.0, 8, 1, 8, 8, memory_len=4)))
    state = jax.eval_shape(init, jax.random.key(0), SMALL)
    assert set(state.learner.params) == {"params"}
    assert "ponder_steps" in jax.eval_shape(update, state, SMALL)[1]


@pytest.mark.slow
@pytest.mark.parametrize(("threshold", "expected"), [(1.0, 2.0), (0.0, 1.0)])
def test_mean_ponder_steps(threshold, expected):
    """One iteration if the first reaches the threshold, all of them if no sum does."""
    init, update = make_train(*make(AdaptiveTransformer(2, threshold, 8, 1, 8, 8, memory_len=4)))
    state = jax.jit(init)(jax.random.key(0), SMALL)
    assert jax.jit(update)(state, SMALL)[1]["ponder_steps"] == expected
