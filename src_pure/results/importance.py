"""How much of a sweep's differences each swept key explains."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from src_pure.results.ranking import Ranking

PERMUTATIONS = 1_000


class Importance(NamedTuple):
    """Shares of the variance of the points' mean scores, each from 0 to 1."""

    main: np.ndarray  # [K] what each key explains by itself
    total: np.ndarray | None  # [K] together with its interactions; None unless the points are a complete grid
    chance: np.ndarray | None  # [K] the share that a key without effect exceeds in 5 % of cases; None in a grid
    noise: float | None  # what differences between seeds explain; None with one seed for each point


def importance(ranking: Ranking) -> Importance:
    """The analysis of variance of a sweep, of the mean score of each point.

    The share of a key is its first-order Sobol index, Var(E[score | key]) / Var(score), in a grid also the total index,
    E[Var(score | all other keys)] / Var(score): functional analysis of variance (Hutter, Hoos and Leyton-Brown, ICML
    2014), here of the scores themselves instead of a random forest's predictions. In a complete grid the parts are
    exact and what the noise of seeds adds to them is subtracted. Otherwise, as for random points, the values of a key
    are divided into bins of equally many points (Plischke, Borgonovo and Smith, doi:10.1016/j.ejor.2012.11.047), and
    what chance adds is subtracted by epsilon squared (Kelley, doi:10.1073/pnas.21.9.554). Keys of random points must
    have been drawn independently of each other.
    """
    scores = np.array([point.mean for point in ranking.points])
    total_squares = float(np.square(scores - scores.mean()).sum())
    num_keys, num_points = len(ranking.keys), len(scores)
    if num_points < 2 or total_squares <= 1e-24 * max(1.0, float(np.square(scores).sum())):
        return Importance(np.zeros(num_keys), None, None, None)
    noise = seed_variance([point.scores for point in ranking.points])
    grid = num_points == np.prod([len(set(ranking.column(key))) for key in ranking.keys])
    groups = [key.groups(ranking.column(key)).index for key in ranking.keys]
    residual = (noise or 0.0) if grid else None
    main = np.array([share(scores[None], index, residual)[0] for index in groups])
    chance = None
    if not grid:
        rng = np.random.default_rng(0)
        shuffled = rng.permuted(np.broadcast_to(scores, (PERMUTATIONS, num_points)), axis=1)
        chance = np.array([np.quantile(share(shuffled, index, residual), 0.95) for index in groups])
    total = np.array([total_share(scores, groups, k, noise or 0.0) for k in range(num_keys)]) if grid else None
    noise_share = None if noise is None else min(1.0, (num_points - 1) * noise / total_squares)
    return Importance(main, total, chance, noise_share)


def seed_variance(scores: Sequence[np.ndarray]) -> float | None:
    """The variance of a point's mean score over other seeds, averaged over points; None without several seeds."""
    found = [each.var(ddof=1) / len(each) for each in scores if len(each) > 1]
    return float(np.mean(found)) if found else None


def share(scores: np.ndarray, index: np.ndarray, residual: float | None) -> np.ndarray:
    """The share of the variance of scores [..., P] between groups [P], without what chance adds, [...].

    residual: the variance of a point's score by chance; None: the variance within the groups.
    """
    num_points, num_groups = len(index), int(index.max()) + 1
    between, squares = between_groups(scores, index)
    if residual is None:
        residual = (squares - between) / max(num_points - num_groups, 1)
    return np.clip((between - (num_groups - 1) * residual) / squares, 0, 1)


def total_share(scores: np.ndarray, groups: Sequence[np.ndarray], key: int, noise: float) -> float:
    """The share of the variance of scores [P] that is left if all other keys are known; of a complete grid."""
    others = np.stack([np.zeros_like(groups[key]), *(index for k, index in enumerate(groups) if k != key)])
    index = np.unique(others, axis=1, return_inverse=True)[1].ravel()
    between, squares = between_groups(scores, index)
    return float(np.clip((squares - between - (len(index) - len(np.unique(index))) * noise) / squares, 0, 1))


def between_groups(scores: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(sum of squares between groups, total sum of squares) of scores [..., P] in groups [P], each [...]."""
    member = np.eye(int(index.max()) + 1)[index]  # [P, groups]
    centered = scores - scores.mean(-1, keepdims=True)
    between = (np.square(centered @ member) / member.sum(0)).sum(-1)
    return between, np.square(centered).sum(-1)
