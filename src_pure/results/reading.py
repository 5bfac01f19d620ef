"""Reads run folders and sweep folders, finished or still training, as pandas DataFrames."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from src_pure.errors import ConfigError, DamagedError, one_line
from src_pure.experiment import LANES, with_values
from src_pure.runs.atomic import read_json, validated
from src_pure.runs.folder import is_there, read_file, refuse_odd
from src_pure.runs.lock import LOCK
from src_pure.runs.resume import read_config
from src_pure.runs.rundir import SUMMARY, SummaryFile, read_table
from src_pure.runs.tables import EVALUATION, METRICS

SWEEP, RUNS, BATCHES = "sweep.yaml", "runs.parquet", "batches"  # of a sweep folder
TABLES = {"metrics": METRICS, "evaluation": EVALUATION}
RUN_COLUMNS = ("run", "seed", "point", "program", "batch", "state")  # of runs.parquet; the swept keys follow
WAITING, RUNNING, STOPPED, FINISHED, FAILED = "waiting", "running", "stopped", "finished", "failed"


def is_sweep(folder: Path) -> bool:
    """Whether a folder holds a sweep, as opposed to one run folder."""
    return is_there(folder / SWEEP) or is_there(folder / RUNS)


def read_run(folder: str | Path, table: str = "metrics") -> pd.DataFrame:
    """The rows of a run folder, or of all batches of a sweep folder, joined with the columns of `read_runs`.

    table: "metrics" or "evaluation". Batches without such rows so far are left out; raises FileNotFoundError if all
    are, DamagedError if a batch holds runs that the sweep does not know.
    """
    folder = Path(folder)
    if table not in TABLES:
        raise ConfigError(f"table must be one of {', '.join(TABLES)}, got {table!r}")
    if not is_sweep(existing(folder)):
        return read_table(folder, TABLES[table])
    runs = read_runs(folder)
    paths = [batch_folder(folder, batch) for batch in sorted(runs["batch"].unique())]
    frames = [read_table(path, TABLES[table]) for path in paths if is_there(path / TABLES[table])]
    if not frames:
        raise FileNotFoundError(f"no {TABLES[table]} in {folder / BATCHES} yet: no batch has got that far")
    rows = pd.concat(frames, ignore_index=True)
    if unknown := sorted(set(rows["run"]) - set(runs["run"])):
        raise DamagedError(f"{folder / BATCHES} holds run {unknown[0]}, which {folder / RUNS} lacks; restore it")
    return rows.merge(runs.drop(columns="seed"), on="run", how="left")


def read_runs(folder: str | Path) -> pd.DataFrame:
    """One row per run: run, seed, point, program, batch, state, then the swept keys by their dotted names.

    Runs of the same point differ only in their seeds. The state is waiting, running, stopped, finished or failed. Of a
    run folder that is not a sweep, an unfinished run counts as running while the folder has a lock file.
    """
    folder = Path(folder)
    if not is_sweep(existing(folder)):
        return runs_of_folder(folder)
    runs = read_runs_file(folder / RUNS)
    for batch, rows in runs.groupby("batch"):
        path = batch_folder(folder, batch)
        if path.is_dir():
            runs.loc[rows.index, "state"] = states(path, rows["run"].to_numpy(), rows["state"].to_numpy())
    return runs


def existing(folder: Path) -> Path:
    """The folder; raises FileNotFoundError if it is not there."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no run folder {folder}")
    return folder


def batch_folder(folder: Path, batch: Any) -> Path:
    """The run folder of a batch by its number, as a number or as text."""
    return folder / BATCHES / f"{int(batch):03}"


def read_runs_file(path: Path) -> pd.DataFrame:
    """The content of runs.parquet; raises DamagedError if it cannot be read or lacks columns."""
    if not is_there(path):
        raise FileNotFoundError(f"no {RUNS} in {path.parent}: the sweep has not made its batches yet")
    try:
        runs = pq.read_table(pa.BufferReader(read_file(path))).to_pandas()
    except (pa.ArrowException, ValueError) as error:
        raise DamagedError(f"{path} cannot be read: {one_line(error)}") from error
    if missing := [name for name in RUN_COLUMNS if name not in runs]:
        raise DamagedError(f"{path} cannot be read: it has no column {', '.join(missing)}")
    if runs["run"].duplicated().any() or not len(runs):
        raise DamagedError(f"{path} cannot be read: every run must have one row")
    return runs


def runs_of_folder(folder: Path) -> pd.DataFrame:
    """The rows of `read_runs` for one run folder, from the lanes of its configuration."""
    config = read_config(folder)
    lanes = lanes_of(config)
    rows, points = [], []
    for position, lane in enumerate(lanes):
        values = values_of(lane)
        if values not in points:
            points.append(values)
        first = {"run": lane.get("run", position), "seed": lane["seed"], "point": points.index(values)}
        rows.append(first | {"program": 0, "batch": 0, "state": STOPPED} | values)
    runs = pd.DataFrame(rows)
    begun = RUNNING if is_there(folder / LOCK) else STOPPED if is_there(folder / METRICS) else WAITING
    runs["state"] = states(folder, runs["run"].to_numpy(), np.full(len(runs), begun, object))
    return runs


def lanes_of(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The lanes of a resolved configuration; those that differ only in their seeds are not listed in it."""
    if LANES in config:
        return config[LANES]
    return [{"seed": config["seed"] + number} for number in range(config["num_seeds"])]


def values_of(lane: dict[str, Any]) -> dict[str, Any]:
    """What a lane sets, besides its number and its seed."""
    return {key: value for key, value in lane.items() if key not in ("run", "seed")}


def config_of_run(folder: Path, run: int) -> dict[str, Any]:
    """The resolved configuration that trains one run of a run folder alone, with its seed."""
    config = read_config(folder)
    for position, lane in enumerate(lanes_of(config)):
        if lane.get("run", position) == run:
            base = {key: value for key, value in config.items() if key not in (LANES, "sweep")}
            return with_values(base, values_of(lane)) | {"seed": lane["seed"], "num_seeds": 1}
    raise DamagedError(f"{folder} has no run {run}; restore the config.yaml that was written there")


def states(folder: Path, runs: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """The state of runs [R] of a run folder that came to its end; `otherwise` [R] if it has not.

    A run that failed has no rows in the evaluation at the end.
    """
    refuse_odd(folder, [SUMMARY])
    if not is_there(folder / SUMMARY):
        return otherwise
    summary = validated(read_json(folder / SUMMARY), SummaryFile, folder / SUMMARY)
    if summary.failed and len(summary.failed) >= summary.runs:
        return np.full(len(runs), FAILED, object)
    config = read_config(folder)
    steps = config["num_envs"] * config["num_steps"]
    end = config["total_steps"] // steps
    if summary.env_steps < end * steps or not is_there(folder / EVALUATION):
        return otherwise
    evaluation = read_table(folder, EVALUATION)
    finished = evaluation.loc[evaluation["update"] == end, "run"]
    return np.where(np.isin(runs, finished), FINISHED, FAILED).astype(object)
