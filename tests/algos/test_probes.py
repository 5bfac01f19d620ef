"""PPO and A2C on probe environments with known values."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from src_pure.algos.a2c import A2C
from src_pure.algos.ppo import PPO
from src_pure.envs.vector import VectorEnv
from src_pure.models.encoders import Flatten
from src_pure.models.policy import ActorCritic
from src_pure.models.rnn import GRU, MLP
from src_pure.train import make_train
from tests.probes import Probe

GAMMA = 0.9
ALGOS = {
    "ppo": PPO(learning_rate=3e-3, gamma=GAMMA, ent_coef=0.0, num_steps=16, num_minibatches=2, clip_value=False),
    "a2c": A2C(learning_rate=3e-3, gamma=GAMMA, ent_coef=0.0, num_steps=16),
}
NUM_UPDATES = {"ppo": 60, "a2c": 400}


@partial(jax.jit, static_argnames=("name", "probe", "memory", "truncation", "num_updates"))
def learn(name, probe, memory, truncation="terminate", num_updates=None):
    """(apply, params) after training on a probe."""
    env = VectorEnv(probe, probe.default_params, 16, truncation)
    policy = ActorCritic(Flatten(), memory, 2, head_size=32)
    init, update = make_train(env, policy)
    algo = ALGOS[name]
    state = init(jax.random.key(0), algo)
    state, _ = jax.lax.scan(lambda state, _: update(state, algo), state, length=num_updates or NUM_UPDATES[name])
    return state.learner.params


def outputs(params, memory, observations):
    """PolicyOutput with leaves [T, ...] for one episode of observations [T, 2]."""
    policy = ActorCritic(Flatten(), memory, 2, head_size=32)
    obs = jnp.asarray(observations, jnp.float32)[:, None]
    reset = jnp.arange(len(observations))[:, None] == 0
    output = policy.apply(params, policy.initialize_carry(1), obs, reset)[1]
    return jax.tree.map(lambda x: x[:, 0], output)


@pytest.mark.parametrize("name", ALGOS)
def test_constant_reward(name):
    params = learn(name, Probe("constant"), MLP(32))
    np.testing.assert_allclose(outputs(params, MLP(32), [[0, 0]]).value, [1.0], atol=0.1)


@pytest.mark.parametrize("name", ALGOS)
def test_reward_depends_on_the_observation(name):
    params = learn(name, Probe("observed"), MLP(32))
    values = [outputs(params, MLP(32), [[sign, 0]]).value[0] for sign in (1, -1)]
    np.testing.assert_allclose(values, [1.0, -1.0], atol=0.15)


@pytest.mark.parametrize("name", ALGOS)
def test_reward_is_discounted(name):
    params = learn(name, Probe("constant", length=2), MLP(32))
    np.testing.assert_allclose(outputs(params, MLP(32), [[0, 0], [0, 1]]).value, [GAMMA, 1.0], atol=0.1)


@pytest.mark.parametrize("name", ALGOS)
def test_reward_depends_on_the_action(name):
    params = learn(name, Probe("action"), MLP(32))
    output = outputs(params, MLP(32), [[0, 0]])
    assert jax.nn.softmax(output.logits)[0, 1] > 0.95
    np.testing.assert_allclose(output.value, [1.0], atol=0.15)


@pytest.mark.parametrize("name", ALGOS)
def test_action_must_match_the_observation(name):
    params = learn(name, Probe("match"), MLP(32))
    for sign, right in ((1, 1), (-1, 0)):
        assert jax.nn.softmax(outputs(params, MLP(32), [[sign, 0]]).logits)[0, right] > 0.9


@pytest.mark.parametrize("name", ALGOS)
def test_action_must_match_what_was_seen(name):
    """With a memory the right action is known three steps later, without one it cannot be."""
    probe = Probe("remember", length=4)
    params = learn(name, probe, GRU(32), num_updates=2 * NUM_UPDATES[name])
    blind = learn(name, probe, MLP(32))
    for sign, right in ((1, 1), (-1, 0)):
        episode = [[sign, 0], [0, 1], [0, 2], [0, 3]]
        assert jax.nn.softmax(outputs(params, GRU(32), episode).logits)[-1, right] > 0.9
    same = [outputs(blind, MLP(32), [[sign, 0], [0, 3]]).logits[-1] for sign in (1, -1)]
    np.testing.assert_array_equal(*same)


@pytest.mark.parametrize("name", ALGOS)
@pytest.mark.parametrize(("truncation", "value"), [("bootstrap", 1 / (1 - GAMMA)), ("terminate", 1.0)])
def test_a_time_limit_is_no_end_where_it_is_bootstrapped(name, truncation, value):
    """Reward 1 for ever is worth 1 / (1 - gamma); taken for an end after one step, it is worth 1."""
    probe = Probe("endless", length=1)
    params = learn(name, probe, MLP(32), truncation, num_updates=4 * NUM_UPDATES[name])
    np.testing.assert_allclose(outputs(params, MLP(32), [[0, 0]]).value, [value], rtol=0.1)
