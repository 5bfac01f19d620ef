"""Checkpoints: the whole TrainState of all runs on disk, whole or not at all, checked before it is trusted.

    checkpoints/<update>/  state/           every array of the TrainState by its name, written by orbax
                           checkpoint.json  format, update, metric and score, seconds, the resolved configuration
                           sha256.json      the digest of every other file

A name without dots is a complete checkpoint. Orbax does not notice every damaged byte on reading, so the digests are
compared first.
"""

import json
import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from src_pure.runs.sealed import CheckpointError, DamagedError, one_line, sealing, unsealed
from src_pure.types import Array, TrainState

FORMAT = 1  # of the folder described above
MARGIN = 2**18  # bytes of what describes the arrays
KIND, STATE = "checkpoint", "state"


class RemovedError(CheckpointError):
    """A checkpoint that its training removed while another process read it: there is a newer one."""


class Checkpoint(NamedTuple):
    """A checkpoint whose files are as they were written."""

    path: Path
    update: int
    score: float | None  # the metric that chooses the best one
    seconds: float  # of training, without compilation
    wall_seconds: float  # of all there was, in every process
    config: dict[str, Any]

    def arrays(self) -> dict[str, np.ndarray]:
        """Every array that was saved, by its name."""
        try:
            return _orbax().restore(self.path.resolve() / STATE)
        except Exception as error:  # orbax raises many kinds; the digests were right a moment ago
            raise CheckpointError(f"{self.path} cannot be read: {one_line(error)}") from error

    def arrays_beside_training(self) -> dict[str, np.ndarray]:
        """The same of one that a training may remove; raises RemovedError if it does.

        A copy is read, because orbax complains of what vanishes with a traceback in every thread.
        """
        with TemporaryDirectory() as folder:
            copy = Path(folder) / self.path.name
            try:
                shutil.copytree(self.path, copy)
            except OSError:
                if self.path.exists():
                    raise
            if not self.path.exists():  # it is renamed before anything of it is removed
                raise RemovedError(f"{self.path} was removed while it was read")
            return self._replace(path=copy).arrays()

    def restore(self, like: TrainState) -> TrainState:
        """The saved state; `like` says its structure and where its arrays belong, on any number of devices."""
        try:
            return filled(like, self.arrays())
        except ValueError as error:
            raise CheckpointError(f"{self.path} does not hold this training's state: {error}") from error


class Checkpoints:
    """The checkpoints of a run folder: the last `keep` of them and the best of those scored by `metric`."""

    def __init__(self, folder: Path, keep: int, metric: str | None = None):
        self.folder = folder
        self.keep = keep
        self.metric = metric  # a training may have been continued with another one: scores of two are not compared
        self.writer = ThreadPoolExecutor(1, "checkpoint")
        self.pending: Future[None] | None = None

    def save(self, state: TrainState, update: int, score: float | None, **description: Any) -> None:
        """Copies the state and returns; it is written beside the training. Raises what the write before it met."""
        self.wait()
        arrays = {name: np.array(x) for name, x in named_arrays(state).items() if x.size}  # training reuses its buffers
        description = {"format": FORMAT, "update": update, "metric": self.metric, "score": score, **description}
        self.pending = self.writer.submit(self._write, arrays, description)

    def wait(self) -> None:
        """Returns when nothing is being written; raises CheckpointError if that failed."""
        if self.pending is not None:
            pending, self.pending = self.pending, None
            pending.result()

    def close(self) -> None:
        self.writer.shutdown()

    def _write(self, arrays: dict[str, np.ndarray], description: dict[str, Any]) -> None:
        path = self.folder / str(description["update"])
        with sealing(path, KIND, description) as folder:
            _check_space(folder, sum(x.nbytes for x in arrays.values()))
            _orbax().save(folder.resolve() / STATE, args=ocp.args.StandardSave(arrays))
        self._prune()

    def _prune(self) -> None:
        """Removes what is neither one of the last nor the best; renamed first, so that no half of one is left."""
        paths = _complete(self.folder)
        scores = {path: _score(path, self.metric) for path in paths}
        scored = [path for path in paths if scores[path] is not None]
        best = max(scored, key=lambda path: scores[path], default=None)
        for path in paths[: -self.keep]:
            if path != best:
                shutil.rmtree(path.rename(path.with_name(f".{path.name}.partial")))


def newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """(the newest whole checkpoint, a line for each damaged one behind it); what killed writes left is removed.

    Damaged ones are put aside as <update>.damaged. Raises CheckpointError for one of another format.
    """
    for partial in folder.glob(".*.partial"):
        shutil.rmtree(partial)
    found, damaged = latest(folder)
    for path in damaged:
        aside = path.with_name(f"{path.name}.damaged")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
    return found, list(damaged.values())


def latest(folder: Path) -> tuple[Checkpoint | None, dict[Path, str]]:
    """(the newest whole checkpoint, the damaged ones behind it, each with a line); nothing is touched.

    Raises RemovedError if a training removed one of them meanwhile.
    """
    damaged = {}
    for path in reversed(_complete(folder)):
        try:
            return read(path), damaged
        except DamagedError as error:
            if not path.exists():
                raise RemovedError(f"{path} was removed while it was read") from None
            damaged[path] = str(error)
    return None, damaged


def read(path: Path) -> Checkpoint:
    """The checkpoint in a folder; raises DamagedError for one that is not as it was written."""
    description = unsealed(path, KIND, FORMAT)
    values = {name: description[name] for name in ("update", "score", "seconds", "wall_seconds", "config")}
    return Checkpoint(path, **values)


def named_arrays(state: Any) -> dict[str, Array]:
    """Every leaf of a state by its name, typed keys as their numbers."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): _numbers(leaf) for path, leaf in leaves}


def filled(like: Any, arrays: dict[str, np.ndarray]) -> Any:
    """A pytree with the structure of `like` and saved arrays for its leaves, where those of `like` are.

    Leaves of `like` that hold nothing stay. Raises ValueError naming the first array that is not as in `like`.
    """
    wanted = named_arrays(like)
    described = {name: _describe(x) for name, x in wanted.items() if x.size}
    found = {name: _describe(x) for name, x in arrays.items()}
    for name in sorted(described | found):
        if described.get(name) != found.get(name):
            raise ValueError(f"{name} is {found.get(name, 'missing')}, wanted {described.get(name, 'no such array')}")
    leaves, structure = jax.tree.flatten(like)
    placed = [
        _placed(leaf, arrays[name], x) if x.size else leaf
        for leaf, (name, x) in zip(leaves, wanted.items(), strict=True)
    ]
    return jax.tree.unflatten(structure, placed)


def _is_key(leaf: Array) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _numbers(leaf: Array) -> Array:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _placed(leaf: Array, saved: np.ndarray, like: Array) -> Array:
    """What was saved of a leaf, in memory of its own, which training may reuse; like: the leaf as numbers."""
    numbers = jax.device_put(saved, like.sharding, may_alias=False)
    return jax.random.wrap_key_data(numbers, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else numbers


def _describe(array: Array | np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"


def _orbax() -> ocp.Checkpointer:
    return ocp.Checkpointer(ocp.StandardCheckpointHandler())


def _complete(folder: Path) -> list[Path]:
    """Complete checkpoints, the newest last."""
    return sorted((path for path in folder.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))


def _check_space(folder: Path, num_bytes: int) -> None:
    """Raises OSError for a full disk or an exceeded quota, which orbax would meet with a traceback in every thread."""
    if not hasattr(os, "posix_fallocate"):
        return  # macOS, where the line comes after those tracebacks
    space = folder / "space"
    with space.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, num_bytes + MARGIN)
    space.unlink()


def _score(path: Path, metric: str | None) -> float | None:
    """The score of a checkpoint by a metric; None where it has none, or was damaged since it was written."""
    try:
        description = json.loads((path / f"{KIND}.json").read_bytes())
        return description["score"] if description["metric"] == metric else None
    except (OSError, ValueError, LookupError, TypeError):
        return None
