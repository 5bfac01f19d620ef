"""The recurrence of GRU and LSTM has the gradient of a plain scan; the other ones are in test_gradients.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from src_pure.models.rnn import gru_cell, lstm_cell
from src_pure.ops.recurrence import recurrent_scan

T, B, SIZE = 11, 3, 5


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
