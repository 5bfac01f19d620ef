"""Running the same command again: which run continues, from where, and what is refused."""

from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import pandas as pd

from src_pure.build import Experiment
from src_pure.config.files import parse_yaml, read_config_file
from src_pure.config.names import dotted, harmless
from src_pure.config.settings import Settings
from src_pure.errors import CheckpointError, ConfigError, ForeignError, one_line
from src_pure.runs.checkpoint import Checkpoint, latest, put_aside
from src_pure.runs.folder import Folder, is_there, refuse_odd
from src_pure.runs.identity import config_digest, new_identity
from src_pure.runs.lock import locked
from src_pure.runs.pending import read_pending
from src_pure.runs.process import differences, numeric_settings
from src_pure.runs.rundir import CONFIG, FILES, FOLDERS, RunDir, SummaryFile, make_free, make_fresh


class Start(NamedTuple):
    """Where a training begins. Only `prepare` changes the run folder."""

    checkpoint: Checkpoint | None
    damaged: tuple[Path, ...]  # checkpoints to put aside
    continued: list[dict[str, Any]]  # where the run continued under other settings of the process
    lines: list[str]  # messages for the log and standard error
    pending_rows: pd.DataFrame | None = None  # updates that wait for the end of their row of metrics
    lanes_per_block: int | None = None  # that the run began with; None: to be chosen, numbers differ by rounding anyway

    @property
    def update(self) -> int:
        return self.checkpoint.update if self.checkpoint else 0

    def prepare(self, run_dir: RunDir, config_yaml: str) -> None:
        """Cuts the tables back to where training begins, puts damaged checkpoints aside and writes config.yaml."""
        run_dir.folder.check()
        put_aside(run_dir.checkpoints, self.damaged)
        run_dir.rewind(self.update, rows_until(self.update, self.pending_rows))
        run_dir.write_config(config_yaml)


@contextmanager
def open_run(path: Path | None, experiment: Experiment) -> Generator[RunDir]:
    """The run folder to continue or a new one, locked; path None: a new one under runs/, named after the time.

    Raises ConfigError, CheckpointError or OSError for a folder that must not be touched, LockedError if another process
    uses it.
    """
    resume = experiment.settings.resume
    continuing = path is not None and resume != "never" and RunDir.continuable(path)
    made = False
    if continuing:
        refuse_odd(path, FILES, FOLDERS)
        refuse_differences(path, experiment)
    elif resume == "must":
        raise ConfigError(f"resume=must, but there is no run to continue in run_dir={path}")
    elif path is None:
        path, made = make_fresh(Path("runs") / experiment.name, f"{datetime.now():%Y-%m-%d_%H-%M-%S}"), True
    else:
        made = make_free(path)
    with Folder(path) as folder, locked(folder):
        if continuing:
            run_dir = RunDir(folder)
            refuse_foreign_config(run_dir)
        else:
            identity = new_identity(parse_yaml(experiment.config_yaml))
            run_dir = RunDir.begin(folder, made, experiment.config_yaml, identity)
        yield run_dir


def came_to_its_end(summary: SummaryFile | None, experiment: Experiment) -> TypeGuard[SummaryFile]:
    """Whether a summary exists and covers every update."""
    settings = experiment.settings
    return summary is not None and summary.env_steps >= settings.num_updates * settings.steps_per_update


def finished_summary(run_dir: RunDir, experiment: Experiment) -> SummaryFile | None:
    """The summary of a finished training; None if it is unfinished.

    Raises CheckpointError naming what is missing if the summary is complete but other files are not.
    """
    summary = run_dir.summary()
    if not came_to_its_end(summary, experiment):
        return None
    if len(summary.failed) < summary.runs:  # if every run failed, there is no final evaluation or checkpoint
        refuse_incomplete(run_dir, experiment)
    return summary


def refuse_incomplete(run_dir: RunDir, experiment: Experiment) -> None:
    """Raises CheckpointError naming what is missing from the run folder of a finished training."""
    end = experiment.settings.num_updates
    found, _ = latest(run_dir.checkpoints, run_dir.identity)
    lacking = [
        f"rows of update {missing} in {table.path.name}"
        for table, wanted in ((run_dir.metrics, range(1, end + 1)), (run_dir.evaluation, range(end, end + 1)))
        if (missing := table.first_missing(wanted)) is not None
    ]
    if not is_there(run_dir.path / CONFIG):
        lacking.append(CONFIG)
    if found is None or found.update != end:
        lacking.append(f"a whole checkpoint of update {end}")
    if lacking:
        raise CheckpointError(
            f"run_dir={run_dir.path} has a summary of update {end} and lacks {', '.join(lacking)}; restore what is "
            "missing or choose another run_dir"
        )


def find_start(run_dir: RunDir, experiment: Experiment) -> Start:
    """Where to continue, with a line about a raised total_steps; raises the errors of `start_at_checkpoint`."""
    start = start_at_checkpoint(run_dir, experiment.settings)
    return start._replace(lines=[*start.lines, *raised_end(run_dir, experiment)])


def start_at_checkpoint(run_dir: RunDir, settings: Settings) -> Start:
    """Where to continue: at the newest whole checkpoint. Without one the run starts over and gives the same numbers.

    Raises CheckpointError for lost rows, for files of another run, and if resume=must finds no checkpoint; ConfigError
    if the settings of the process have changed since the checkpoint, unless resume_anyway is set.
    """
    found, damaged = latest(run_dir.checkpoints, run_dir.identity)
    lines = list(damaged.values())
    if found is None and settings.resume == "must":
        raise CheckpointError("; ".join([*lines, f"resume=must, but there is no checkpoint in {run_dir.checkpoints}"]))
    update = found.update if found else 0
    pending = read_pending(found.path, update, found.identity) if found else None
    last = rows_until(update, pending)
    refuse_lost_rows(run_dir, settings, update, last)
    if found and run_dir.metrics.digest_of(last) != found.metrics_sha256:
        raise ForeignError(
            f"{run_dir.metrics.path} has other rows of update {last} than checkpoint {update} was saved with: one of "
            "them is of another copy of this run; restore the files that belong together"
        )
    continued = list(found.continued) if found else []
    if found:
        lines.append(f"continues after update {update}")
        if changed := differences(found.process, numeric_settings()):
            refuse_other_process(run_dir, settings, changed)
            lines.append(f"under other settings of the process: {', '.join(changed)}")
            continued.append({"update": update, "differences": changed})
    elif lines or run_dir.metrics.parts:
        lines.append("begins again: there is no whole checkpoint")
    width = found.lanes_per_block if found and continued == found.continued else None
    return Start(found, tuple(damaged), continued, lines, pending, width)


def rows_until(update: int, pending_rows: pd.DataFrame | None) -> int:
    """The last update of the last row of metrics that had ended at a checkpoint."""
    return update if pending_rows is None else int(pending_rows["update"].min()) - 1


def refuse_lost_rows(run_dir: RunDir, settings: Settings, update: int, last: int) -> None:
    """Raises CheckpointError if the tables do not match a checkpoint, or the checkpoint lies beyond the end.

    update: of the checkpoint; last: the last update in its rows of metrics.
    """
    end, interval = settings.num_updates, settings.evaluation.interval
    if update > end:
        raise CheckpointError(f"checkpoint {update} in {run_dir.path} is beyond the end, update {end}; remove it")
    evaluated = range(interval, update, interval) if interval else range(0)  # evaluation at `update` is repeated
    wanted = ((run_dir.metrics, range(1, last + 1), last), (run_dir.evaluation, evaluated, update))
    for table, updates, until in wanted:
        if (missing := table.first_missing(updates)) is not None:
            raise CheckpointError(f"{table.path} has no rows of update {missing}, before checkpoint {update}")
        table.refuse_rewind(until)


def refuse_other_process(run_dir: RunDir, settings: Settings, changed: list[str]) -> None:
    """Raises ConfigError listing what has changed since the process that wrote a checkpoint."""
    if not settings.resume_anyway:
        raise ConfigError(
            f"run_dir={run_dir.path} was trained under other settings of the process, which change numbers: "
            f"{', '.join(changed)}; restore them, or set resume_anyway=true, which the summary will note"
        )


def raised_end(run_dir: RunDir, experiment: Experiment) -> list[str]:
    """One line about the effect of a raised total_steps; none if it is unchanged."""
    before, now = read_config(run_dir.path)["total_steps"], experiment.settings.total_steps
    if before == now:
        return []
    end = experiment.algo.schedule_end
    schedule = f"; {end} at update {experiment.settings.num_updates}" if end else ""
    return [f"total_steps was {before:,}, is {now:,}{schedule}"]


def refuse_differences(path: Path, experiment: Experiment) -> None:
    """Raises ConfigError listing the settings that differ from the run in a folder and affect its numbers."""
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


def refuse_foreign_config(run_dir: RunDir) -> None:
    """Raises ForeignError if config.yaml does not match the identity of the folder."""
    if config_digest(read_config(run_dir.path)) != run_dir.identity.config_sha256:
        raise ForeignError(
            f"{run_dir.path / CONFIG} belongs to another run than run.json next to it; restore the file of this run"
        )


def read_config(path: Path) -> dict[str, Any]:
    """config.yaml of a run folder; raises ConfigError if it is damaged, OSError if it cannot be read."""
    config = read_config_file(path / CONFIG)
    try:
        return config | {"total_steps": int(float(config["total_steps"]))}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{path / CONFIG} cannot be read: {one_line(error)}") from error
