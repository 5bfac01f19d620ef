"""Matrix memories with one decay per head, in chunks, against loops and against the gradients of a plain scan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from src_pure.ops.delta_rule import DeltaInputs, delta_readout
from src_pure.ops.scalar_decay import CHUNK, ScalarInputs, scalar_readout
from tests.ops import oracles

T, B, H, D, F = CHUNK + 5, 2, 4, 3, 5


def random_inputs(delta, num_steps=T):
    """(state, inputs): decays from almost 1 to e^-50, two resets in a row, one at the border of two chunks."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=(num_steps, B, *shape)), jnp.float32)

    reset = jnp.zeros((num_steps, B), bool).at[jnp.array([3, 4, CHUNK]), 0].set(True)
    log_decay, value = -jnp.exp(3.0 * normal(H) - 3.0).at[7].set(50.0), normal(H, D)
    state = normal(H, D, F)[0]
    if not delta:
        return state, ScalarInputs(reset, log_decay, value, normal(2, F), normal(2, F))
    key = normal(H, F)
    key = key / jnp.linalg.norm(key, axis=-1, keepdims=True)
    rate = jax.nn.sigmoid(5.0 * normal(H)).at[11].set(1.0)
    return state, DeltaInputs(reset, log_decay, rate, value, key, normal(H, F))


def plain(state, inputs):
    """The same by a plain scan."""

    def step(state, x):
        group = state.shape[1] // x.key.shape[1]
        key, query = (jnp.repeat(y, group, axis=1) for y in (x.key, x.query))
        state = jnp.where(x.reset[:, None, None, None], 0.0, jnp.exp(x.log_decay)[..., None, None] * state)
        value = x.value
        if isinstance(x, DeltaInputs):
            value = x.rate[..., None] * (value - jnp.einsum("bhdf,bhf->bhd", state, key))
        state = state + value[..., None] * key[:, :, None]
        return state, jnp.einsum("bhdf,bhf->bhd", state, query)

    return lax.scan(step, state, inputs)


@pytest.mark.parametrize(("readout", "delta"), [(scalar_readout, False), (delta_readout, True)])
def test_values_equal_the_loop_and_gradients_the_plain_scan(readout, delta):
    state, inputs = random_inputs(delta)
    targets = [jnp.cos(jnp.arange(x.size, dtype=jnp.float32)).reshape(x.shape) for x in (state, inputs.value)]

    def loss(function, state, floats):
        out = function(state, floats._replace(reset=inputs.reset))
        return sum(jnp.vdot(x, y) for x, y in zip(out, targets, strict=True)), out

    def gradients(function):
        floats = inputs._replace(reset=None)
        return jax.jit(jax.grad(lambda *args: loss(function, *args), argnums=(0, 1), has_aux=True))(state, floats)

    (ours, out), (wanted, _) = gradients(readout), gradients(plain)
    for found, loop in zip(out, oracles.decay_loop(state, inputs), strict=True):
        np.testing.assert_allclose(found, loop, rtol=1e-5, atol=1e-5)
    for found, scanned in zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(found, scanned, rtol=1e-4, atol=1e-5 * np.max(np.abs(scanned)))


@pytest.mark.slow
@pytest.mark.parametrize(("readout", "delta"), [(scalar_readout, False), (delta_readout, True)])
def test_temporaries_of_the_gradient_are_fewer_than_its_inputs_and_outputs(readout, delta):
    """T = 2,048, heads of 64 x 64: every state of the sequence would be 20 times as large."""
    state, inputs = jax.eval_shape(lambda: random_inputs(delta, 2048))
    wide = {"value": (H, 64), "key": (H, 64), "query": (H, 64)}
    inputs = inputs._replace(**{key: jax.ShapeDtypeStruct((2048, B, *x), jnp.float32) for key, x in wide.items()})
    state = jax.ShapeDtypeStruct((B, H, 64, 64), jnp.float32)

    def loss(floats, state, reset):
        return jnp.sum(jnp.sin(readout(state, floats._replace(reset=reset))[1]))

    program = jax.jit(jax.grad(loss)).lower(inputs._replace(reset=None), state, inputs.reset).compile()
    memory = program.memory_analysis()
    assert memory.temp_size_in_bytes < memory.argument_size_in_bytes + memory.output_size_in_bytes
