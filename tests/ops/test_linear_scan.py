"""The associative form of a linear recurrence against a loop, resets included."""

import jax
import jax.numpy as jnp
import numpy as np

from src_pure.ops.linear_scan import associative_cotangents, associative_states, scan_cotangents

T, B = 37, 5


def test_associative_form_equals_the_loop():
    rng = np.random.default_rng(0)
    initial, inputs, cotangent = (rng.normal(size=shape).astype(np.float32) for shape in ((B,), (T, B), (T, B)))
    decay = np.where(rng.random((T, B)) < 0.2, 0.0, rng.random((T, B))).astype(np.float32)
    states, state = [], initial
    for t in range(T):
        state = decay[t] * state + inputs[t]
        states.append(state)
    np.testing.assert_allclose(jax.jit(associative_states)(initial, decay, inputs), states, rtol=1e-5, atol=1e-6)

    totals, future = [], np.zeros(B, np.float32)
    for t in reversed(range(T)):
        totals.append(future + cotangent[t])
        future = decay[t] * totals[-1]
    for cotangents in (associative_cotangents, scan_cotangents):
        d_initial, d_inputs = jax.jit(cotangents)(jnp.asarray(decay), cotangent)
        np.testing.assert_allclose(d_initial, future, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(d_inputs, totals[::-1], rtol=1e-5, atol=1e-6)
