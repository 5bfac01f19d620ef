"""The recurrence of complex states against NumPy's complex numbers, and what its gradient keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from src_pure.ops.complex_recurrence import Pair, complex_recurrence, zeros
from src_pure.ops.recurrence import linear_recurrence

T, B, M, C = 7, 3, 4, 2


def test_states_and_gradients_of_inputs_that_several_states_share():
    """Written [M, 1] into states [M, C], as FFM does: the states, and each gradient, are those of inputs [M, C]."""
    rng = np.random.default_rng(0)
    initial, decay = (Pair(*rng.normal(size=(2, *shape)).astype(np.float32)) for shape in ((B, M, C), (M, C)))
    keep, written = np.float32(rng.random((T, B)) < 0.8), Pair(*rng.normal(size=(2, T, B, M, 1)).astype(np.float32))
    state, expected = initial.re + 1j * initial.im, []
    for t in range(T):
        state = (decay.re + 1j * decay.im) * keep[t][:, None, None] * state + written.re[t] + 1j * written.im[t]
        expected.append(state)

    def loss(initial, decay, written, size):
        full = jax.tree.map(lambda x: jnp.broadcast_to(x, (T, B, M, size)), written)
        states = complex_recurrence("identity", initial, decay, keep, full)
        return jnp.sum(jnp.sin(states.re) + jnp.cos(states.im)), states

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True), static_argnums=3)
    (shared, states), (full, _) = (gradient(initial, decay, written, size) for size in (1, C))
    np.testing.assert_allclose(states.re + 1j * states.im, expected, rtol=1e-4, atol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), shared, full)


@pytest.mark.parametrize("kind", ["real", "complex", "nonlinear"])
def test_the_gradient_keeps_states_alone(kind):
    """Over 2,048 steps its temporaries are less than 1.5 times its arguments and results."""
    steps, rows, size = 2048, 2, 16
    row, sequence = jnp.zeros((rows, size)), jnp.zeros((steps, rows, size))
    if kind == "real":
        recurrence, arguments = linear_recurrence, (row, sequence, sequence)
    else:
        keep, activation = jnp.ones((steps, rows)), "relu" if kind == "nonlinear" else "identity"

        def recurrence(initial, decay, inputs):
            return complex_recurrence(activation, initial, decay, keep, inputs)

        arguments = (zeros(rows, size), zeros(size), Pair(sequence, sequence))

    def gradient(arguments, cotangent):
        states, pullback = jax.vjp(recurrence, *arguments)
        return states, pullback(cotangent)

    cotangent = jax.eval_shape(recurrence, *arguments)
    memory = jax.jit(gradient).lower(arguments, cotangent).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 1.5 * (memory.argument_size_in_bytes + memory.output_size_in_bytes)
