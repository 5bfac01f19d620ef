"""The rows of a run folder's tables, made from the metrics that the program returns."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from src_pure.lanes import Lane
from src_pure.runs.columns import column, floats, over_episodes, weighted_means, weights
from src_pure.types import Array, Metrics


def metric_rows(metrics: Metrics, lanes: Sequence[Lane], steps_per_update: int, done: int) -> pd.DataFrame:
    """One row per update and run from metrics [U, R], starting with update done + 1; missing values are NaN."""
    num_updates, num_runs = metrics["episodes"].shape
    update = done + 1 + np.repeat(np.arange(num_updates), num_runs)
    rows = {
        "run": np.tile([lane.run for lane in lanes], num_updates),
        "seed": np.tile([lane.seed for lane in lanes], num_updates),
        "update": update,
        "env_steps": update * steps_per_update,
    }
    return pd.DataFrame(rows | means_over_episodes({name: np.asarray(x).reshape(-1) for name, x in metrics.items()}))


def evaluation_rows(
    metrics: dict[str, Metrics], lanes: Sequence[Lane], steps_per_update: int, done: int
) -> pd.DataFrame:
    """One row per mode and run from metrics [R] of each mode."""
    frames = []
    for mode, values in metrics.items():
        rows = {
            "run": [lane.run for lane in lanes],
            "seed": [lane.seed for lane in lanes],
            "update": done,
            "env_steps": done * steps_per_update,
            "mode": mode,
        }
        frames.append(pd.DataFrame(rows | means_over_episodes(values)))
    return pd.concat(frames, ignore_index=True)


def means_over_episodes(metrics: Mapping[str, Array | np.ndarray]) -> dict[str, np.ndarray]:
    """`sum/<name>` divided by `episodes`, NaN where no episode ended; other metrics unchanged."""
    episodes = np.asarray(metrics["episodes"])
    means = {}
    for name, values in metrics.items():
        if name.startswith("sum/"):
            values = np.divide(values, episodes, out=np.full(episodes.shape, np.nan), where=episodes > 0)
        means[column(name)] = np.asarray(values)
    return means


def mean_score(frames: Sequence[pd.DataFrame], metric: str | None, min_episodes: int) -> float | None:
    """The mean of a metric over runs, each run averaged over its episodes; non-finite values are left out.

    None if a run has fewer than min_episodes, because a mean over few episodes may be luck. Metrics that are not means
    over episodes need one value per run instead.
    """
    if metric is None:
        return None
    rows = pd.concat(frames)
    values = floats(rows[metric])
    rows = rows.assign(**{metric: np.where(np.isfinite(values), values, np.nan)})
    counts = pd.Series(weights(rows, metric)).groupby(rows["run"].to_numpy()).sum()
    if counts.min() < (min_episodes if over_episodes(metric) else 1):
        return None
    return float(weighted_means(rows, metric, [rows["run"].to_numpy()]).mean())
