"""The heads of the policy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from src_pure.distributions import Categorical, EpsilonGreedy, Gaussian
from src_pure.models.encoders import Flatten
from src_pure.models.policy import ActorCritic
from src_pure.models.q_network import QNetwork
from src_pure.models.rnn import GRU


class Nothing(nn.Module):
    """A memory that remembers nothing and passes on what it gets."""

    def initialize_carry(self, batch_size):
        return ()

    def __call__(self, carry, inputs, reset):
        return carry, inputs


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_continuous_actions_have_a_gaussian_whose_deviation_is_learned_and_not_seen(precision):
    policy = ActorCritic(encoder=Flatten(), memory=GRU(8, precision), num_actions=3, continuous=True)
    obs, reset = jax.random.normal(jax.random.key(1), (5, 2, 4)), jnp.zeros((5, 2), bool)
    carry = policy.initialize_carry(2)
    params = policy.init(jax.random.key(0), carry, obs, reset)
    _, (gaussian, value) = policy.apply(params, carry, obs, reset)
    assert isinstance(gaussian, Gaussian) and policy.distribution is Gaussian and value.shape == (5, 2)
    for x in gaussian:
        assert x.shape == (5, 2, 3) and x.dtype == jnp.float32
    np.testing.assert_array_equal(gaussian.log_std, 0.0)
    assert np.unique(gaussian.mean).size == gaussian.mean.size and np.abs(gaussian.mean).max() < 0.1

    params["params"]["log_std"] = jnp.array([-1.0, 0.0, 2.0])
    _, (gaussian, _) = policy.apply(params, carry, obs, reset)
    np.testing.assert_array_equal(gaussian.log_std, np.broadcast_to([-1.0, 0.0, 2.0], (5, 2, 3)))


def test_discrete_actions_have_logits():
    policy = ActorCritic(encoder=Flatten(), memory=GRU(8), num_actions=3)
    args = policy.initialize_carry(2), jnp.zeros((5, 2, 4)), jnp.zeros((5, 2), bool)
    (_, output), variables = jax.eval_shape(lambda: policy.init_with_output(jax.random.key(0), *args))
    assert isinstance(output.actions, policy.distribution) and policy.distribution is Categorical
    assert output.logits.shape == (5, 2, 3) and output.value.shape == (5, 2)
    assert "log_std" not in variables["params"]


@pytest.mark.parametrize("head_size", [None, 8])
def test_a_q_network_is_greedy_and_worth_its_largest_value(head_size):
    policy = QNetwork(encoder=Flatten(), memory=GRU(8), num_actions=3, head_size=head_size)
    obs, reset = jax.random.normal(jax.random.key(1), (5, 2, 4)), jnp.zeros((5, 2), bool)
    carry = policy.initialize_carry(2)
    _, output = policy.apply(policy.init(jax.random.key(0), carry, obs, reset), carry, obs, reset)
    assert isinstance(output.actions, policy.distribution) and policy.distribution is EpsilonGreedy
    assert output.actions.values.shape == (5, 2, 3)
    np.testing.assert_array_equal(output.actions.epsilon, np.zeros((5, 2)))
    np.testing.assert_array_equal(output.value, output.actions.values.max(-1))
    np.testing.assert_array_equal(output.actions.sample(jax.random.key(2)), output.actions.values.argmax(-1))


def test_a_q_network_keeps_the_scale_of_its_memory_out():
    """The layers after the memory are normalised."""
    policy = QNetwork(encoder=Flatten(), memory=Nothing(), num_actions=3)
    obs, reset = jax.random.normal(jax.random.key(1), (5, 2, 4)), jnp.zeros((5, 2), bool)
    params = policy.init(jax.random.key(0), (), obs, reset)
    values = [policy.apply(params, (), scale * obs, reset)[1].actions.values for scale in (10.0, 1000.0)]
    np.testing.assert_allclose(*values, rtol=1e-2, atol=1e-4)


def test_a_q_network_refuses_vectors():
    with pytest.raises(ValueError, match="set policy=actor_critic"):
        QNetwork(encoder=Flatten(), memory=GRU(8), num_actions=3, continuous=True)
