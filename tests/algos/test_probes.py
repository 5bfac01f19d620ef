"""Every algorithm of configs/algo on probe environments with known values."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.config.names import known_names
from src_pure.config.targets import instantiate
from src_pure.envs.vector import VectorEnv
from src_pure.models.encoders import Flatten
from src_pure.models.policy import ActorCritic
from src_pure.models.rnn import GRU, MLP
from src_pure.train import make_train
from tests.partners import policy_of
from tests.probes import Aim, Probe, probe_params

GAMMA = 0.5
NUM_UPDATES = {"a2c": 400}  # makes only one gradient step per update
QUICK = {"ent_coef": 0.0, "num_minibatches": 2, "update_epochs": 4}  # for algorithms that have these


def algorithm(name):
    """The algorithm from a file, with settings that learn a probe quickly."""
    config = compose([f"algo={name}", f"policy={policy_of(name)}", "model=mlp"])
    quick = {key: value for key, value in QUICK.items() if key in config["algo"]}
    algo = build(config).algo.replace(learning_rate=3e-3, gamma=GAMMA, num_steps=16, **quick)
    return algo.replace(num_updates=NUM_UPDATES.get(name, 60))


ALGOS = {name: algorithm(name) for name in known_names("algo")}
MEMORIES = {"gru": GRU(32), "mlp": MLP(32)}
PROBES = {
    "constant": probe_params("constant"),
    "delayed": probe_params("constant", length=2),
    "observed": probe_params("observed"),
    "action": probe_params("action"),
    "match": probe_params("match"),
    "remember": probe_params("remember", length=4),
    "endless": probe_params("endless"),
}


def policy_for(name, memory):
    """The policy for an algorithm; with tanh, because relu passes nothing on if an observation is 0."""
    head = {"head_size": 32, "head_activation": "tanh"}
    config = compose([f"policy={policy_of(name)}"])["policy"] | head
    return instantiate(config, "policy", encoder=Flatten(), memory=MEMORIES[memory], num_actions=2)


@partial(jax.jit, static_argnames=("name", "memory", "truncation"))
@partial(jax.vmap, in_axes=(None, None, None, 0, None))
def learn(name, memory, truncation, probe, num_updates):
    """Parameters after training on each probe, all in one program."""
    env = VectorEnv(Probe(), probe, 16, truncation)
    init, update = make_train(env, policy_for(name, memory))
    algo = ALGOS[name]
    state = init(jax.random.key(0), algo)
    return jax.lax.fori_loop(0, num_updates, lambda _, state: update(state, algo)[0], state).learner.params


@cache
def learned(name, memory="mlp", truncation="bootstrap", probes=tuple(PROBES), duration=1):
    """The trained parameters, by name of the probe."""
    probe = jax.tree.map(lambda *x: jnp.array(x), *(PROBES[name] for name in probes))
    params = learn(name, memory, truncation, probe, duration * NUM_UPDATES.get(name, 60))
    return {probe: jax.tree.map(lambda x, i=i: x[i], params) for i, probe in enumerate(probes)}


def outputs(name, params, observations, memory="mlp"):
    """PolicyOutput with leaves [T, ...] for one episode of observations [T, 2]."""
    policy = policy_for(name, memory)
    obs = jnp.asarray(observations, jnp.float32)[:, None]
    reset = jnp.arange(len(observations))[:, None] == 0
    output = policy.apply(params, policy.initialize_carry(1), obs, reset)[1]
    return jax.tree.map(lambda x: x[:, 0], output)


def probability(output, action):
    """The probability [T] of an action."""
    return jnp.exp(output.actions.log_prob(jnp.full(output.value.shape, action)))


@pytest.mark.parametrize("name", ALGOS)
def test_constant_reward(name):
    np.testing.assert_allclose(outputs(name, learned(name)["constant"], [[0, 0]]).value, [1.0], atol=0.1)


@pytest.mark.parametrize("name", ALGOS)
def test_reward_depends_on_the_observation(name):
    values = [outputs(name, learned(name)["observed"], [[sign, 0]]).value[0] for sign in (1, -1)]
    np.testing.assert_allclose(values, [1.0, -1.0], atol=0.15)


@pytest.mark.parametrize("name", ALGOS)
def test_reward_is_discounted(name):
    np.testing.assert_allclose(outputs(name, learned(name)["delayed"], [[0, 0], [0, 1]]).value, [GAMMA, 1.0], atol=0.1)


@pytest.mark.parametrize("name", ALGOS)
def test_reward_depends_on_the_action(name):
    output = outputs(name, learned(name)["action"], [[0, 0]])
    assert probability(output, 1)[0] > 0.95
    np.testing.assert_allclose(output.value, [1.0], atol=0.15)


@pytest.mark.parametrize("name", ALGOS)
def test_action_must_match_the_observation(name):
    for sign, right in ((1, 1), (-1, 0)):
        assert probability(outputs(name, learned(name)["match"], [[sign, 0]]), right)[0] > 0.9


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "ppo")) for name in ALGOS])
def test_action_must_match_what_was_seen(name):
    """With a memory the agent still knows the right action three steps later; without one it cannot."""
    params = learned(name, "gru", probes=("remember",), duration=2)["remember"]
    for sign, right in ((1, 1), (-1, 0)):
        episode = [[sign, 0], [0, 1], [0, 2], [0, 3]]
        assert probability(outputs(name, params, episode, "gru"), right)[-1] > 0.9
    blind = [outputs(name, learned(name)["remember"], [[sign, 0], [0, 3]]).logits for sign in (1, -1)]
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[-1], y[-1]), *blind)


@pytest.mark.parametrize("name", ALGOS)
def test_a_time_limit_is_no_end_where_it_is_bootstrapped(name):
    """Reward 1 forever is worth 1 / (1 - gamma)."""
    np.testing.assert_allclose(outputs(name, learned(name)["endless"], [[0, 0]]).value, [1 / (1 - GAMMA)], rtol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALGOS)
def test_a_time_limit_is_an_end_where_it_terminates(name):
    """Reward 1 forever is worth 1 if the limit counts as an end after one step."""
    params = learned(name, truncation="terminate", probes=("endless",))["endless"]
    np.testing.assert_allclose(outputs(name, params, [[0, 0]]).value, [1.0], rtol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ALGOS if policy_of(name) == "actor_critic"])
def test_a_vector_must_match_the_observation(name):
    """The mean moves to the target, the deviation shrinks, and the value equals its remaining cost."""
    policy = ActorCritic(Flatten(), MLP(32), 2, head_size=32, continuous=True)
    init, update = make_train(VectorEnv(Aim(), (), 16), policy)
    algo = ALGOS[name]

    @jax.jit
    def learn(key):
        return jax.lax.fori_loop(0, NUM_UPDATES.get(name, 60), lambda _, state: update(state, algo)[0], init(key, algo))

    obs = jnp.array([[[0.5], [-0.5]]])
    params = learn(jax.random.key(0)).learner.params
    gaussian, value = policy.apply(params, policy.initialize_carry(2), obs, jnp.ones((1, 2), bool))[1]
    np.testing.assert_allclose(gaussian.mean, jnp.repeat(obs, 2, axis=-1), atol=0.1)
    assert gaussian.log_std.max() < -0.2
    np.testing.assert_allclose(value, -jnp.exp(2 * gaussian.log_std).sum(-1), atol=0.3)
