"""Checkpoints: the whole TrainState of all runs on disk, whole or not at all, checked before it is trusted.

    checkpoints/<update>/  state/           every array of the TrainState by its name, written by orbax
                           checkpoint.json  format, update, score, seconds, the resolved configuration
                           sha256.json      the digest of every other file

A folder is made as .<update>.partial, flushed to disk and renamed: a name without dots is a complete checkpoint. Orbax
does not notice every damaged byte on reading, so the digests are compared first.
"""

import errno
import hashlib
import json
import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from src_pure.types import Array, TrainState

FORMAT = 1  # of the folder described above
MARGIN = 2**18  # bytes of what describes the arrays
DESCRIPTION, DIGESTS, STATE = "checkpoint.json", "sha256.json", "state"


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or used, in one line."""


class DamagedError(CheckpointError):
    """A checkpoint that is not what was written."""


class Checkpoint(NamedTuple):
    """A checkpoint whose files are as they were written."""

    path: Path
    update: int
    score: float | None  # the metric that chooses the best one
    seconds: float  # of training, without compilation
    wall_seconds: float  # of all there was, in every process
    config: dict[str, Any]

    def restore(self, like: TrainState) -> TrainState:
        """The saved state; `like` says its structure and where its arrays belong."""
        wanted = {name: array for name, array in named_arrays(like).items() if array.size}
        shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for name, x in wanted.items()}
        try:
            arrays = _orbax().restore(self.path.resolve() / STATE, args=ocp.args.StandardRestore(shapes))
        except Exception as error:  # orbax raises many kinds; the files are whole, so they hold another state
            raise CheckpointError(f"{self.path} does not hold this training's state: {one_line(error)}") from error
        leaves, structure = jax.tree.flatten(like)
        filled = zip(leaves, named_arrays(like), strict=True)
        return jax.tree.unflatten(structure, [_like(leaf, arrays.get(name, leaf)) for leaf, name in filled])


class Checkpoints:
    """The checkpoints of a run folder: the last `keep` of them and the one with the best score."""

    def __init__(self, folder: Path, keep: int):
        self.folder = folder
        self.keep = keep
        self.writer = ThreadPoolExecutor(1, "checkpoint")
        self.pending: Future[None] | None = None

    def save(self, state: TrainState, update: int, **description: Any) -> None:
        """Copies the state and returns; it is written beside the training. Raises what the write before it met."""
        self.wait()
        arrays = {name: np.array(x) for name, x in named_arrays(state).items() if x.size}  # training reuses its buffers
        self.pending = self.writer.submit(self._write, arrays, {"format": FORMAT, "update": update, **description})

    def wait(self) -> None:
        """Returns when nothing is being written; raises CheckpointError if that failed."""
        if self.pending is not None:
            pending, self.pending = self.pending, None
            pending.result()

    def close(self) -> None:
        self.writer.shutdown()

    def _write(self, arrays: dict[str, np.ndarray], description: dict[str, Any]) -> None:
        path = self.folder / str(description["update"])
        partial = self.folder / f".{path.name}.partial"
        try:
            partial.mkdir()  # not its parents: a folder that vanished is not made again
            _check_space(partial, sum(x.nbytes for x in arrays.values()))
            _orbax().save(partial.resolve() / STATE, args=ocp.args.StandardSave(arrays))
            (partial / DESCRIPTION).write_text(json.dumps(description, indent=2, allow_nan=False) + "\n")
            (partial / DIGESTS).write_text(json.dumps(digests(partial), indent=2) + "\n")
            for item in [*partial.rglob("*"), partial]:
                _flush(item)
            partial.rename(path)
            _flush(self.folder)
            self._prune()
        except Exception as error:  # a full disk is a ValueError from orbax and an OSError from Python
            shutil.rmtree(partial, ignore_errors=True)
            raise CheckpointError(f"cannot write {path}: {one_line(error)}") from error

    def _prune(self) -> None:
        """Removes what is neither one of the last nor the best; renamed first, so that no half of one is left."""
        paths = _complete(self.folder)
        scores = {path: _score(path) for path in paths}
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
    problems = []
    for path in reversed(_complete(folder)):
        try:
            return read(path), problems
        except DamagedError as error:
            problems.append(str(error))
            aside = path.with_name(f"{path.name}.damaged")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
    return None, problems


def read(path: Path) -> Checkpoint:
    """The checkpoint in a folder; raises DamagedError for one that is not as it was written."""
    try:
        description = json.loads((path / DESCRIPTION).read_bytes())
        form = description["format"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DamagedError(f"checkpoint {path} is damaged: {DESCRIPTION} cannot be read") from error
    if form != FORMAT:
        raise CheckpointError(
            f"checkpoint {path} has format {form!r}, this version reads {FORMAT}; use the version that wrote it"
        )
    try:
        written = json.loads((path / DIGESTS).read_bytes())
        found = digests(path)
    except (OSError, ValueError) as error:
        raise DamagedError(f"checkpoint {path} is damaged: {DIGESTS} or a file cannot be read") from error
    if written != found:
        raise DamagedError(f"checkpoint {path} is damaged: its files are not those that were written")
    values = {name: description[name] for name in ("update", "score", "seconds", "wall_seconds", "config")}
    return Checkpoint(path, **values)


def digests(path: Path) -> dict[str, str]:
    """SHA-256 of every file of a checkpoint but the list of digests, by name."""
    found = {}
    for item in sorted(path.rglob("*")):
        name = item.relative_to(path).as_posix()
        if item.is_file() and name != DIGESTS:
            with item.open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def named_arrays(state: Any) -> dict[str, Array]:
    """Every leaf of a state by its name, typed keys as their numbers."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): _numbers(leaf) for path, leaf in leaves}


def one_line(error: object, limit: int = 300) -> str:
    """The message in one line, its middle left out where it is too long."""
    text = " ".join(str(error).split())
    return text if len(text) <= limit else f"{text[: limit // 2]} ... {text[-limit // 2 :]}"


def _is_key(leaf: Array) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _numbers(leaf: Array) -> Array:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _like(leaf: Array, numbers: Array) -> Array:
    """numbers as the kind of array that `leaf` is; `leaf` itself was not saved if it holds nothing."""
    if _is_key(leaf) and not _is_key(numbers):
        return jax.random.wrap_key_data(numbers, impl=jax.random.key_impl(leaf))
    return numbers


def _orbax() -> ocp.Checkpointer:
    return ocp.Checkpointer(ocp.StandardCheckpointHandler())


def _complete(folder: Path) -> list[Path]:
    """Complete checkpoints, the newest last."""
    return sorted((path for path in folder.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))


def _check_space(folder: Path, num_bytes: int) -> None:
    """Raises OSError for a disk that is full, which orbax would meet with a traceback in each of its threads."""
    if shutil.disk_usage(folder).free < num_bytes + MARGIN:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _score(path: Path) -> float | None:
    try:
        return json.loads((path / DESCRIPTION).read_bytes())["score"]
    except (OSError, ValueError, LookupError, TypeError):
        return None  # damaged since it was written, so no candidate for the best


def _flush(path: Path) -> None:
    """What was written to a file or folder survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
