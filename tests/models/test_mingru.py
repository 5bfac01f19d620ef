"""MinGRU against a loop, and the published sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from src_pure.conformance import random_params
from src_pure.models.mingru import MinGRU
from src_pure.models.policy import num_parameters
from src_pure.models.rnn import GRU
from tests.models import oracles

T, B, D_IN = 11, 3, 4


def num_parameters_of(model, width):
    args = (model.initialize_carry(1), jnp.zeros((1, 1, width)), jnp.zeros((1, 1), bool))
    return num_parameters(jax.eval_shape(model.init, jax.random.key(0), *args))


@pytest.mark.parametrize("model", [MinGRU(5), MinGRU(5, 2, expansion=2, residual="highway")])
def test_equals_the_loop(model):
    rng = np.random.default_rng(0)
    inputs, reset = rng.normal(size=(T, B, D_IN)).astype(np.float32), rng.random((T, B)) < 0.2
    carry = model.initialize_carry(B)
    params = random_params(model, carry, inputs, reset)
    out = jax.jit(model.apply)(params, carry, inputs, reset)[1]
    np.testing.assert_allclose(out, oracles.mingru_loop(params["params"], model, inputs, reset), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("size", "num_layers", "count"), [(1024, 4, 12_582_912), (256, 5, 983_040)])
def test_sizes_of_the_craftax_recipes(size, num_layers, count):
    """PufferLib's configurations craftax_1024 and craftax_1m, without the layer that embeds."""
    embedding = (16 + 1) * size
    assert num_parameters_of(MinGRU(size, num_layers, residual="highway"), 16) == count + embedding


def test_a_third_of_the_kernels_of_a_gru():
    """Section 3.1.3 of the paper, for equally wide inputs and states."""
    biases = {"gru": 4 * 128, "mingru": 2 * 128}
    kernels = {"gru": num_parameters_of(GRU(128), 128), "mingru": num_parameters_of(MinGRU(128), 128)}
    assert 3 * (kernels["mingru"] - biases["mingru"]) == kernels["gru"] - biases["gru"]
