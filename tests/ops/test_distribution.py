"""Distributions over actions against SciPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from src_pure.ops import distribution
from src_pure.types import Gaussian

RNG = np.random.default_rng(0)
LOGITS = 3 * RNG.normal(size=(5, 4, 3))
GAUSSIAN = Gaussian(*RNG.normal(size=(2, 5, 4, 3)))


def test_categorical():
    probs = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    action = RNG.integers(3, size=(5, 4))
    chosen = np.take_along_axis(probs, action[..., None], -1)[..., 0]
    np.testing.assert_allclose(distribution.log_prob(LOGITS, jnp.asarray(action)), np.log(chosen), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(distribution.entropy(LOGITS), stats.entropy(probs, axis=-1), rtol=1e-4)
    np.testing.assert_array_equal(distribution.mode(LOGITS), probs.argmax(-1))


def test_gaussian():
    normal = stats.norm(GAUSSIAN.mean, np.exp(GAUSSIAN.log_std))
    action = normal.rvs(random_state=1)
    np.testing.assert_allclose(distribution.log_prob(GAUSSIAN, action), normal.logpdf(action).sum(-1), rtol=1e-4)
    np.testing.assert_allclose(distribution.entropy(GAUSSIAN), normal.entropy().sum(-1), rtol=1e-5)
    np.testing.assert_array_equal(distribution.mode(GAUSSIAN), GAUSSIAN.mean)


def test_samples_follow_the_distribution():
    keys = jax.random.split(jax.random.key(0), 2000)
    mean, log_std = jnp.asarray(GAUSSIAN)[:, 0, 0]
    samples = jax.vmap(lambda key: distribution.sample(key, Gaussian(mean, log_std)))(keys)
    assert samples.shape == (2000, 3) and samples.dtype == np.float32
    for entry, m, s in zip(samples.T, mean, np.exp(log_std), strict=True):
        assert stats.kstest(entry, stats.norm(m, s).cdf).pvalue > 1e-3
    assert np.abs(np.corrcoef(samples.T) - np.eye(3)).max() < 0.1

    drawn = jax.vmap(lambda key: distribution.sample(key, LOGITS[0, 0]))(keys)
    probs = np.exp(LOGITS[0, 0]) / np.exp(LOGITS[0, 0]).sum()
    assert stats.chisquare(np.bincount(drawn, minlength=3), 2000 * probs).pvalue > 1e-3


@pytest.mark.parametrize("params", [Gaussian(jnp.zeros((3, 2)), jnp.ones((3, 2))), jnp.arange(12.0).reshape(3, 4)])
def test_what_is_drawn_in_a_64_bit_program_is_the_same(params):
    key = jax.random.key(0)
    with jax.enable_x64(True):
        action = distribution.sample(key, params)
    np.testing.assert_array_equal(action, distribution.sample(key, params))
    assert action.dtype == distribution.sample(key, params).dtype
