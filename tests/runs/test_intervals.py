"""Intervals hold the mean as often as they say."""

import math

import numpy as np
import pytest
from scipy import stats

from src_pure.runs.intervals import interval

NUM_RUNS = [2, 3, 5, 10, 20]
REPEATS = 1500  # the standard error of a coverage of 0.95 is then 0.006


def coverage(draw, mean, num_runs, num_tasks=1):
    """The fraction of intervals that hold the mean, of those that are given."""
    found = [interval(draw((num_runs, num_tasks))) for _ in range(REPEATS)]
    return np.mean([low <= mean <= high for low, high in filter(None, found)])


def episodes_of(rng, probability):
    """Each run's fraction of solved episodes out of 256."""
    return rng.binomial(256, probability) / 256


SCORES = {
    "normal": (lambda rng, shape: rng.normal(3.0, 2.0, shape), 3.0),
    "same success": (lambda rng, shape: episodes_of(rng, np.full(shape, 0.98)), 0.98),
    "success varies": (lambda rng, shape: episodes_of(rng, rng.beta(8, 2, shape)), 0.8),
    "success varies widely": (lambda rng, shape: episodes_of(rng, rng.beta(2, 2, shape)), 0.5),
    "solved or not, half": (lambda rng, shape: rng.binomial(1, 0.5, shape), 0.5),
    "solved or not, mostly": (lambda rng, shape: rng.binomial(1, 0.84, shape), 0.84),
}


@pytest.mark.parametrize("num_runs", NUM_RUNS)
@pytest.mark.parametrize("name", SCORES)
def test_intervals_of_few_runs_hold_the_mean(name, num_runs):
    scores, mean = SCORES[name]
    rng = np.random.default_rng(num_runs)
    assert coverage(lambda shape: scores(rng, shape), mean, num_runs) >= 0.92


@pytest.mark.parametrize("num_runs", [2, 5, 20])
@pytest.mark.parametrize("num_tasks", [2, 10])
def test_intervals_over_tasks_hold_the_mean(num_runs, num_tasks):
    """Of tasks that lie far apart and spread differently."""
    rng = np.random.default_rng(num_runs)
    mean, spread = np.arange(num_tasks) * 100.0, np.linspace(0.1, 3.0, num_tasks)
    assert coverage(lambda shape: rng.normal(mean, spread, shape), mean.mean(), num_runs, num_tasks) >= 0.92


def test_without_skewness_it_is_the_t_interval():
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    wanted = stats.t.interval(0.9, df=4, loc=3.0, scale=stats.sem(values))
    np.testing.assert_allclose(interval(values, level=0.9), wanted)


def test_skewness_is_corrected_by_inverting_its_polynomial():
    values = np.array([0.0, 0.9, 1.0, 1.0, 1.0, 0.95])
    a = stats.skew(values) / np.sqrt(len(values))
    t = (values.mean() - np.array(interval(values))) / stats.sem(values)
    corrected = t + a * t**2 / 3 + a**2 * t**3 / 27 + a / 6
    np.testing.assert_allclose(corrected, stats.t.ppf([0.975, 0.025], df=5))


def test_tasks_that_are_alike_narrow_it():
    values = np.random.default_rng(0).normal(size=6)
    assert np.ptp(interval(np.stack([values, values], axis=1))) < np.ptp(interval(values))
    next_to_constant = interval(np.stack([values, np.full(6, 7.0)], axis=1))
    np.testing.assert_allclose(next_to_constant, (np.array(interval(values)) + 7) / 2)


def test_it_stays_within_what_can_be():
    low, high = interval([0.9, 1.0], low=0.0, high=1.0)
    assert 0.0 <= low < 0.95 and high == 1.0
    assert interval([0.9, 1.0])[1] > 1.0


@pytest.mark.parametrize(
    "values",
    [[], [0.7], [1.0, 1.0], [0.1 + 0.2, 0.3], [0.0, 0.0, 0.0], [[0.0, 100.0]] * 5,
     [np.inf, 1.0], [np.nan, 1.0], [1e308, -1e308]],
)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_one_run_and_equal_runs_have_no_interval(values):
    assert interval(values) is None


def test_its_ends_are_finite():
    for values in ([1e-300, 2e-300], [1e9, 1e9 + 1], [1e200, -1e200], [0.0] * 99 + [1.0], np.arange(2000.0)):
        assert all(map(math.isfinite, interval(values)))
