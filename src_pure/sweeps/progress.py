"""How far each batch of a run has come, read from its folder at this moment; also while it trains."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from src_pure.errors import CheckpointError, ConfigError, explain, one_line
from src_pure.runs.columns import main_metric, weighted_means
from src_pure.runs.folder import is_there
from src_pure.runs.lock import LOCK
from src_pure.runs.resume import read_config
from src_pure.runs.tables import METRICS, list_parts
from src_pure.sweeps.folder import State, Status, status_of
from src_pure.sweeps.slurm import Job

READS = 3  # a training may replace a part of its table between listing and reading


class Progress(NamedTuple):
    """One batch, as a row of the table."""

    batch: str
    state: State
    runs: int
    update: int
    updates: int  # at the end
    metric: str  # empty before the first rows
    value: float  # mean over the runs in the last row of metrics, NaN where no episode ended
    reason: str  # of a failure


def progress(batch: Path) -> Progress:
    """How far a batch has come; files that are damaged or cannot be read are the reason why it failed."""
    try:
        return read_progress(batch)
    except (CheckpointError, ConfigError, OSError) as error:
        return Progress(batch.name, "failed", 0, 0, 0, "", float("nan"), one_line(explain(error)))


def read_progress(batch: Path) -> Progress:
    """How far a batch has come; raises CheckpointError, ConfigError or OSError for files that cannot be used."""
    config, status = read_config(batch), status_of(batch)
    runs = len(config["lanes"]) if "lanes" in config else config["num_seeds"]
    updates = config["total_steps"] // (config["num_envs"] * config["num_steps"])
    rows = last_rows(batch)
    update = 0 if rows is None else int(rows["update"].max())
    metric = "" if rows is None else main_metric(rows)
    value = float("nan")
    if rows is not None:
        last = rows[rows["update"] == update]
        value = float(weighted_means(last, metric, [last["update"].to_numpy()]).iloc[0])
    return Progress(batch.name, status.state, runs, update, updates, metric, value, reason_of(batch, status))


def last_rows(batch: Path) -> pd.DataFrame | None:
    """The newest part of a batch's metrics, None before the first."""
    for attempt in range(READS):
        try:
            parts = list_parts(batch / METRICS, batch / METRICS)
            return pd.read_parquet(batch / METRICS / parts[-1].name) if parts else None
        except FileNotFoundError:
            if attempt == READS - 1:
                raise
    return None


def reason_of(batch: Path, status: Status) -> str:
    """Why a batch or some of its runs failed, or that its process died without a word; empty if all is well."""
    if status.failed:
        first, update = next(iter(status.failed.items()))
        return f"{len(status.failed)} runs failed, the first of seed {first} at update {update}"
    if status.state in ("stopped", "waiting") and is_there(batch / LOCK):  # a process removes its lock when it ends
        return "killed, or its node failed"
    return status.reason


def table(rows: Sequence[Progress], jobs: Mapping[str, Job]) -> str:
    """The table for people; jobs: by name of the batch, empty where there are none."""
    metrics = {row.metric for row in rows if row.update}
    frame = pd.DataFrame(
        {
            "batch": [row.batch for row in rows],
            "state": [row.state for row in rows],
            "runs": [row.runs for row in rows],
            "update": [f"{row.update:,}/{row.updates:,}" for row in rows],
        }
    )
    for metric in sorted(metrics):  # several where batches are of different tasks
        frame[metric] = ["" if row.metric != metric or pd.isna(row.value) else f"{row.value:.3g}" for row in rows]
    if jobs:
        frame["job"] = [str(jobs.get(row.batch, "")) for row in rows]
    if any(row.reason for row in rows):
        frame["reason"] = [row.reason for row in rows]
    return aligned(frame)


def aligned(frame: pd.DataFrame) -> str:
    """The frame as text with a header, columns as wide as they need; the last one is not padded."""
    columns = [[str(name), *map(str, frame[name])] for name in frame]
    widths = [max(map(len, column)) for column in columns]
    lines = zip(*columns, strict=True)
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
