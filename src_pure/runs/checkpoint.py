"""Checkpoints: the complete TrainState of all runs on disk, written whole or not at all, verified before it is used.

    checkpoints/<update>/  state/           every array of the TrainState by name, written by orbax
                           checkpoint.json  format, identity of the run, update, metric and score, seconds, the resolved
                                            configuration, the settings of the process that wrote it, the
                                            digest of the last row of metrics, lanes per block
                           pending.parquet  updates that wait for the end of their row of metrics, if there are any
                           sha256.json      the digest of every other file

A name without dots marks a complete checkpoint. Orbax does not notice every damaged byte, so the digests are compared
before it reads. Shapes are compared before arrays are read, because a few bytes can declare an array of any size.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
import pandas as pd
from annotated_types import Ge, Gt

from src_pure.errors import CheckpointError, DamagedError, ForeignError, OddFileError, RemovedError, one_line
from src_pure.runs import pending
from src_pure.runs.arrays import compare, named_arrays, numpy_like, without_empty
from src_pure.runs.atomic import read_description, read_whole, write_whole
from src_pure.runs.folder import Folder, refuse_odd
from src_pure.runs.identity import Identity, OwnedFile
from src_pure.types import TrainState

FORMAT = 3  # of the folder described above
MARGIN = 2**18  # bytes for the metadata of the arrays
KIND, STATE = "checkpoint", "state"
NUMBER = re.compile("0|[1-9][0-9]{0,17}")  # the name of a checkpoint


class CheckpointFile(OwnedFile):
    """The content of checkpoint.json."""

    update: Annotated[int, Ge(0)]
    metric: str | None
    score: float | None
    seconds: Annotated[float, Ge(0)]
    wall_seconds: Annotated[float, Ge(0)]
    config: dict[str, Any]
    process: dict[str, Any]
    continued: list[dict[str, Any]]
    metrics_sha256: str
    lanes_per_block: Annotated[int, Gt(0)]


class Checkpoint(NamedTuple):
    """A checkpoint whose files are as they were written."""

    path: Path
    update: int
    score: float | None  # value of the metric that selects the best checkpoint
    seconds: float  # of training, without compilation
    wall_seconds: float  # all time, in every process so far
    config: dict[str, Any]
    process: dict[str, Any]  # process.numeric_settings() of the process that wrote it
    continued: list[dict[str, Any]]  # where the run continued under other settings: {update, differences}
    metrics_sha256: str  # of the last rows in the table of metrics: those of this update, if no updates are pending
    lanes_per_block: int  # on each device: a program of another width rounds differently
    identity: Identity

    def arrays(self) -> dict[str, np.ndarray]:
        """Every saved array by name; raises CheckpointError if orbax cannot read them."""
        return self._restore(self.described())

    def described(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The declared shape and dtype of every array by name."""
        try:
            metadata = _orbax(ocp.StandardCheckpointHandler).metadata(self.path.absolute() / STATE).item_metadata
            if metadata is None:
                raise OSError("orbax cannot read the description of its arrays")
            found = metadata.tree
            return {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in found.items()}
        except Exception as error:  # orbax raises many types of errors; the digests were just verified
            raise CheckpointError(f"{self.path} cannot be read: {one_line(error)}") from error

    def _restore(self, wanted: dict[str, jax.ShapeDtypeStruct]) -> dict[str, np.ndarray]:
        handler = _orbax(ocp.PyTreeCheckpointHandler)
        args = ocp.args.PyTreeRestore(item=dict.fromkeys(wanted, 0), partial_restore=True)
        try:
            return handler.restore(self.path.absolute() / STATE, args=args)
        except Exception as error:  # as above
            raise CheckpointError(f"{self.path} cannot be read: {one_line(error)}") from error

    def arrays_beside_training(self, like: dict[str, Any]) -> dict[str, np.ndarray]:
        """The arrays of a checkpoint that a running training may delete; raises RemovedError if it does.

        like: the wanted arrays by name; raises CheckpointError before reading if the checkpoint declares another shape
        or dtype. Reads a copy, because orbax prints a traceback in every thread when files vanish.
        """
        with TemporaryDirectory() as folder:
            copy = Path(folder) / self.path.name
            try:
                shutil.copytree(self.path, copy, symlinks=True)
            except OSError:
                if self.path.exists():
                    raise
            if not self.path.exists():  # a training renames it before deleting its files
                raise RemovedError(f"{self.path} was removed while it was read")
            copied = self._replace(path=copy)
            described = copied.described()
            try:
                compare(like, {name: described[name] for name in like if name in described})
            except ValueError as error:
                raise CheckpointError(f"{self.path} does not hold its configuration's parameters: {error}") from error
            return copied._restore(like)

    def restore(self, like: TrainState) -> TrainState:
        """The saved state of all runs as numpy arrays, with the structure of `like` and key data for typed keys."""
        try:
            compare(without_empty(named_arrays(like)), self.described())
            return numpy_like(like, self.arrays())
        except ValueError as error:
            raise CheckpointError(f"{self.path} does not hold this training's state: {error}") from error


class Checkpoints:
    """The checkpoints of a run folder: the last `keep`, and the one with the highest score by `metric`.

    check: raises MovedError if the path no longer leads to the run folder that was opened.
    """

    def __init__(
        self,
        folder: Path,
        keep: int,
        identity: Identity,
        metric: str | None = None,
        check: Callable[[], None] = lambda: None,
    ):
        self.folder = folder
        self.keep = keep
        self.metric = metric  # may change when a training continues; scores of different metrics are not compared
        self.identity = identity
        self.check = check
        self.opened = Folder(folder)
        self.writer = ThreadPoolExecutor(1, "checkpoint")
        self.pending: Future[None] | None = None

    def save(
        self,
        state: TrainState,
        update: int,
        score: float | None,
        pending_rows: pd.DataFrame | None = None,
        **description: Any,
    ) -> None:
        """Copies the state and returns; a thread writes it during training. Raises the error of the previous write.

        Numpy arrays are taken as they are: nothing else may change them.
        """
        self.wait()
        arrays = {name: _own(x) for name, x in named_arrays(state).items() if x.size}
        description = {"format": FORMAT, **self.identity._asdict(), "update": update, "metric": self.metric,
                       "score": score, **description}  # fmt: skip
        self.pending = self.writer.submit(self._write, arrays, pending_rows, description)

    def wait(self) -> None:
        """Waits until nothing is being written; raises CheckpointError if the write failed."""
        if self.pending is not None:
            pending, self.pending = self.pending, None
            pending.result()

    def close(self) -> None:
        self.writer.shutdown()
        self.opened.close()

    def _write(
        self, arrays: dict[str, np.ndarray], pending_rows: pd.DataFrame | None, description: dict[str, Any]
    ) -> None:
        rows = pending.encode(pending_rows, self.identity)
        path = self.opened.held / str(description["update"])
        with self.opened.naming():
            with write_whole(path, KIND, description) as folder:
                self._check()
                _check_space(folder, sum(x.nbytes for x in arrays.values()) + len(rows))
                _orbax(ocp.StandardCheckpointHandler).save(
                    folder.absolute() / STATE, args=ocp.args.StandardSave(arrays)
                )
                if rows:
                    (folder / pending.PENDING).write_bytes(rows)
                self._check()
            self._prune()

    def _check(self) -> None:
        self.check()
        self.opened.check()

    def _prune(self) -> None:
        """Deletes all but the last `keep` and the best; renames first, lest a half-deleted one look complete."""
        paths = _complete(self.opened.held)
        scores = {path: score for path in paths if (score := _score(path, self.metric)) is not None}
        best = max(scores, key=lambda path: scores[path], default=None)
        for path in paths[: -self.keep]:
            if path != best:
                shutil.rmtree(path.rename(path.with_name(f".{path.name}.partial")))


def latest(folder: Path, identity: Identity | None = None) -> tuple[Checkpoint | None, dict[Path, str]]:
    """(the newest whole checkpoint, a message for each newer but damaged one); changes nothing on disk.

    identity: the run that all of them must belong to. Raises ForeignError for a checkpoint of another run, RemovedError
    if a running training deleted one, OSError if one cannot be read, which does not count as damaged.
    """
    paths = _complete(folder)
    if identity is not None:
        _refuse_foreign(paths, identity)
    damaged = {}
    for path in reversed(paths):
        try:
            return read(path), damaged
        except DamagedError as error:
            if not path.exists():
                raise RemovedError(f"{path} was removed while it was read") from None
            damaged[path] = str(error)
    return None, damaged


def put_aside(folder: Path, damaged: Iterable[Path]) -> None:
    """Renames damaged checkpoints to <update>.damaged and deletes what interrupted writes left."""
    for partial in folder.glob(".*.partial"):
        shutil.rmtree(partial)
    for path in damaged:
        aside = path.with_name(f"{path.name}.damaged")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)


def read(path: Path) -> Checkpoint:
    """The checkpoint in a folder; raises DamagedError if it is not as it was written."""
    found = read_whole(path, KIND, FORMAT, CheckpointFile)
    if str(found.update) != path.name:
        raise ForeignError(f"{KIND} {path} is of update {found.update}; give it that name, or move it away")
    return Checkpoint(path, **{name: getattr(found, name) for name in Checkpoint._fields[1:]})


def _refuse_foreign(paths: Iterable[Path], identity: Identity) -> None:
    """Raises ForeignError for a checkpoint of another run; skips unreadable ones, which are damaged, not foreign."""
    for path in paths:
        try:
            found = read_description(path, KIND, FORMAT, CheckpointFile)
        except DamagedError:
            continue
        identity.check(found.identity, path)


def _own(array: Any) -> np.ndarray:
    return array if isinstance(array, np.ndarray) else np.array(array)  # training reuses its buffers


def _orbax(handler: Callable[..., ocp.CheckpointHandler]) -> ocp.Checkpointer:
    """A checkpointer of this process alone: by default orbax would wait for the others of a training."""
    process = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(process, {process}, f"process{process}")
    options = alone if jax.process_count() > 1 else ocp.options.MultiprocessingOptions()
    return ocp.Checkpointer(handler(multiprocessing_options=options), multiprocessing_options=options)


def _complete(folder: Path) -> list[Path]:
    """Complete checkpoints, newest last; raises OddFileError for a number that is not a folder or not a valid name."""
    found = os.listdir(folder)
    names = sorted((name for name in found if NUMBER.fullmatch(name)), key=int)
    for name in found:
        if name.isdigit() and name not in names:
            raise OddFileError(f"{folder / name} is not the name of a checkpoint; remove it")
    refuse_odd(folder, (), [*names, *(name for name in found if name.endswith((".partial", ".damaged")))])
    return [folder / name for name in names]


def _check_space(folder: Path, num_bytes: int) -> None:
    """Raises OSError for a full disk or exceeded quota, before orbax prints a traceback about it in every thread."""
    if not hasattr(os, "posix_fallocate"):
        return  # macOS: the error message follows the tracebacks of orbax
    space = folder / "space"
    with space.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, num_bytes + MARGIN)
    space.unlink()


def _score(path: Path, metric: str | None) -> float | None:
    """The score of a checkpoint by a metric; None if it has none or is damaged."""
    try:
        found = read_description(path, KIND, FORMAT, CheckpointFile)
    except CheckpointError:
        return None
    return found.score if found.metric == metric else None
