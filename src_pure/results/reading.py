"""Reads run folders and sweep folders, finished or still training, as pandas DataFrames."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from src_pure.config.sweep import one_point
from src_pure.errors import ConfigError, DamagedError, one_line
from src_pure.experiment import LANES, lanes_of, with_values
from src_pure.lanes import Lane
from src_pure.runs.folder import is_there, read_file
from src_pure.runs.resume import read_config
from src_pure.runs.rundir import read_table
from src_pure.runs.tables import EVALUATION, METRICS
from src_pure.sweeps import folder as sweeps
from src_pure.sweeps.folder import BATCHES, RUNS, is_sweep_folder, status_of

TABLES = {"metrics": METRICS, "evaluation": EVALUATION}
RUN_COLUMNS = ("run", "seed", "point", "program", "batch", "state")  # of runs.parquet; the swept keys follow
SEARCH_COLUMNS = ("value", "updates")  # and these, where a search wrote it
WAITING, FINISHED, FAILED = "waiting", "finished", "failed"


def read_run(folder: str | Path, table: str = "metrics") -> pd.DataFrame:
    """The rows of a run folder, or of all batches of a sweep folder, joined with the columns of `read_runs`.

    table: "metrics" or "evaluation". Batches without such rows so far are left out; raises FileNotFoundError if all
    are, DamagedError if a batch holds runs that the sweep does not know.
    """
    folder = Path(folder)
    if table not in TABLES:
        raise ConfigError(f"table must be one of {', '.join(TABLES)}, got {table!r}")
    if not is_sweep_folder(existing(folder)):
        return read_table(folder, TABLES[table])
    runs = read_runs(folder)
    rows = read_batches(folder, runs, table)
    return rows.merge(runs.drop(columns="seed"), on="run", how="left")


def read_batches(folder: Path, runs: pd.DataFrame, table: str) -> pd.DataFrame:
    """The rows of the batches of a sweep that train these runs, as `read_run` without the columns of `read_runs`."""
    paths = [folder / BATCHES / str(batch) for batch in sorted(runs["batch"].unique())]
    frames = [read_table(path, TABLES[table]) for path in paths if is_there(path / TABLES[table])]
    if not frames:
        raise FileNotFoundError(f"no {TABLES[table]} in {folder / BATCHES} yet: no batch has got that far")
    rows = pd.concat(frames, ignore_index=True)
    if unknown := sorted(set(rows["run"]) - set(runs["run"])):
        raise DamagedError(f"{folder / BATCHES} holds run {unknown[0]}, which {folder / RUNS} lacks; restore it")
    return rows


def read_runs(folder: str | Path) -> pd.DataFrame:
    """One row per run: run, seed, point, program, batch, state, then the swept keys by their dotted names.

    Runs of the same point differ only in their seeds. The state is waiting, running, stopped, finished or failed.
    """
    folder = Path(folder)
    if not is_sweep_folder(existing(folder)):
        return runs_of_folder(folder)
    check_runs_file(folder / RUNS)
    runs = sweeps.read_runs(folder)
    return runs.assign(state=runs["state"].fillna(WAITING))  # the folder of a batch may not have been copied yet


def existing(folder: Path) -> Path:
    """The folder; raises FileNotFoundError if it is not there."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no run folder {folder}")
    return folder


def check_runs_file(path: Path) -> None:
    """Raises DamagedError if runs.parquet cannot be read or lacks columns or rows."""
    if not is_there(path):
        raise DamagedError(f"{path} is missing; restore it, or repeat the command of the sweep in a new run_dir")
    try:
        runs = pq.read_table(pa.BufferReader(read_file(path)))
    except (pa.ArrowException, ValueError) as error:
        raise DamagedError(f"{path} cannot be read: {one_line(error)}") from error
    if missing := [name for name in RUN_COLUMNS if name not in runs.column_names]:
        raise DamagedError(f"{path} cannot be read: it has no column {', '.join(missing)}")
    numbers = runs["run"].to_pylist()
    if len(set(numbers)) < len(numbers) or not numbers:
        raise DamagedError(f"{path} cannot be read: every run must have one row")


def runs_of_folder(folder: Path) -> pd.DataFrame:
    """The rows of `read_runs` for one run folder, from the lanes of its configuration."""
    status = status_of(folder)
    rows, points = [], []
    for lane in lanes_in(read_config(folder)):
        if lane.values not in points:
            points.append(lane.values)
        state = FAILED if lane.label in status.failed else status.state
        row = {"run": lane.run, "seed": lane.seed, "point": points.index(lane.values), "program": 0, "batch": "000"}
        rows.append(row | {"state": state} | dict(lane.values))
    return pd.DataFrame(rows)


def lanes_in(config: dict[str, Any]) -> tuple[Lane, ...]:
    """The lanes of a resolved configuration, also if they differ only in their seeds."""
    if LANES in config:
        return lanes_of(config)
    return tuple(Lane(number, config["seed"] + number, {}) for number in range(config["num_seeds"]))


def config_of_run(folder: Path, run: int) -> dict[str, Any]:
    """The resolved configuration that trains one run of a run folder alone, with its seed."""
    config = read_config(folder)
    for lane in lanes_in(config):
        if lane.run == run:
            base = {key: value for key, value in one_point(config).items() if key != LANES}
            return with_values(base, lane.values) | {"seed": lane.seed, "num_seeds": 1}
    raise DamagedError(f"{folder} has no run {run}; restore the config.yaml that was written there")
