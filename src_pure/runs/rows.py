"""The rows of a run folder's tables, made from the metrics that the program returns."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from src_pure.lanes import Lane
from src_pure.runs.columns import (
    COUNTS,
    ROW_COLUMNS,
    column,
    floats,
    is_maximum,
    over_episodes,
    weighted_means,
    weights,
)
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


def row_ends(updates: np.ndarray, updates_per_row: int, end: int) -> np.ndarray:
    """The last update of the row that each update belongs to: a multiple of updates_per_row, or the training's end."""
    return np.minimum(-(-updates // updates_per_row) * updates_per_row, end)


def averaged(updates: pd.DataFrame, ends: np.ndarray) -> pd.DataFrame:
    """One row per run and row end, sorted by update; updates: rows of single updates, in order; ends: [rows].

    A row has the `update` and `env_steps` of the last update in it: an earlier one than its end if the run failed.
    """
    run_of_row, runs = pd.factorize(updates["run"])
    group = pd.factorize(ends)[0] * len(runs) + run_of_row
    sizes = np.bincount(group)
    group = (np.cumsum(sizes > 0) - 1)[group]
    sizes = sizes[sizes > 0]
    rows = pd.DataFrame({name: _of_groups(updates, str(name), group, sizes) for name in updates})
    if not rows["update"].is_monotonic_increasing:  # a run failed
        rows = rows.sort_values("update", kind="stable", ignore_index=True)
    return rows


def _of_groups(updates: pd.DataFrame, name: str, group: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The value of a column in each group, [groups]; group: of each row, [rows]; sizes: rows in each group, [groups].

    Counts are added, maxima stay maxima, and means over episodes weigh as many episodes as they have. Everything else
    is a plain mean, which is not finite if one of its values is not: a failure stays visible. Each group is summed in
    the order of its updates, so its value does not depend on which updates come in one call.
    """
    if name in ROW_COLUMNS and name not in COUNTS:  # the same in all rows, or that of the last one: it is assigned last
        last = np.empty(len(sizes), "int64")
        last[group] = updates[name]
        return last
    values = floats(updates[name])
    if is_maximum(name):
        largest = np.full(len(sizes), -np.inf)
        with np.errstate(invalid="ignore"):  # NumPy warns of NaN here, and stores it, as it should
            np.maximum.at(largest, group, values)
        return largest
    if over_episodes(name):
        weight = weights(updates, name)
        sums = np.bincount(group, np.where(weight > 0, values, 0.0) * weight)
        total = np.bincount(group, weight)
        return np.divide(sums, total, out=np.full(len(sizes), np.nan), where=total > 0)
    sums = np.bincount(group, values)
    if name in COUNTS:
        return sums.astype("int64") if name in ROW_COLUMNS else sums
    return sums / sizes


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
