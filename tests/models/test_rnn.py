"""GRU and LSTM against loops, and the published sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from src_pure.conformance import random_params
from src_pure.models.policy import num_parameters
from src_pure.models.rnn import GRU, LSTM
from tests.models import oracles

T, B, D_IN, SIZE = 11, 3, 4, 5


def random_inputs(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(T, B, D_IN)).astype(np.float32), rng.random((T, B)) < 0.2


def test_gru_equals_the_loop():
    inputs, reset = random_inputs()
    model = GRU(SIZE)
    params = random_params(model, model.initialize_carry(B), inputs, reset)
    p = params["params"]
    out = model.apply(params, model.initialize_carry(B), inputs, reset)[1]
    loop = oracles.gru_loop(inputs, reset, p["inputs"]["kernel"], p["inputs"]["bias"], p["kernel"], p["bias"])
    np.testing.assert_allclose(out, loop, rtol=1e-4, atol=1e-5)


def test_lstm_equals_the_loop():
    inputs, reset = random_inputs()
    model = LSTM(SIZE)
    params = random_params(model, model.initialize_carry(B), inputs, reset)
    p = params["params"]
    out = model.apply(params, model.initialize_carry(B), inputs, reset)[1]
    loop = oracles.lstm_loop(inputs, reset, p["inputs"]["kernel"], p["kernel"], p["bias"])
    np.testing.assert_allclose(out, loop, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("model", "count"), [(GRU(680), 1_422_560), (LSTM(600), 1_480_800)])
def test_published_sizes(model, count):
    args = (model.initialize_carry(1), jnp.zeros((1, 1, 16)), jnp.zeros((1, 1), bool))
    assert num_parameters(jax.eval_shape(model.init, jax.random.key(0), *args)) == count
