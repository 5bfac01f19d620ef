"""Advantages and targets against loops, over random patterns of termination and truncation."""

import numpy as np
import pytest

from src_pure.algos.returns import gae, lambda_returns
from tests.algos import oracles


def random_batch(seed, num_steps=9, num_rows=4):
    rng = np.random.default_rng(seed)
    reward, value = rng.normal(size=(2, num_steps, num_rows))
    terminated, truncated = rng.random((2, num_steps, num_rows)) < 0.2  # sometimes both
    return reward, terminated, truncated, value, rng.normal(size=num_rows)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("lam", [0.0, 0.8, 1.0])
def test_gae_equals_the_loop(seed, lam):
    batch = random_batch(seed)
    np.testing.assert_allclose(gae(*batch, 0.9, lam), oracles.gae_loop(*batch, 0.9, lam), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("lam", [0.0, 0.8, 1.0])
def test_lambda_returns_equal_the_loop(seed, lam):
    batch = random_batch(seed)
    ours, loop = lambda_returns(*batch, 0.9, lam), oracles.lambda_return_loop(*batch, 0.9, lam)
    np.testing.assert_allclose(ours, loop, rtol=1e-4, atol=1e-5)


def test_gae_is_the_lambda_return_minus_the_value():
    batch = random_batch(0)
    np.testing.assert_allclose(gae(*batch, 0.9, 0.7) + batch[3], lambda_returns(*batch, 0.9, 0.7), rtol=1e-4, atol=1e-5)
