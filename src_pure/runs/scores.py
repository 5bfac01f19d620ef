"""Scores with intervals over runs, and learning curves."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from src_pure.runs.columns import over_episodes, weighted_means
from src_pure.runs.intervals import interval


def score_interval(metric: str, values: np.ndarray) -> tuple[float, float] | None:
    """The interval of a metric's mean over runs, values [runs]; None if the runs give no interval."""
    return interval(values, 0.0, 1.0) if metric == "success_rate" else interval(values)


def final_scores(evaluation: pd.DataFrame) -> dict[str, dict[str, dict[str, Any]]]:
    """{mode: {metric: mean, interval, episodes, unfinished, runs}} of the last evaluation; all runs weigh the same.

    `unfinished` of the episodes were cut off; each counts with what it had reached, and as a failure.
    """
    scores: dict[str, dict[str, dict[str, Any]]] = {}
    for mode, rows in evaluation.groupby("mode"):
        rows = rows[rows["update"] == rows["update"].max()]
        scores[str(mode)] = {}
        for metric in (name for name in rows if over_episodes(name)):
            known = rows[rows[metric].notna()]
            found = score_interval(metric, known[metric].to_numpy(float))
            scores[str(mode)][metric] = {
                "mean": float(known[metric].mean()) if len(known) else None,
                "interval": None if found is None else list(found),
                "episodes": int(known["episodes"].sum()),
                "unfinished": int(known["unfinished"].sum()),
                "runs": len(known),
            }
    return scores


class Curve(NamedTuple):
    """A metric against environment steps, each [bins with a value]; low and high are NaN without an interval."""

    steps: np.ndarray  # the middle of the bin
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def learning_curve(frame: pd.DataFrame, metric: str, bins: int) -> Curve:
    """The mean over runs and its interval, in bins of equal width over the environment steps (0, last].

    Within a bin, a run's value is its mean over episodes (rows are weighted by their episodes), or over rows if the
    metric is not a mean over episodes. Missing values are ignored; bins without values are left out.
    """
    env_steps = frame["env_steps"].to_numpy("int64")
    last = max(env_steps.max(), 1)
    bin_of_row = np.maximum(-(-env_steps * bins // last) - 1, 0)
    means = weighted_means(frame, metric, [bin_of_row, frame["run"].to_numpy()]).dropna()
    points = []
    groups: Any = means.groupby(level=0)  # pandas types the keys as hashable alone
    for index, values in groups:
        low, high = score_interval(metric, values.to_numpy()) or (np.nan, np.nan)
        points.append(((index + 0.5) * last / bins, values.mean(), low, high))
    return Curve(*np.array(points, dtype=float).reshape(-1, 4).T)
