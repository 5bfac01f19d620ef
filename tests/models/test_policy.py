"""The heads of the policy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from src_pure.models.encoders import Flatten
from src_pure.models.policy import ActorCritic
from src_pure.models.rnn import GRU
from src_pure.types import Gaussian


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_continuous_actions_have_a_gaussian_whose_deviation_is_learned_and_not_seen(precision):
    policy = ActorCritic(encoder=Flatten(), memory=GRU(8, precision), num_actions=3, continuous=True)
    obs, reset = jax.random.normal(jax.random.key(1), (5, 2, 4)), jnp.zeros((5, 2), bool)
    carry = policy.initialize_carry(2)
    params = policy.init(jax.random.key(0), carry, obs, reset)
    _, (gaussian, value) = policy.apply(params, carry, obs, reset)
    assert isinstance(gaussian, Gaussian) and value.shape == (5, 2)
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
    assert output.logits.shape == (5, 2, 3) and output.value.shape == (5, 2)
    assert "log_std" not in variables["params"]
