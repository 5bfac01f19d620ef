"""Statistics over few runs, against scipy, slow loops and their own promise: how often an interval holds the truth."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, trim_mean

from src_pure.results.statistics import (
    improvement_interval,
    interval,
    iqm,
    mean,
    performance_profile,
    probability_of_improvement,
    profile_band,
    resampled,
    tail,
)


def bootstrap_loop(strata, statistic, samples, seed):
    """One sample and one stratum at a time, with the same draws."""
    rng = np.random.default_rng(seed)
    draws = [rng.integers(len(scores), size=(samples, len(scores))) for scores in strata]
    return [
        statistic(np.array([scores[i] for scores, index in zip(strata, draws, strict=True) for i in index[sample]]))
        for sample in range(samples)
    ]


def test_iqm_of_known_scores():
    assert iqm(np.array([0.0, 1, 2, 3, 4, 5, 6, 700])) == 3.5
    assert iqm(np.array([9.0, 0, 1, 2])) == 1.5
    assert iqm(np.array([1.0, 2, 6])) == 3.0 and iqm(np.array([4.0])) == 4.0
    np.testing.assert_array_equal(iqm(np.array([[0.0, 1, 2, 9], [4, 4, 4, 4]])), [1.5, 4.0])


@pytest.mark.parametrize("size", [1, 3, 4, 5, 8, 11, 40])
def test_iqm_is_scipys_trimmed_mean(size):
    scores = np.random.default_rng(size).normal(size=(6, size))
    np.testing.assert_allclose(iqm(scores), trim_mean(scores, 0.25, axis=1), rtol=1e-12)


@pytest.mark.parametrize("statistic", [iqm, mean])
def test_a_bootstrap_draws_from_every_stratum(statistic, monkeypatch):
    strata = [np.arange(3.0), 10 + np.arange(5.0), np.array([100.0])]
    found = resampled(strata, statistic, samples=50, seed=4)
    np.testing.assert_allclose(found, bootstrap_loop(strata, statistic, 50, 4), rtol=1e-12)
    monkeypatch.setattr("src_pure.results.statistics.LARGEST_DRAW", 70)  # seven samples at a time
    totals = resampled(strata, lambda scores: np.sort(scores, axis=-1), samples=50, seed=4)
    assert (totals[:, :3] < 3).all() and (totals[:, 3:8] >= 10).all() and (totals[:, 8] == 100).all()
    assert len(np.unique(totals, axis=0)) > 10


def test_the_standard_error_of_a_bootstrap_is_that_of_theory():
    """Var(mean) of a stratified sample is the sum of n_s var_s / N^2, with variances of the strata themselves."""
    rng = np.random.default_rng(0)
    strata = [rng.normal(size=6), 5 + 3 * rng.normal(size=12)]
    wanted = np.sqrt(sum(len(scores) * scores.var() for scores in strata)) / 18
    assert resampled(strata, mean, samples=40_000).std() == pytest.approx(wanted, rel=0.02)


def test_equal_calls_give_equal_intervals():
    strata = [np.random.default_rng(0).normal(size=7)]
    assert interval(strata) == interval(strata) != interval(strata, seed=1)


@pytest.mark.parametrize("strata", [[np.array([1.0])], [np.array([1.0]), np.array([2.0])], [np.full(5, 3.0)]])
def test_without_a_difference_between_seeds_there_is_no_interval(strata):
    assert interval(strata) is None and profile_band(strata, np.array([0.5])) is None
    assert improvement_interval(strata, strata) is None


def test_the_expanded_tail_is_that_of_a_t_interval():
    """A normal bootstrap distribution with the variance of n runs gives mean +- t sd / sqrt(n)."""
    from scipy.stats import norm, t

    scores = np.random.default_rng(0).normal(size=9)
    beyond = tail([scores])
    assert beyond is not None
    half = -norm.ppf(beyond) * scores.std() / 3
    assert half == pytest.approx(t.ppf(0.975, 8) * scores.std(ddof=1) / 3)


@pytest.mark.parametrize("statistic", [iqm, mean])
@pytest.mark.parametrize(("num_strata", "runs"), [(1, 5), (1, 10), (4, 5)])
def test_an_interval_holds_the_mean_of_normal_runs(statistic, num_strata, runs):
    """95 % wanted; 400 simulations have a standard error of 1.1 %."""
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(400):
        found = interval(list(rng.normal(size=(num_strata, runs))), statistic, samples=400)
        assert found is not None
        held += found[0] <= 0 <= found[1]
    assert 0.89 <= held / 400 <= 0.99


def test_probability_of_improvement_is_mann_and_whitneys():
    rng = np.random.default_rng(3)
    x, y = [rng.integers(0, 6, size=(7,)), rng.integers(0, 6, size=9)], [rng.integers(0, 6, 8), rng.integers(2, 8, 3)]
    wanted = [mannwhitneyu(a, b).statistic / (len(a) * len(b)) for a, b in zip(x, y, strict=True)]
    assert probability_of_improvement(x, y) == pytest.approx(np.mean(wanted))
    assert probability_of_improvement(y, x) == pytest.approx(1 - np.mean(wanted))
    assert probability_of_improvement([np.array([2.0])], [np.array([1.0])]) == 1.0


def test_the_interval_of_an_improvement_holds_it():
    rng = np.random.default_rng(0)
    x, y = [rng.normal(size=10)], [rng.normal(size=10) - 1]
    found = improvement_interval(x, y)
    assert found is not None
    assert 0 <= found[0] < probability_of_improvement(x, y) < found[1] <= 1
    found = improvement_interval([np.arange(5.0)], [np.arange(10.0, 15.0)])
    assert found == (0, 0)


def test_performance_profile_counts_runs_above():
    scores, thresholds = np.array([0.1, 0.5, 0.5, 0.9]), np.array([0.0, 0.1, 0.5, 0.8, 0.9])
    np.testing.assert_allclose(performance_profile(scores, thresholds), [1, 0.75, 0.25, 0.25, 0])
    band = profile_band([scores], thresholds)
    assert band is not None
    low, high = band
    assert (low <= performance_profile(scores, thresholds)).all() and (low <= high).all()
    assert low[0] == high[0] == 1 and low[-1] == high[-1] == 0
