"""Distributions over actions, compared with SciPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from src_pure.distributions import Categorical, EpsilonGreedy, Gaussian

RNG = np.random.default_rng(0)
LOGITS = 3 * RNG.normal(size=(5, 4, 3))
CATEGORICAL = Categorical(LOGITS)
GAUSSIAN = Gaussian(*RNG.normal(size=(2, 5, 4, 3)))


def test_categorical():
    probs = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    action = RNG.integers(3, size=(5, 4))
    chosen = np.take_along_axis(probs, action[..., None], -1)[..., 0]
    np.testing.assert_allclose(CATEGORICAL.log_prob(jnp.asarray(action)), np.log(chosen), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(CATEGORICAL.entropy(), stats.entropy(probs, axis=-1), rtol=1e-4)
    np.testing.assert_array_equal(CATEGORICAL.mode(), probs.argmax(-1))


def test_gaussian():
    normal = stats.norm(GAUSSIAN.mean, np.exp(GAUSSIAN.log_std))
    action = normal.rvs(random_state=1)
    np.testing.assert_allclose(GAUSSIAN.log_prob(action), normal.logpdf(action).sum(-1), rtol=1e-4)
    np.testing.assert_allclose(GAUSSIAN.entropy(), normal.entropy().sum(-1), rtol=1e-5)
    np.testing.assert_array_equal(GAUSSIAN.mode(), GAUSSIAN.mean)


def test_samples_follow_the_distribution():
    keys = jax.random.split(jax.random.key(0), 2000)
    mean, log_std = jnp.asarray(GAUSSIAN)[:, 0, 0]
    samples = jax.vmap(lambda key: Gaussian(mean, log_std).sample(key))(keys)
    assert samples.shape == (2000, 3) and samples.dtype == np.float32
    for entry, m, s in zip(samples.T, mean, np.exp(log_std), strict=True):
        assert stats.kstest(entry, stats.norm(m, s).cdf).pvalue > 1e-3
    assert np.abs(np.corrcoef(samples.T) - np.eye(3)).max() < 0.1

    drawn = jax.vmap(lambda key: Categorical(LOGITS[0, 0]).sample(key))(keys)
    probs = np.exp(LOGITS[0, 0]) / np.exp(LOGITS[0, 0]).sum()
    assert stats.chisquare(np.bincount(drawn, minlength=3), 2000 * probs).pvalue > 1e-3


def epsilon_greedy_probs(values, epsilon):
    """Probabilities [..., A]: all actions share epsilon equally, the greedy one gets the rest."""
    greedy = np.eye(values.shape[-1])[values.argmax(-1)]
    return epsilon[..., None] / values.shape[-1] + (1 - epsilon[..., None]) * greedy


def test_epsilon_greedy():
    epsilon = np.array([0.0, 0.1, 0.5, 1.0])
    probs = epsilon_greedy_probs(LOGITS, np.broadcast_to(epsilon, (5, 4)))
    actions = EpsilonGreedy(jnp.asarray(LOGITS), jnp.broadcast_to(epsilon, (5, 4)))
    for action in range(3):
        given = np.exp(actions.log_prob(jnp.full((5, 4), action)))
        np.testing.assert_allclose(given, probs[..., action], rtol=1e-5)
    np.testing.assert_allclose(actions.entropy(), stats.entropy(probs, axis=-1), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(actions.mode(), LOGITS.argmax(-1))
    keys = jax.random.split(jax.random.key(0), 2000)
    drawn = np.asarray(jax.vmap(EpsilonGreedy(jnp.asarray(LOGITS[0, 0]), jnp.float32(0.5)).sample)(keys))
    wanted = 2000 * epsilon_greedy_probs(LOGITS[0, 0], np.array(0.5))
    assert stats.chisquare(np.bincount(drawn, minlength=3), wanted).pvalue > 1e-3


@pytest.mark.parametrize(
    "actions",
    [
        Gaussian(jnp.zeros((3, 2)), jnp.ones((3, 2))),
        Categorical(jnp.arange(12.0).reshape(3, 4)),
        EpsilonGreedy(jnp.arange(12.0).reshape(3, 4), jnp.full(3, 0.9)),
    ],
    ids=lambda actions: type(actions).__name__,
)
def test_what_is_drawn_in_a_64_bit_program_is_the_same(actions):
    key = jax.random.key(0)
    with jax.enable_x64(True):
        drawn = actions.sample(key)
    np.testing.assert_array_equal(drawn, actions.sample(key))
    assert drawn.dtype == actions.sample(key).dtype
