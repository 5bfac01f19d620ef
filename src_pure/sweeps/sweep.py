"""A sweep as a command: makes or continues its folder and trains the batches that are left, one after the other.

Several processes may work on one sweep: each takes the batches that no other process is training.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src_pure.build import build
from src_pure.errors import CheckpointError, ConfigError, DeviceError, LockedError, NumericalError, one_line
from src_pure.runs.preemption import StopRequest
from src_pure.runs.programs import Programs
from src_pure.runs.training import train_in_folder
from src_pure.sweeps.folder import (
    ERROR,
    batch_config,
    batch_folders,
    begin_sweep,
    folder_to_continue,
    log_line,
    new_folder,
    refresh_runs,
    status_of,
)
from src_pure.sweeps.plan import make_plan, tally

OF_ONE_BATCH = (ConfigError, CheckpointError, DeviceError, NumericalError, LockedError)  # the other batches go on


def open_sweep(config: dict[str, Any], trust: Sequence[str] = ()) -> Path:
    """The folder of a sweep with its batches, one to continue or a new one.

    Raises ConfigError for a folder of another sweep and for a wrong point, FileExistsError for a folder that is not
    empty.
    """
    if (path := folder_to_continue(config)) is not None:
        return path
    plan = make_plan(config, trust)
    path = new_folder(config, f"{plan.name}-sweep")
    begin_sweep(path, plan, config)
    print(plan, flush=True)
    return path


def run_sweep(
    path: Path, config: dict[str, Any], stop: StopRequest, trust: Sequence[str] = (), programs: Programs | None = None
) -> None:
    """Trains every batch of a sweep folder that is left and that no other process trains.

    config: of the command. An error of one batch is written into its log, and the others go on; once all have ended,
    the first such error is raised, or NumericalError if runs failed. Raises Preempted once `stop` is set.
    """
    batches, programs = batch_folders(path), programs or Programs()
    errors: dict[str, Exception] = {}
    for number, batch in enumerate(batches):
        stop.raise_if_set(f"before batch {batch.name}; the same command with run_dir={path} continues")
        if status_of(batch).state == "finished":
            continue
        print(f"batch {number + 1} of {len(batches)}", flush=True)
        try:
            experiment = build(batch_config(batch, config), trust)
            train_in_folder(experiment, experiment.config, batch, stop, path, programs)
        except OF_ONE_BATCH as error:
            errors[batch.name] = error
            _note(path, batch, error)
        refresh_runs(path, [batch])
    _finish(path, errors)


def _note(path: Path, batch: Path, error: Exception) -> None:
    """Writes why a batch ended into its log and the sweep's; another process may be writing a locked one."""
    line = f"{ERROR}{one_line(error)}"
    print(f"batch {batch.name}: {line}", file=sys.stderr)
    log_line(path, f"batch {batch.name}: {line}")
    if not isinstance(error, LockedError | NumericalError):
        log_line(batch, line)


def _finish(path: Path, errors: dict[str, Exception]) -> None:
    """Prints how many batches ended how; raises the error that decides the exit code."""
    found = {batch.name: status_of(batch) for batch in batch_folders(path)}
    states = [status.state for status in found.values()]
    print(f"{tally(states)} of {len(found)} batches in {path}")
    wrong = {name: error for name, error in errors.items() if not isinstance(error, NumericalError | LockedError)}
    for name, error in wrong.items():
        others = f"; so did {len(wrong) - 1} more batches" if len(wrong) > 1 else ""
        raise type(error)(f"batch {name} of {path} failed: {error}{others}")
    if set(states) != {"finished"} and any(isinstance(error, LockedError) for error in errors.values()):
        raise LockedError(f"other processes are training batches of {path}; the same command continues what they leave")
    failed = [f"seed {label} at update {n}" for status in found.values() for label, n in status.failed.items()]
    if failed:
        raise NumericalError(f"{len(failed)} runs of {path} failed: {', '.join(failed)}")
