"""LRU, S5, RTU and FFM against loops over complex numbers, how they start, and how many parameters they have."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from src_pure.conformance import random_params
from src_pure.models.ffm import FFM
from src_pure.models.lru import LRU
from src_pure.models.policy import num_parameters
from src_pure.models.rtu import RTU
from src_pure.models.s5 import S5, hippo
from tests.models import oracles

T, B, D_IN = 9, 2, 3
LOOPS = {
    "lru": (LRU(2, 6, 4), partial(oracles.glu_stack_loop, step=oracles.lru_step, num_layers=2)),
    "s5": (S5(2, 6, 8, num_blocks=2), partial(oracles.glu_stack_loop, step=oracles.s5_step, num_layers=2)),
    "rtu, linear": (RTU(6), partial(oracles.rtu_loop, recurrence="linear")),
    "rtu, nonlinear": (RTU(6, "nonlinear"), partial(oracles.rtu_loop, recurrence="nonlinear")),
    "ffm": (FFM(5, 3, 2), oracles.ffm_loop),
}


def fresh_params(model, width=16):
    """The structure of the parameters, without their values."""
    args = (model.initialize_carry(1), jnp.zeros((1, 1, width)), jnp.zeros((1, 1), bool))
    return partial(model.init, jax.random.key(0), *args)


@pytest.mark.parametrize("name", LOOPS)
def test_equals_the_loop(name):
    model, loop = LOOPS[name]
    rng = np.random.default_rng(0)
    inputs, reset = rng.normal(size=(T, B, D_IN)).astype(np.float32), rng.random((T, B)) < 0.2
    carry = model.initialize_carry(B)
    params = random_params(model, carry, inputs, reset)
    out = jax.jit(model.apply)(params, carry, inputs, reset)[1]
    expected = loop(jax.tree.map(np.float64, params["params"]), inputs=inputs, reset=reset)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "count"),
    [
        (LRU(4, 128, 96), 17 * 128 + 4 * (3 * 96 + 4 * 128 * 96 + 3 * 128 + 2 * 128 * 129)),
        (S5(), 17 * 256 + 4 * 263_808),
        (RTU(128), 17 * 128 + 2 * 128 * 64 + 2 * 64),
        (FFM(256), 17 * (2 * 32 + 2 * 256) + 32 + 4 + (2 * 32 * 4 + 1) * 256),
    ],
    ids=lambda x: type(x).__name__,
)
def test_sizes_of_the_published_layers(model, count):
    """Counted in the authors' modules; the first term is the layer that sees the 16 inputs."""
    assert num_parameters(jax.eval_shape(fresh_params(model))) == count


def test_hippo_is_diagonalised():
    size = 8
    n = np.arange(size)
    legs = -np.array([[np.sqrt((2 * i + 1) * (2 * j + 1)) if i > j else (i + 1) * (i == j) for j in n] for i in n])
    normal = legs + np.sqrt(np.outer(n + 0.5, n + 0.5))
    values, vectors = hippo(size)
    np.testing.assert_allclose(2.0 * (vectors * values @ vectors.conj().T).real, normal, atol=1e-12)


def test_moduli_of_an_lru_start_in_the_ring_and_keep_the_size_of_inputs():
    memory = jax.jit(fresh_params(LRU(1, 4, 1000, r_min=0.6, r_max=0.9)))()["params"]["block_0"]["memory"]
    modulus = np.exp(-np.exp(memory["nu"]))
    assert 0.6 <= modulus.min() < 0.61 and 0.89 < modulus.max() <= 0.9
    np.testing.assert_allclose(np.exp(memory["gamma"]), np.sqrt(1.0 - modulus**2), rtol=1e-4)
    np.testing.assert_allclose(np.mean(modulus**2), (0.6**2 + 0.9**2) / 2, rtol=0.03)  # uniform in area


@pytest.mark.parametrize(
    ("model", "sizes", "message"),
    [
        (S5, {"d_state": 12, "num_blocks": 4}, "d_state must be a multiple of 2 num_blocks.*got 12 and 4"),
        (S5, {"delta_min": 0.2}, "delta_min must be at most delta_max, got 0.2 and 0.1"),
        (RTU, {"size": 7}, "size must be even, got 7"),
        (LRU, {"r_min": 0.9, "r_max": 0.9}, "r_min must be less than r_max, got 0.9 and 0.9"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(model, sizes, message):
    with pytest.raises(ValueError, match=message):
        model(**sizes)
