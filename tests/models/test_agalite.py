"""AGaLiTe's attention against a loop that keeps every frequency, and its degenerate cases."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from src_pure.models.agalite import AGaLiTe, agalite_attention, frequency_channels
from src_pure.models.policy import num_parameters
from tests.models import oracles

T, B, H, D, ETA = 37, 2, 2, 3, 2
FREQUENCIES = ("released", "paper", "delta")


def projections(seed=0, num_steps=T):
    """Eight raw projections in float64 and reset flags."""
    rng = np.random.default_rng(seed)
    columns = [rng.normal(size=(num_steps, B, H, D)) for _ in range(5)]
    rows = [rng.normal(size=(num_steps, B, H, ETA)) for _ in range(3)]
    return [*columns, *rows], rng.random((num_steps, B)) < 0.1


def positive_projections():
    """Projections whose keys and queries are positive, so that s . q is far from eps."""
    arrays, reset = projections()
    return [np.abs(x) + 0.5 if i in (0, 1, 5, 6) else x for i, x in enumerate(arrays)], reset


@partial(jax.jit, static_argnames=("r", "frequencies", "implementation"))
def attend(arrays, reset, r, frequencies, implementation="auto"):
    arrays = (jnp.asarray(x, jnp.float32) for x in arrays)
    return agalite_attention(None, *arrays, reset, r=r, frequencies=frequencies, implementation=implementation)


@pytest.mark.parametrize(
    ("r", "implementation"),
    [
        *((r, "chunked") for r in (1, 3, 4)),
        *(pytest.param(r, "chunked", marks=pytest.mark.slow) for r in (2, 7)),
        *((4, implementation) for implementation in ("scan", "associative_scan")),
        pytest.param(4, "parallel", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("frequencies", FREQUENCIES)
def test_equals_the_loop(frequencies, r, implementation):
    arrays, reset = projections()
    out = attend(arrays, reset, r=r, frequencies=frequencies, implementation=implementation)[1]
    np.testing.assert_allclose(out, oracles.agalite_loop(*arrays, reset, r, frequencies), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("num_steps", "implementation"),
    [
        *(pytest.param(num_steps, "chunked", marks=pytest.mark.slow) for num_steps in (1, 16)),
        (37, "chunked"),
        (37, "parallel"),
        pytest.param(37, "associative_scan", marks=pytest.mark.slow),
    ],
)
def test_gradients_equal_those_of_a_plain_scan(implementation, num_steps):
    arrays, reset = projections(num_steps=num_steps)
    carry = attend(*projections(seed=1), r=3, frequencies="paper")[0]
    targets = jax.random.normal(jax.random.key(0), (num_steps, B, H, D))

    def loss(implementation, inputs):
        carry, arrays = inputs
        carry, out = agalite_attention(
            carry, *arrays, jnp.asarray(reset), r=3, frequencies="paper", implementation=implementation
        )
        return jnp.sum(out * targets) + sum(jnp.sum(jnp.sin(x)) for x in (*carry.keys, *carry.values))

    inputs = (carry, [jnp.asarray(x, jnp.float32) for x in arrays])
    gradient = jax.jit(jax.grad(loss, argnums=1, allow_int=True), static_argnums=0)
    gradients = [gradient(name, inputs) for name in (implementation, "scan")]
    for ours, plain in zip(*map(jax.tree.leaves, gradients), strict=True):
        if plain.dtype == jnp.float32:
            np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-5)


def test_equal_cosines_are_one_channel():
    """cos is even and t is an integer, so w, -w and 2 pi - w agree; w = 0 is the normaliser."""
    assert frequency_channels("released", 2).weights == (0, 2)
    assert frequency_channels("paper", 4).weights == (2, 2, 1)
    assert frequency_channels("paper", 1).weights == (2,)
    for frequencies in FREQUENCIES:
        for r in range(1, 12):
            channels = frequency_channels(frequencies, r)
            angles = oracles.AGALITE_ANGLES[frequencies](r)
            steps = np.arange(1, 40)
            merged = channels.cosines[steps % channels.period] @ np.array(channels.weights)
            np.testing.assert_allclose(merged, np.cos(np.outer(steps, angles)).sum(axis=1), atol=1e-5)


def test_released_1_and_2_are_one_function():
    arrays, reset = positive_projections()
    one, two = (attend(arrays, reset, r=r, frequencies="released")[1] for r in (1, 2))
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)


def test_paper_1_ignores_keys_and_queries():
    """K = s, so their quotient is 1 and the gated mean of the values remains."""
    arrays, reset = positive_projections()
    out = attend(arrays, reset, r=1, frequencies="paper")[1]
    _, _, value, beta, *_ = arrays
    mean = np.zeros((B, H, D))
    for t in range(T):
        gate = oracles.sigmoid(beta[t])
        mean = np.where(reset[t][:, None, None], 0.0, 1 - gate) * mean + gate * value[t]
        np.testing.assert_allclose(out[t], mean, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_phase_is_exact_after_a_long_episode():
    """After 2e6 steps of one episode the cosines are those of the integer, not of a rounded float."""
    arrays, _ = projections(num_steps=5)
    reset = np.zeros((5, B), bool)
    carry = attend(arrays, reset, r=4, frequencies="delta")[0]
    later = carry._replace(time=(carry.time + 2_000_000) % 4)
    out = [agalite_attention(c, *map(jnp.asarray, arrays), reset, r=4, frequencies="delta")[1] for c in (carry, later)]
    np.testing.assert_array_equal(*out)  # 2,000,000 is a multiple of the period


def test_published_sizes():
    model = AGaLiTe()
    carry = model.initialize_carry(1)
    params = jax.eval_shape(model.init, jax.random.key(0), carry, jnp.zeros((1, 1, 16)), jnp.zeros((1, 1), bool))
    assert num_parameters(params) == 1_740_608
    assert num_parameters(carry) <= 9_300
    assert num_parameters(AGaLiTe(eta=8).initialize_carry(1)) <= 17_500
