"""Statistics over few runs (Agarwal et al., arXiv:2108.13264): IQM, bootstrap intervals, profiles, improvement.

Scores come in strata: one array of independent runs for every point or task. A bootstrap sample draws as many runs as
there are from every stratum, with replacement. Everything is deterministic: the same scores give the same intervals.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import ndtr, stdtrit

SAMPLES = 2_000
LEVEL = 0.95
LARGEST_DRAW = 2**24  # scores in memory at a time
Strata = Sequence[np.ndarray]
Statistic = Callable[[np.ndarray], np.ndarray]  # [..., N] -> [...]


def iqm(scores: np.ndarray) -> np.ndarray:
    """The interquartile mean over the last axis, [..., N] -> [...]: the mean without the lowest and highest quarter.

    floor(N / 4) scores are cut off at either end, as in scipy.stats.trim_mean; with fewer than four it is the mean.
    """
    scores = np.asarray(scores, float)
    size = scores.shape[-1]
    cut = size // 4
    if cut == 0:
        return scores.mean(-1)
    return np.partition(scores, (cut, size - cut - 1), axis=-1)[..., cut : size - cut].mean(-1)


def mean(scores: np.ndarray) -> np.ndarray:
    """The mean over the last axis, [..., N] -> [...]."""
    return np.asarray(scores, float).mean(-1)


def resampled(strata: Strata, statistic: Statistic, samples: int = SAMPLES, seed: int = 0) -> np.ndarray:
    """The statistic of stratified bootstrap samples, [samples, ...]; it is given all drawn scores, [..., N]."""
    rng = np.random.default_rng(seed)
    strata = [np.asarray(scores, float) for scores in strata]
    chunk = max(1, LARGEST_DRAW // sum(map(len, strata)))
    found = []
    for start in range(0, samples, chunk):
        draws = min(chunk, samples - start)
        drawn = [scores[rng.integers(len(scores), size=(draws, len(scores)))] for scores in strata]
        found.append(statistic(np.concatenate(drawn, axis=1)))
    return np.concatenate(found)


def tail(strata: Strata, level: float = LEVEL) -> float | None:
    """The quantile of the bootstrap distribution at which an interval begins; None if runs show no spread.

    Percentile intervals are too short for few runs. Therefore the quantile is the one that gives a Student's t-interval
    if the distribution is normal, Phi(-t sqrt(n / (n - 1))), called the expanded percentile interval (Hesterberg,
    doi:10.1080/00031305.2015.1089789). n is the mean size of strata with several runs, t has sum(n - 1) degrees of
    freedom.
    """
    sizes = np.array([len(scores) for scores in strata if len(scores) > 1])
    if not len(sizes) or all(np.ptp(scores) == 0 for scores in strata):
        return None
    expansion = math.sqrt(sizes.mean() / (sizes.mean() - 1))
    return float(ndtr(-expansion * stdtrit((sizes - 1).sum(), (1 + level) / 2)))


def interval(
    strata: Strata, statistic: Statistic = iqm, samples: int = SAMPLES, seed: int = 0
) -> tuple[float, float] | None:
    """(from, to): the 95 % interval of a statistic of all scores; None if no stratum has two runs that differ.

    No bootstrap reaches beyond the lowest and highest run. Of a single stratum, such intervals hold the true value in
    50 % of cases with two runs, 75 % with three, 88 % with four, and from five on in 94 to 97 % (docs/sweeps.md).
    """
    beyond = tail(strata)
    if beyond is None:
        return None
    low, high = np.quantile(resampled(strata, statistic, samples, seed), [beyond, 1 - beyond])
    return float(low), float(high)


def probability_of_improvement(x: Strata, y: Strata) -> float:
    """P(X > Y) + P(X = Y) / 2 for a run of x and one of y, averaged over strata: Mann and Whitney's U / (n m)."""
    return float(np.mean([_wins(np.asarray(a), np.asarray(b)) for a, b in zip(x, y, strict=True)]))


def improvement_interval(x: Strata, y: Strata, samples: int = SAMPLES, seed: int = 0) -> tuple[float, float] | None:
    """The 95 % interval of `probability_of_improvement`; None if neither side has runs that differ."""
    beyond = tail([*x, *y])
    if beyond is None:
        return None
    rng = np.random.default_rng(seed)
    found = np.zeros(samples)
    for a, b in zip(x, y, strict=True):
        a, b = (np.asarray(scores)[rng.integers(len(scores), size=(samples, len(scores)))] for scores in (a, b))
        found += _wins(a, b) / len(x)
    low, high = np.quantile(found, [beyond, 1 - beyond])
    return float(low), float(high)


def performance_profile(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """The fraction of scores above every threshold, [..., N] and [T] -> [..., T]."""
    scores = np.asarray(scores)
    return np.stack([(scores > threshold).mean(-1) for threshold in thresholds], axis=-1)


def profile_band(
    strata: Strata, thresholds: np.ndarray, samples: int = SAMPLES, seed: int = 0
) -> tuple[np.ndarray, np.ndarray] | None:
    """The pointwise 95 % interval of the performance profile, each end [T]; None without runs that differ."""
    beyond = tail(strata)
    if beyond is None:
        return None
    profiles = resampled(strata, lambda scores: performance_profile(scores, thresholds), samples, seed)
    low, high = np.quantile(profiles, [beyond, 1 - beyond], axis=0)
    return low, high


def _wins(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The fraction of pairs in which a wins, half of it for a tie, [..., N] and [..., M] -> [...]."""
    difference = a[..., :, None] - b[..., None, :]
    return (np.sign(difference).mean((-1, -2)) + 1) / 2
