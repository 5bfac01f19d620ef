"""What a command of scripts/submit.py is about: the run folder, made if it is not there yet, and its batches."""

from collections.abc import Container, Sequence
from pathlib import Path
from typing import NamedTuple

from src_pure.errors import ConfigError
from src_pure.experiment import Experiment
from src_pure.runs.resume import open_run, refuse_differences
from src_pure.runs.rundir import SUMMARY, RunDir
from src_pure.sweeps.folder import batch_folders, state_of


class Batches(NamedTuple):
    """The batches of a run, by what is to be done about them."""

    missing: list[Path]  # to be trained
    finished: list[Path]
    busy: list[Path]  # another process trains it, or a job that waits or runs will
    failed: list[Path]  # its numbers stopped being finite, and would do so again


def begin(experiment: Experiment) -> list[Path]:
    """The folders to train in, made if needed; raises ConfigError if run_dir holds something else."""
    path = run_dir_of(experiment)
    if RunDir.continuable(path):
        refuse_differences(path, experiment)
    else:
        with open_run(path, experiment):
            pass
    return batches_in(path)


def planned(experiment: Experiment) -> Batches:
    """What `begin` would find, without making anything; jobs are not asked for."""
    path = run_dir_of(experiment)
    if not RunDir.continuable(path):
        return Batches([path], [], [], [])
    refuse_differences(path, experiment)
    return sorted_out(batches_in(path), ())


def run_dir_of(experiment: Experiment) -> Path:
    """The run folder; raises ConfigError if none is given."""
    if experiment.settings.run_dir is None:
        raise ConfigError("give run_dir=FOLDER, so that the same command finds this run again")
    return Path(experiment.settings.run_dir).absolute()


def batches_in(run: Path) -> list[Path]:
    """The batches of a sweep, or the run folder itself; raises ConfigError if it is neither."""
    if batches := batch_folders(run):
        return batches
    if not RunDir.continuable(run):
        raise ConfigError(f"{run} must be the folder of a run or a sweep: it has neither batches nor checkpoints")
    return [run]


def sorted_out(batches: Sequence[Path], waiting: Container[Path]) -> Batches:
    """The batches by what is to be done; waiting: those whose job waits or runs."""
    found = Batches([], [], [], [])
    for batch in batches:
        state = state_of(batch)
        if state == "finished":
            found.finished.append(batch)
        elif state == "running" or batch in waiting:
            found.busy.append(batch)
        elif state == "failed" and (batch / SUMMARY).is_file():
            found.failed.append(batch)
        else:
            found.missing.append(batch)
    return found
