"""The same command again: what is continued, from where, and what is refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from src_pure.build import ConfigError, Experiment, dotted
from src_pure.configuration.files import read_config_file
from src_pure.runs.checkpoint import Checkpoint, newest
from src_pure.runs.lock import locked
from src_pure.runs.rundir import CONFIG, RunDir, make_free
from src_pure.runs.sealed import CheckpointError, one_line

# keys that may differ from the run that is continued: they change no number that it computes
HARMLESS = {"run_dir", "resume", "log_seconds", "grace_seconds", "tensorboard"}
HARMLESS_SECTIONS = {"wandb", "checkpoint"}


@contextmanager
def opened(path: Path, experiment: Experiment) -> Iterator[RunDir]:
    """The run folder to continue, or a new one, locked.

    Raises ConfigError or OSError for one that must be left alone, LockedError if another process works on it.
    """
    resume = experiment.settings.resume
    continuing = resume != "never" and RunDir.continuable(path)
    if continuing:
        refuse_differences(path, experiment)
    elif resume == "must":
        raise ConfigError(f"resume=must, but there is no run to continue in run_dir={path}")
    else:
        make_free(path)
    with locked(path):
        yield RunDir(path) if continuing else RunDir.create(path, experiment.config_yaml)


def finished(run_dir: RunDir, experiment: Experiment) -> bool:
    """Whether nothing is left to do."""
    summary, settings = run_dir.summary(), experiment.settings
    return summary is not None and summary["env_steps"] >= settings.num_updates * settings.steps_per_update


def rewind(run_dir: RunDir, experiment: Experiment) -> tuple[Checkpoint | None, list[str]]:
    """(where to continue, lines that say so): the newest whole checkpoint, with the tables as they were then.

    Without one the run begins again, which repeats it; raises CheckpointError if resume=must.
    """
    found, lines = newest(run_dir.checkpoints)
    if found is None and experiment.settings.resume == "must":
        raise CheckpointError("; ".join([*lines, f"resume=must, but there is no checkpoint in {run_dir.checkpoints}"]))
    update = found.update if found else 0
    interval = experiment.settings.evaluation.interval
    evaluated = range(interval, update, interval) if interval else ()  # the one of `update` itself is made again
    for table, wanted in ((run_dir.metrics, range(1, update + 1)), (run_dir.evaluation, evaluated)):
        if missing := set(wanted) - table.updates():
            raise CheckpointError(f"{table.path} has no rows of update {min(missing)}, before checkpoint {update}")
    if found:
        lines.append(f"continues after update {update}")
    elif lines or run_dir.metrics.updates():
        lines.append("begins again: there is no whole checkpoint")
    lines += raised_end(run_dir, experiment)
    run_dir.rewind(update)
    run_dir.write_config(experiment.config_yaml)
    return found, lines


def raised_end(run_dir: RunDir, experiment: Experiment) -> list[str]:
    """A line that says what it means that total_steps was raised, if it was."""
    before, now = read_config(run_dir.path)["total_steps"], experiment.settings.total_steps
    if before == now:
        return []
    annealed = getattr(experiment.algo, "anneal_lr", False)
    schedule = f"; the learning rate now falls to 0 at update {experiment.settings.num_updates}" if annealed else ""
    return [f"total_steps was {before:,}, is {now:,}{schedule}"]


def refuse_differences(path: Path, experiment: Experiment) -> None:
    """Raises ConfigError with the list of what differs from the run in a folder and would change its numbers."""
    before = dotted(read_config(path))
    now = dotted(experiment.config)
    names = [name for name in sorted(before | now) if before.get(name) != now.get(name) and not harmless(name)]
    if "total_steps" in names and before["total_steps"] < now["total_steps"]:
        names.remove("total_steps")
    if names:
        listed = ", ".join(f"{name} is {now.get(name)!r}, was {before.get(name)!r}" for name in names)
        raise ConfigError(
            f"run_dir={path} holds a run of another configuration: {listed}; repeat its command (total_steps may be "
            "raised) or choose another run_dir"
        )


def harmless(name: str) -> bool:
    return name in HARMLESS or name.partition(".")[0] in HARMLESS_SECTIONS or name.endswith(".name")


def read_config(path: Path) -> dict[str, Any]:
    """config.yaml of a run folder; raises ConfigError for a damaged one, OSError for one that cannot be read."""
    config = read_config_file(path / CONFIG)
    try:
        return config | {"total_steps": int(float(config["total_steps"]))}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{path / CONFIG} cannot be read: {one_line(error)}") from error
