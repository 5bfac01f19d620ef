"""Rows of the tables of a run folder, from the metrics that the program returns."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from src_pure.lanes import Lane
from src_pure.runs.rundir import floats, over_episodes
from src_pure.types import Metrics


def metric_rows(metrics: Metrics, lanes: Sequence[Lane], steps_per_update: int, done: int) -> pd.DataFrame:
    """One row per update and run from metrics [U, R], the first of update done + 1; what has no value is NaN."""
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


def means_over_episodes(metrics: Metrics) -> dict[str, np.ndarray]:
    """`sum/<name>` divided by `episodes`, missing (NaN) where none ended; the other metrics as they are."""
    episodes = np.asarray(metrics["episodes"])
    means = {}
    for name, values in metrics.items():
        if name.startswith("sum/"):
            values = np.divide(values, episodes, out=np.full(episodes.shape, np.nan), where=episodes > 0)
        means[column(name)] = np.asarray(values)
    return means


def column(name: str) -> str:
    """The column of metrics.parquet for a metric of the program."""
    if name == "sum/success":
        return "success_rate"
    return f"episode_{name.removeprefix('sum/').removeprefix('episode_')}" if name.startswith("sum/") else name


def mean_score(frames: Sequence[pd.DataFrame], metric: str | None, min_episodes: int) -> float | None:
    """The metric's mean over runs, each run's a mean over its episodes.

    None where a run has fewer than min_episodes: the mean of a few may be luck.
    """
    if metric is None:
        return None
    rows = pd.concat(frames)
    values = floats(rows[metric])
    weights = np.where(np.isfinite(values), floats(rows["episodes"]) if over_episodes(metric) else 1.0, 0.0)
    sums = pd.DataFrame({"value": np.where(weights > 0, values, 0.0) * weights, "weight": weights})
    sums = sums.groupby(rows["run"].to_numpy()).sum()
    if sums["weight"].min() < (min_episodes if over_episodes(metric) else 1):
        return None
    return float((sums["value"] / sums["weight"]).mean())
