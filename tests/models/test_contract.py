"""What every memory model promises (src_pure/models/base.py), for every file in configs/model."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from src_pure.build import compose, instantiate, known_names
from tests.models.random_params import random_params

T, B, D_IN = 40, 3, 6
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


@cache
def prepared(name):
    """(initial carry, apply, inputs, reset, outputs) of a model whose parameters are far from their initial values."""
    model = instantiate(compose([f"model={name}"])["model"], "model", "initialize_carry")
    key_inputs, key_reset = jax.random.split(jax.random.key(0))
    inputs = jax.random.normal(key_inputs, (T, B, D_IN))
    reset = jax.random.bernoulli(key_reset, 0.1, (T, B))
    carry = model.initialize_carry(B)
    params = random_params(model, carry, inputs, reset)
    apply = jax.jit(lambda carry, inputs, reset: model.apply(params, carry, inputs, reset))
    return carry, apply, inputs, reset, apply(carry, inputs, reset)[1]


@pytest.fixture(params=known_names("model"))
def model(request):
    return prepared(request.param)


@pytest.mark.parametrize("length", [1, 13])
def test_chunks_equal_the_sequence(model, length):
    carry, apply, inputs, reset, expected = model
    outputs = []
    for start in range(0, T - T % length, length):
        carry, out = apply(carry, inputs[start : start + length], reset[start : start + length])
        outputs.append(out)
    outputs = jnp.concatenate(outputs)
    np.testing.assert_allclose(outputs, expected[: len(outputs)], **TOLERANCE)


def test_reset_is_a_fresh_start(model):
    fresh, apply, inputs, reset, _ = model
    used, _ = apply(fresh, inputs, reset)
    starting = reset.at[0].set(True)
    np.testing.assert_allclose(apply(used, inputs, starting)[1], apply(fresh, inputs, starting)[1], **TOLERANCE)
    within = reset.at[T // 2].set(True)  # the second half must not know the first
    other = inputs.at[: T // 2].add(1.0)
    halves = [apply(fresh, x, within)[1][T // 2 :] for x in (inputs, other)]
    np.testing.assert_allclose(*halves, **TOLERANCE)


def test_outputs_do_not_depend_on_the_future(model):
    carry, apply, inputs, reset, expected = model
    out = apply(carry, inputs.at[T // 2 :].add(1.0), reset)[1]
    np.testing.assert_array_equal(out[: T // 2], expected[: T // 2])
    assert np.any(np.asarray(out[T // 2 :] != expected[T // 2 :]))


def test_rows_do_not_mix(model):
    carry, apply, inputs, reset, expected = model
    out = apply(carry, inputs.at[:, 0].add(1.0), reset.at[:, 0].set(True))[1]
    np.testing.assert_allclose(out[:, 1:], expected[:, 1:], **TOLERANCE)


def test_carry_keeps_its_form(model):
    carry, apply, inputs, reset, expected = model
    assert expected.shape[:2] == (T, B)
    assert expected.dtype == jnp.float32
    for length in (1, T):
        new_carry = apply(carry, inputs[:length], reset[:length])[0]
        assert jax.tree.structure(new_carry) == jax.tree.structure(carry)
        for new, old in zip(jax.tree.leaves(new_carry), jax.tree.leaves(carry), strict=True):
            assert (new.shape, new.dtype) == (old.shape, old.dtype)
            assert new.shape[0] == B


def test_memory_is_used(request):
    """Only the control forgets: every other model's last output changes with the first input."""
    for name in known_names("model"):
        carry, apply, inputs, _, _ = prepared(name)
        never = jnp.zeros((8, B), bool)
        ends = [apply(carry, x, never)[1][-1] for x in (inputs[:8], inputs[:8].at[0].add(1.0))]
        assert np.array_equal(*ends) == (name == "mlp"), name
