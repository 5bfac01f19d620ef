"""What a command of scripts/submit.py is about: the folder of a run or a sweep, made if needed, and its batches."""

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from src_pure.build import build
from src_pure.config.names import PLAN, harmless
from src_pure.config.overrides import parse
from src_pure.config.sweep import is_sweep
from src_pure.errors import ConfigError, shown
from src_pure.runs.resume import open_run, refuse_differences
from src_pure.runs.rundir import RunDir
from src_pure.sweeps.folder import BATCHES, batch_folders, batch_names, is_sweep_folder, refuse_other_sweep, status_of
from src_pure.sweeps.plan import make_plan
from src_pure.sweeps.sweep import open_sweep

OF_A_COMMAND = ("run_dir", "resume")  # every task has its own


class Batches(NamedTuple):
    """The batches of a run, by what is to be done about them."""

    missing: list[Path]  # to be trained
    finished: list[Path]
    busy: list[Path]  # another process trains it, or a job that waits or runs will

    def __str__(self) -> str:
        parts = [f"{len(self.missing)} to train"]
        parts += [f"{len(self.finished)} finished"] if self.finished else []
        parts += [f"{len(self.busy)} waiting or running"] if self.busy else []
        return "batches: " + ", ".join(parts)


def begin(config: dict[str, Any], trust: Sequence[str]) -> list[Path]:
    """The folders to train in, made if needed; raises ConfigError if run_dir holds something else."""
    path = run_dir_of(config)
    if is_sweep(config):
        return batch_folders(open_sweep(config | {"run_dir": str(path)}, trust))
    experiment = build(config, trust)
    if RunDir.continuable(path):
        refuse_differences(path, experiment)
    else:
        with open_run(path, experiment):  # makes the folder; a training continues it
            pass
    return [path]


def planned(config: dict[str, Any], trust: Sequence[str]) -> list[Path]:
    """The folders that `begin` would return, without making any."""
    path = run_dir_of(config)
    if is_sweep(config):
        if is_sweep_folder(path):
            refuse_other_sweep(path, config)
            return batch_folders(path)
        return [path / BATCHES / name for name in batch_names(len(make_plan(config, trust).batches))]
    experiment = build(config, trust)
    if RunDir.continuable(path):
        refuse_differences(path, experiment)
    return [path]


def run_dir_of(config: dict[str, Any]) -> Path:
    """The run folder; raises ConfigError if none is given, or if the command only asks for a plan."""
    if config.get(PLAN) is not None:
        raise ConfigError("plan=only trains nothing, so there is nothing to submit: use trainer_pure.py, or --dry-run")
    if not isinstance(config["run_dir"], str) or not config["run_dir"]:
        raise ConfigError(
            f"give run_dir=FOLDER, so that the same command finds it again; got {shown(config['run_dir'])}"
        )
    return Path(config["run_dir"]).expanduser().absolute()


def batches_in(run: Path) -> list[Path]:
    """The batches of a sweep, or the run folder itself; raises ConfigError if it is neither."""
    if is_sweep_folder(run):
        return batch_folders(run)
    if not RunDir.continuable(run):
        raise ConfigError(f"{run} must be the folder of a run or a sweep: it has neither batches nor checkpoints")
    return [run]


def sorted_out(batches: Sequence[Path], waiting: Container[Path]) -> Batches:
    """The batches by what is to be done; waiting: those whose job waits or runs."""
    found = Batches([], [], [])
    for batch in batches:
        state = status_of(batch).state if batch.exists() else "waiting"
        if state == "finished":
            found.finished.append(batch)
        elif state == "running" or batch in waiting:
            found.busy.append(batch)
        else:
            found.missing.append(batch)
    return found


def trainer_options(overrides: Sequence[str], trust: Sequence[str]) -> list[str]:
    """Arguments for the trainer of each batch: what its config.yaml does not hold, or may differ from it."""
    keys = [(text, parse(text).key) for text in overrides]
    chosen = [text for text, key in keys if harmless(key) and key not in OF_A_COMMAND]
    return [*(f"--trust={package}" for package in trust), *chosen]
