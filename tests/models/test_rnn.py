"""GRU and LSTM against loops, their gradients against plain differentiation, and the published sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from src_pure.models.policy import num_parameters
from src_pure.models.rnn import GRU, LSTM, gru_cell, lstm_cell
from src_pure.ops.recurrence import recurrent_scan
from tests.models import oracles
from tests.models.random_params import random_params

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


@pytest.mark.parametrize(("cell", "gates", "states"), [(gru_cell, 3, 1), (lstm_cell, 4, 2)])
def test_gradient_equals_that_of_a_plain_scan(cell, gates, states):
    keys = jax.random.split(jax.random.key(0), 5)
    kernel = jax.random.normal(keys[0], (SIZE, gates * SIZE))
    bias = jax.random.normal(keys[1], (gates * SIZE,))
    initial = tuple(jax.random.normal(keys[2], (states, B, SIZE)))
    inputs = jax.random.normal(keys[3], (T, B, gates * SIZE))
    keep = 1.0 - jax.random.bernoulli(keys[4], 0.2, (T, B))

    def plain(kernel, bias, initial, inputs):
        def step(state, x):
            inputs, keep = x
            state = tuple(keep[:, None] * s for s in state)
            state = cell(inputs, state[0] @ kernel + bias, state)
            return state, state[0]

        return lax.scan(step, initial, (inputs, keep))

    def ours(kernel, bias, initial, inputs):
        return recurrent_scan(cell, kernel, bias, initial, inputs, keep)

    def loss(scan, *args):
        last, h = scan(*args)
        return jnp.sum(jnp.sin(h)) + sum(jnp.sum(jnp.cos(x)) for x in last)

    arguments = (kernel, bias, initial, inputs)
    gradient = jax.jit(jax.grad(loss, argnums=(1, 2, 3, 4)), static_argnums=0)
    gradients = [gradient(scan, *arguments) for scan in (ours, plain)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *gradients)


@pytest.mark.parametrize(("model", "count"), [(GRU(680), 1_422_560), (LSTM(600), 1_480_800)])
def test_published_sizes(model, count):
    args = (model.initialize_carry(1), jnp.zeros((1, 1, 16)), jnp.zeros((1, 1), bool))
    assert num_parameters(jax.eval_shape(model.init, jax.random.key(0), *args)) == count
