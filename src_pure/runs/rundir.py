"""The folder of a run. At any moment every file in it is whole; nothing in it is overwritten silently."""

import json
import math
import os
import shutil
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from annotated_types import Ge

from src_pure.errors import DamagedError
from src_pure.runs.atomic import partials_of, read_json, replacing, validated
from src_pure.runs.folder import Folder, append_line, is_there, refuse_odd
from src_pure.runs.identity import RUN, Identity, OwnedFile, read_identity, write_identity
from src_pure.runs.lock import LOCK
from src_pure.runs.tables import EVALUATION, METRICS, Table

CONFIG, SUMMARY, LOG, CHECKPOINTS = "config.yaml", "summary.json", "log.txt", "checkpoints"
FILES = (CONFIG, RUN, SUMMARY, LOG, LOCK)
FOLDERS = (METRICS, EVALUATION, CHECKPOINTS, "tensorboard", "wandb", ".wandb", "plots", "policies")


def strict_json(value: Any) -> Any:
    """The value in a form that JSON can store: non-finite numbers become null, NumPy numbers Python numbers."""
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
    """The fields of summary.json that are read back."""

    env_steps: NonNegative
    runs: NonNegative
    failed: dict[str, NonNegative]


class RunDir:
    """A run folder, held open. `RunDir.open(path)` opens an existing run, `begin` starts a new one.

    Once the folder has been moved, deleted or replaced, every method that writes raises MovedError.
    """

    def __init__(self, folder: Folder):
        self.folder = folder
        self.path = folder.path
        self.disposable = False  # a new run of this process without results so far
        self.made = False  # this process also created the folder
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
        """A new run in an open folder, which must be empty except for leftovers of a killed start."""
        refuse_used(folder.path)
        remove_partials(folder.held)
        (folder.held / CHECKPOINTS).mkdir(exist_ok=True)
        write_identity(folder.held, identity)
        with replacing(folder.held / CONFIG) as file:  # last, because it makes the folder continuable
            file.write(config_yaml.encode())
        run_dir = cls(folder)
        run_dir.disposable, run_dir.made = True, made
        return run_dir

    @staticmethod
    def continuable(path: Path) -> bool:
        """Whether a folder holds a run with checkpoints, as opposed to files that must not be touched."""
        return (path / CONFIG).is_file() and (path / CHECKPOINTS).is_dir()

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    def __enter__(self) -> "RunDir":
        return self

    def __exit__(self, *error: Any) -> None:
        self.folder.__exit__(*error)

    @property
    def begun(self) -> bool:
        """Whether there is anything to continue: rows or a checkpoint."""
        return bool(self.metrics.parts or os.listdir(self.folder.held / CHECKPOINTS))

    def rewind(self, update: int, rows_until: int | None = None) -> None:
        """Cuts the tables back to an update and deletes what interrupted writes left.

        rows_until: the last row of metrics to keep, if it ends before the update.
        """
        self.folder.check()
        remove_partials(self.folder.held)
        for table, last in ((self.metrics, update if rows_until is None else rows_until), (self.evaluation, update)):
            table.remove_partials()
            table.rewind(last)

    def discard(self) -> None:
        """Deletes the files of a new run that stopped before its first metrics, so that its name can be reused.

        Keeps everything if the folder holds anything else, such as a file of the user or of a dashboard.
        """
        held = self.folder.held
        if not self.disposable:
            return
        own = {CONFIG, RUN, LOG, LOCK, CHECKPOINTS}
        try:
            if self.begun or set(os.listdir(held)) - own:
                return
            for name in own - {CHECKPOINTS}:
                (held / name).unlink(missing_ok=True)
            (held / CHECKPOINTS).rmdir()
            if self.made:
                self.folder.check()
                self.path.rmdir()
        except OSError:
            return  # it vanished or became inaccessible; whatever is left can be continued

    def write_config(self, config_yaml: str) -> None:
        """Replaces config.yaml as a whole."""
        self._write(CONFIG, config_yaml.encode())

    def append_metrics(self, frame: pd.DataFrame, averaged_from: int | None = None) -> None:
        """Adds a part to metrics.parquet: one row per update and run, or means from update `averaged_from` on."""
        self.folder.check()
        self.metrics.append(frame, averaged_from)

    def append_evaluation(self, frame: pd.DataFrame) -> None:
        """Adds a part to evaluation.parquet: one row per run and policy mode."""
        self.folder.check()
        self.evaluation.append(frame)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Replaces summary.json as a whole."""
        summary = strict_json(self.identity._asdict() | summary)
        self._write(SUMMARY, json.dumps(summary, indent=2, allow_nan=False).encode() + b"\n")

    def summary(self) -> SummaryFile | None:
        """The content of summary.json, None before the end of a run; raises ForeignError if another run wrote it."""
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
        """Appends a line with the current time to log.txt."""
        self.folder.check()
        append_line(self.folder.held / LOG, f"{datetime.now():%Y-%m-%d %H:%M:%S}  {line}")

    def _table(self, name: str) -> Table:
        table = Table(self.path / name, self.folder.held / name, self.identity)
        table.check()
        return table

    def _write(self, name: str, content: bytes) -> None:
        self.folder.check()
        with replacing(self.folder.held / name) as file:
            file.write(content)


def make_free(path: Path) -> bool:
    """Whether the folder is new; creates it if needed. Raises FileExistsError if it is not empty."""
    made = not path.is_dir()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"cannot make run_dir={path}: {error.strerror}; choose a run_dir that can be written"
        raise type(error)(message) from error
    refuse_used(path)
    return made


def make_fresh(parent: Path, name: str) -> Path:
    """A new folder of this name, with a number appended if the name is taken."""
    parent.mkdir(parents=True, exist_ok=True)
    number = 0
    while True:
        number += 1
        path = parent / (name if number == 1 else f"{name}_{number}")
        with suppress(FileExistsError):
            path.mkdir()
            return path


def remove_partials(folder: Path) -> None:
    """Deletes half-written files and tables; nobody is writing them, because the caller holds the folder's lock."""
    for partial in (partial for name in FILES for partial in partials_of(folder / name)):
        if partial.is_file() and not partial.is_symlink():
            partial.unlink()
    for partial in (partial for name in (METRICS, EVALUATION) for partial in partials_of(folder / name)):
        if partial.is_dir() and not partial.is_symlink():
            shutil.rmtree(partial)


def refuse_used(path: Path) -> None:
    """Raises FileExistsError if a folder holds anything but leftovers of a killed start."""
    found = sorted(item.name for item in path.iterdir() if not _before_config(item))
    if found:
        listed = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
        raise FileExistsError(f"run_dir={path} is not empty ({listed}); choose another run_dir or delete this one")


def _before_config(item: Path) -> bool:
    """Whether an item may be left by a start that was killed before it wrote config.yaml."""
    if item.name == CHECKPOINTS:
        return item.is_dir() and not any(item.iterdir())
    return item.name in (LOCK, RUN) or item in partials_of(item.with_name(CONFIG)) + partials_of(item.with_name(RUN))


def read_metrics(path: str | Path) -> pd.DataFrame:
    """The metrics of a run folder, missing values as NaN."""
    return read_table(Path(path), METRICS)


def read_table(path: Path, name: str) -> pd.DataFrame:
    """A table of a run folder, METRICS or EVALUATION, missing values as NaN; also while the run is still training."""
    if not path.is_dir():
        raise FileNotFoundError(f"no run folder {path}")
    refuse_odd(path, FILES, FOLDERS)
    identity = read_identity(path) if is_there(path / RUN) else None  # published results carry no identity
    table = Table(path / name, path / name, identity)
    if not table.parts:
        raise FileNotFoundError(f"no {name} in {path}: not a run folder, or one with no segment done yet")
    return table.frame()
