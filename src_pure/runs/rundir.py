"""The folder of a run: every file in it is whole at any moment, and nothing in it is overwritten silently."""

import hashlib
import itertools
import json
import math
import os
from collections.abc import Container
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from annotated_types import Ge

from src_pure.errors import CheckpointError, DamagedError
from src_pure.runs import parquet
from src_pure.runs.folder import Folder, append_line, is_there, refuse_odd
from src_pure.runs.identity import RUN, Identity, OwnedFile, read_identity, write_identity
from src_pure.runs.lock import LOCK
from src_pure.runs.sealed import PARTIAL, read_json, replacing, validated

# what a row says about itself, in this order; behind it come means over its episodes, then everything else (losses)
ROW_COLUMNS = {
    "run": pa.int64(),
    "seed": pa.int64(),
    "update": pa.int64(),
    "env_steps": pa.int64(),
    "mode": pa.string(),
    "episodes": pa.int64(),
    "unfinished": pa.int64(),
}
CONFIG, METRICS, EVALUATION, SUMMARY = "config.yaml", "metrics.parquet", "evaluation.parquet", "summary.json"
LOG, CHECKPOINTS = "log.txt", "checkpoints"
FILES = (CONFIG, RUN, METRICS, EVALUATION, SUMMARY, LOG, LOCK)
FOLDERS = (CHECKPOINTS, "tensorboard", "wandb", ".wandb", "plots", "policies")
FIRST_METRICS = ("episode_return", "episode_length", "success_rate")


def over_episodes(metric: str) -> bool:
    """Whether a column is a mean over the episodes of its row, so that rows weigh as many episodes as they hold."""
    return metric == "success_rate" or metric.startswith("episode_")


def main_metric(metrics: Container[str]) -> str:
    """The one that says how good a policy is: success_rate where the task has it, else episode_return."""
    return "success_rate" if "success_rate" in metrics else "episode_return"


class ParquetTable:
    """A parquet file that grows by rows. Parquet cannot be appended to, so the rows are kept and written again.

    path: its name for people; held: where it is, in a folder that is held open. Raises DamagedError for a file that is
    not what was written, ForeignError for one of another run.
    """

    def __init__(self, path: Path, held: Path, identity: Identity):
        self.path = path
        self.held = held
        self.identity = identity
        self.rows: pa.Table | None = None
        if is_there(held):
            self.rows = read_table(held, identity)

    def append(self, frame: pd.DataFrame) -> None:
        """Rows on disk behind the earlier ones; raises CheckpointError for other columns than these have."""
        rows = to_arrow(frame)
        if self.rows is not None:
            if set(rows.column_names) != set(self.rows.column_names):
                difference = sorted(set(rows.column_names) ^ set(self.rows.column_names))
                raise CheckpointError(
                    f"{self.path} was written by other code, which had or lacked {', '.join(difference)}; continue "
                    "with that code or choose a new run_dir"
                )
            rows = pa.concat_tables([self.rows, rows.select(self.rows.column_names)])
        self._replace(rows)

    def rewind(self, update: int) -> None:
        """Only rows up to an update are left; without any the file is gone."""
        if self.rows is None:
            return
        rows = self.rows.filter(pc.field("update") <= update)
        if rows.num_rows == 0:
            self.held.unlink()
            self.rows = None
        elif rows.num_rows < self.rows.num_rows:
            self._replace(rows)

    def updates(self) -> set[int]:
        """Updates that have rows."""
        return set() if self.rows is None else set(self.rows["update"].unique().to_pylist())

    def digest_of(self, update: int) -> str:
        """SHA-256 of the rows of an update."""
        rows = [] if self.rows is None else self.rows.filter(pc.field("update") == update).to_pylist()
        rows.sort(key=lambda row: row["run"])
        return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()

    def _replace(self, rows: pa.Table) -> None:
        with replacing(self.held) as file:
            parquet.write(rows, file, self.identity)
        self.rows = rows


def read_table(path: Path, identity: Identity | None) -> pa.Table:
    """The table in a file of a run; raises ForeignError for one of another run, DamagedError without its columns.

    identity: None where the run does not say who it is, as in published results.
    """
    rows, found = parquet.read(path)
    if identity is not None:
        identity.check(found, path)
    lacking = {"run", "seed", "update", "env_steps", "episodes"} - set(rows.column_names)
    if path.name == EVALUATION:
        lacking |= {"mode", "unfinished"} - set(rows.column_names)
    if lacking:
        raise DamagedError(f"{path} cannot be read: it has no column {', '.join(sorted(lacking))}")
    return rows


def floats(column: pd.Series) -> np.ndarray:
    """The column as float64, NaN where pandas calls it missing (NaN, NA, None)."""
    return column.to_numpy("float64", na_value=np.nan)


def to_arrow(frame: pd.DataFrame) -> pa.Table:
    """The frame in the column order and types of the files; what is missing is null."""
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


def strict_json(value: Any) -> Any:
    """The same value in what JSON can say: numbers that are not finite become null, NumPy's become Python's."""
    if isinstance(value, dict):
        return {str(key): strict_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict_json(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return strict_json(value.tolist())
    if value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value


NonNegative = Annotated[int, Ge(0)]


class SummaryFile(OwnedFile):
    """What is read again of summary.json."""

    env_steps: NonNegative
    runs: NonNegative
    failed: dict[str, NonNegative]


class RunDir:
    """A run folder, held open. `RunDir.open(path)` continues the files that are there, `begin` starts a new run.

    Nothing is written once the folder was moved, deleted or replaced: then every method that writes raises MovedError.
    """

    def __init__(self, folder: Folder):
        self.folder = folder
        self.path = folder.path
        self.disposable = False  # a new run of this process, which nobody needs yet
        self.made = False  # this process made the folder as well
        refuse_odd(folder.held, FILES, FOLDERS)
        self.identity = read_identity(folder.held)
        self.metrics = self._table(METRICS)
        self.evaluation = self._table(EVALUATION)

    @classmethod
    def open(cls, path: str | Path) -> "RunDir":
        """The run folder at a path."""
        folder = Folder(Path(path))
        try:
            return cls(folder)
        except BaseException as error:
            folder.__exit__(type(error), error, None)
            raise

    @classmethod
    def begin(cls, folder: Folder, made: bool, config_yaml: str, identity: Identity) -> "RunDir":
        """A new run in an open folder that is empty, but for what a start that was killed left there."""
        refuse_used(folder.path)
        remove_partials(folder.held)
        (folder.held / CHECKPOINTS).mkdir(exist_ok=True)
        write_identity(folder.held, identity)
        with replacing(folder.held / CONFIG) as file:  # last: with it the folder can be continued
            file.write(config_yaml.encode())
        run_dir = cls(folder)
        run_dir.disposable, run_dir.made = True, made
        return run_dir

    @staticmethod
    def continuable(path: Path) -> bool:
        """Whether a folder is a run that keeps checkpoints, and not something else that must not be touched."""
        return (path / CONFIG).is_file() and (path / CHECKPOINTS).is_dir()

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    def __enter__(self) -> "RunDir":
        return self

    def __exit__(self, *error: Any) -> None:
        self.folder.__exit__(*error)

    def rewind(self, update: int) -> None:
        """The tables as they were after an update, and nothing left of files whose writing was killed."""
        self.folder.check()
        remove_partials(self.folder.held)
        self.metrics.rewind(update)
        self.evaluation.rewind(update)

    def discard(self) -> None:
        """Removes the files of a new run that stopped before its first metrics, so that its name can be used again.

        Everything stays where anything else lies, such as a file of the user or of a dashboard.
        """
        held = self.folder.held
        if not self.disposable or self.metrics.rows is not None:
            return
        own = {CONFIG, RUN, LOG, LOCK, CHECKPOINTS}
        try:
            if set(os.listdir(held)) - own or os.listdir(held / CHECKPOINTS):
                return
            for name in own - {CHECKPOINTS}:
                (held / name).unlink(missing_ok=True)
            (held / CHECKPOINTS).rmdir()
            if self.made:
                self.folder.check()
                self.path.rmdir()
        except OSError:
            return  # it vanished, or may not be looked into any more: what is left is a run that can be continued

    def write_config(self, config_yaml: str) -> None:
        """config.yaml, replaced as a whole."""
        self._write(CONFIG, config_yaml.encode())

    def append_metrics(self, frame: pd.DataFrame) -> None:
        """metrics.parquet, longer by one segment: one row per update and run."""
        self.folder.check()
        self.metrics.append(frame)

    def append_evaluation(self, frame: pd.DataFrame) -> None:
        """evaluation.parquet, longer by one evaluation: one row per run and policy mode."""
        self.folder.check()
        self.evaluation.append(frame)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """summary.json, replaced as a whole."""
        summary = strict_json(self.identity._asdict() | summary)
        self._write(SUMMARY, json.dumps(summary, indent=2, allow_nan=False).encode() + b"\n")

    def summary(self) -> SummaryFile | None:
        """What summary.json says, None before the end of a run; raises ForeignError for one of another run."""
        path = self.folder.held / SUMMARY
        if not is_there(path):
            return None
        try:
            found = read_json(path)
            if not (isinstance(found, dict) and set(Identity._fields) <= set(found)):
                self.identity.check(None, path)
            summary = validated(found, SummaryFile, path)
        except DamagedError as error:
            raise DamagedError(f"{error}; delete it to have it written again") from error
        self.identity.check(summary.identity, path)
        return summary

    def log(self, line: str) -> None:
        """log.txt, longer by one line with its time."""
        self.folder.check()
        append_line(self.folder.held / LOG, f"{datetime.now():%Y-%m-%d %H:%M:%S}  {line}")

    def _table(self, name: str) -> ParquetTable:
        return ParquetTable(self.path / name, self.folder.held / name, self.identity)

    def _write(self, name: str, content: bytes) -> None:
        self.folder.check()
        with replacing(self.folder.held / name) as file:
            file.write(content)


def make_free(path: Path) -> bool:
    """Whether the folder is new; raises FileExistsError for one that is there and not empty."""
    made = not path.is_dir()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"cannot make run_dir={path}: {error.strerror}; choose a run_dir that can be written"
        raise type(error)(message) from error
    refuse_used(path)
    return made


def make_fresh(parent: Path, name: str) -> Path:
    """A new folder of this name, or of this name and a number where others have made it first."""
    parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        path = parent / (name if number == 1 else f"{name}_{number}")
        with suppress(FileExistsError):
            path.mkdir()
            return path


def remove_partials(folder: Path) -> None:
    """Removes files whose writing was killed; the lock of the folder is held, so nobody writes them now."""
    for name in FILES:
        for partial in folder.glob(PARTIAL.format(name)):
            if partial.is_file() and not partial.is_symlink():
                partial.unlink()


def refuse_used(path: Path) -> None:
    """Raises FileExistsError for a folder that holds anything but what a start that was killed leaves."""
    found = sorted(item.name for item in path.iterdir() if not _before_config(item))
    if found:
        listed = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
        raise FileExistsError(f"run_dir={path} is not empty ({listed}); choose another run_dir or delete this one")


def _before_config(item: Path) -> bool:
    """Whether a start that was killed before it wrote config.yaml leaves this in a folder."""
    if item.name == CHECKPOINTS:
        return item.is_dir() and not any(item.iterdir())
    return item.name in (LOCK, RUN) or any(item.match(PARTIAL.format(name)) for name in (CONFIG, RUN))


def read_metrics(path: str | Path) -> pd.DataFrame:
    """The metrics of a run folder, missing values as NaN."""
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"no run folder {path}")
    refuse_odd(path, FILES, FOLDERS)
    if not (path / METRICS).exists():
        raise FileNotFoundError(f"no {METRICS} in {path}: not a run folder, or one with no segment done yet")
    identity = read_identity(path) if is_there(path / RUN) else None  # published results have none
    return read_table(path / METRICS, identity).to_pandas()
