"""The folder of a run: every file in it is whole at any moment, and nothing in it is overwritten silently."""

import json
import math
import os
import shutil
from collections.abc import Container, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from src_pure.runs import parquet
from src_pure.runs.lock import LOCK
from src_pure.runs.sealed import CheckpointError, DamagedError, flush

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
CONFIG, CHECKPOINTS = "config.yaml", "checkpoints"
FIRST_METRICS = ("episode_return", "episode_length", "success_rate")


def over_episodes(metric: str) -> bool:
    """Whether a column is a mean over the episodes of its row, so that rows weigh as many episodes as they hold."""
    return metric == "success_rate" or metric.startswith("episode_")


def main_metric(metrics: Container[str]) -> str:
    """The one that says how good a policy is: success_rate where the task has it, else episode_return."""
    return "success_rate" if "success_rate" in metrics else "episode_return"


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `path` if the block ends well; else `path` stays as it was."""
    partial = path.with_name(f".{path.name}.partial")  # in the same folder, where replacing is one atomic step
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        flush(path.parent)
    finally:
        partial.unlink(missing_ok=True)


class ParquetTable:
    """A parquet file that grows by rows. Parquet cannot be appended to, so the rows are kept and written again.

    Raises DamagedError for a file that is not what was written.
    """

    def __init__(self, path: Path):
        self.path = path
        self.rows: pa.Table | None = parquet.read(path) if path.exists() else None

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
            self.path.unlink()
            self.rows = None
        elif rows.num_rows < self.rows.num_rows:
            self._replace(rows)

    def updates(self) -> set[int]:
        """Updates that have rows."""
        return set() if self.rows is None else set(self.rows["update"].unique().to_pylist())

    def _replace(self, rows: pa.Table) -> None:
        with replacing(self.path) as file:
            parquet.write(rows, file)
        self.rows = rows


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


class RunDir:
    """A run folder. `RunDir(path)` continues the files that are there, `RunDir.create` starts a new run."""

    def __init__(self, path: Path):
        self.path = path
        self.disposable = False  # made by this process, for a run that nobody is to continue yet
        self.metrics = ParquetTable(path / "metrics.parquet")
        self.evaluation = ParquetTable(path / "evaluation.parquet")

    @classmethod
    def create(cls, path: str | Path, config_yaml: str) -> "RunDir":
        """A new run folder holding config.yaml; refuses a folder that is not empty."""
        path = Path(path)
        make_free(path)
        (path / CHECKPOINTS).mkdir(exist_ok=True)
        run_dir = cls(path)
        run_dir.write_config(config_yaml)  # last: with it the folder can be continued
        run_dir.disposable = True
        return run_dir

    @staticmethod
    def continuable(path: Path) -> bool:
        """Whether a folder is a run that keeps checkpoints, and not something else that must not be touched."""
        return (path / CONFIG).is_file() and (path / CHECKPOINTS).is_dir()

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    def rewind(self, update: int) -> None:
        """The tables as they were after an update."""
        self.metrics.rewind(update)
        self.evaluation.rewind(update)

    def discard(self) -> None:
        """Nothing is left of a new run that never came to its first metrics: its folder is free for another try."""
        if not self.disposable:
            return
        try:
            begun = self.metrics.path.name in os.listdir(self.path) or os.listdir(self.checkpoints)
        except OSError:
            return  # it vanished, or may not be looked into any more: then nothing is known to be lost
        if not begun:
            shutil.rmtree(self.path, ignore_errors=True)

    def write_config(self, config_yaml: str) -> None:
        """config.yaml, replaced as a whole."""
        with replacing(self.path / CONFIG) as file:
            file.write(config_yaml.encode())

    def append_metrics(self, frame: pd.DataFrame) -> None:
        """metrics.parquet, longer by one segment: one row per update and run."""
        self.metrics.append(frame)

    def append_evaluation(self, frame: pd.DataFrame) -> None:
        """evaluation.parquet, longer by one evaluation: one row per run and policy mode."""
        self.evaluation.append(frame)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """summary.json, replaced as a whole."""
        with replacing(self.path / "summary.json") as file:
            file.write(json.dumps(strict_json(summary), indent=2, allow_nan=False).encode() + b"\n")

    def summary(self) -> dict[str, Any] | None:
        """What summary.json says, None before the end of a run."""
        path = self.path / "summary.json"
        if not path.exists():
            return None
        try:
            summary = json.loads(path.read_bytes())
            if not {"env_steps", "runs"} <= set(summary):
                raise ValueError("it has no env_steps and runs")
            return summary
        except (ValueError, TypeError) as error:
            raise DamagedError(f"{path} cannot be read: {error}; delete it to have it written again") from error

    def log(self, line: str) -> None:
        """log.txt, longer by one line with its time."""
        with (self.path / "log.txt").open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {line}\n")


def make_free(path: Path) -> None:
    """Makes a folder, or refuses one that is there and not empty."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        found = sorted(item.name for item in path.iterdir() if not _before_config(item))
    except OSError as error:
        message = f"cannot make run_dir={path}: {error.strerror}; choose a run_dir that can be written"
        raise type(error)(message) from error
    if found:
        listed = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
        raise FileExistsError(f"run_dir={path} is not empty ({listed}); choose another run_dir or delete this one")


def _before_config(item: Path) -> bool:
    """Whether a start that was killed before it wrote config.yaml leaves this in a folder."""
    return item.name in (LOCK, f".{CONFIG}.partial") or (item.name == CHECKPOINTS and not any(item.iterdir()))


def read_metrics(path: str | Path) -> pd.DataFrame:
    """The metrics of a run folder, missing values as NaN."""
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"no run folder {path}")
    file = path / "metrics.parquet"
    if not file.exists():
        raise FileNotFoundError(f"no metrics.parquet in {path}: not a run folder, or one with no segment done yet")
    return parquet.read(file).to_pandas()
