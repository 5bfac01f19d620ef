"""The columns of the tables: their names, order and types, and the weight of a row in a mean."""

from collections.abc import Container

import numpy as np
import pandas as pd
import pyarrow as pa

# The first columns, in this order. Means over episodes follow, then everything else, such as losses.
ROW_COLUMNS = {
    "run": pa.int64(),
    "seed": pa.int64(),
    "update": pa.int64(),
    "env_steps": pa.int64(),
    "mode": pa.string(),
    "episodes": pa.int64(),
    "unfinished": pa.int64(),
}
FIRST_METRICS = ("episode_return", "episode_length", "success_rate")
IN_METRICS = ("run", "seed", "update", "env_steps", "episodes")  # every table of metrics has these columns
IN_EVALUATION = tuple(ROW_COLUMNS)
COUNTS = ("episodes", "nonfinite_inputs")


def column(name: str) -> str:
    """The column for a metric of the compiled program."""
    if name == "sum/success":
        return "success_rate"
    return f"episode_{name.removeprefix('sum/').removeprefix('episode_')}" if name.startswith("sum/") else name


def over_episodes(metric: str) -> bool:
    """Whether a column is a mean over the episodes of its row."""
    return metric == "success_rate" or metric.startswith("episode_")


def is_maximum(metric: str) -> bool:
    """Whether a column is the largest of many values, such as max_abs_log_ratio."""
    return "max" in metric.split("_") and not over_episodes(metric)


def main_metric(metrics: Container[str]) -> str:
    """The metric that measures how good a policy is: success_rate if the task has it, else episode_return."""
    return "success_rate" if "success_rate" in metrics else "episode_return"


def weights(frame: pd.DataFrame, metric: str) -> np.ndarray:
    """The weight of each row in a mean of the metric, [rows]; 0 where the value is missing.

    A mean over episodes weighs as much as the number of its episodes, any other value 1.
    """
    counts = floats(frame["episodes"]) if over_episodes(metric) else np.ones(len(frame))
    return np.where(np.isnan(floats(frame[metric])), 0.0, counts)


def weighted_means(frame: pd.DataFrame, metric: str, by: list[np.ndarray]) -> pd.Series:
    """The weighted mean of the metric over the rows of each group; NaN if all values of a group are missing.

    by: the keys of the groups, each [rows].
    """
    weight = weights(frame, metric)
    value = np.where(weight > 0, floats(frame[metric]), 0.0) * weight
    sums = pd.DataFrame({"value": value, "weight": weight}).groupby(by).sum()
    return sums["value"] / sums["weight"]


def floats(values: pd.Series) -> np.ndarray:
    """The values as float64; everything that pandas treats as missing (NaN, NA, None) becomes NaN."""
    return values.to_numpy("float64", na_value=np.nan)


def to_arrow(frame: pd.DataFrame) -> pa.Table:
    """The frame with the column order and types of the files; missing values become null."""
    first = [name for name in (*ROW_COLUMNS, *FIRST_METRICS) if name in frame]
    columns = {}
    for name in [*first, *(name for name in frame if name not in first)]:
        if name in ROW_COLUMNS:
            columns[name] = pa.array(frame[name], type=ROW_COLUMNS[name])
        else:
            columns[name] = pa.array(floats(frame[name]), from_pandas=True)
    missing = [name for name in columns if name in ROW_COLUMNS and columns[name].null_count]
    if missing:
        raise ValueError(f"every row needs a value in {missing}")
    return pa.table(columns)
