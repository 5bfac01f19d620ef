"""The folder of a sweep: what it trains, and its batches, which are ordinary run folders.

    <run_dir>/  sweep.yaml    the configuration; alone it repeats the sweep
                run.json      the identity of the sweep
                runs.parquet  one row per run: run, seed, point, program, batch, state, a column per swept key
                batches/000/  a run folder; its config.yaml has the lanes of the batch

The folder appears with all of its batches at once. What a batch has done is read from its own files; `state` in
runs.parquet is a copy of that, made when a batch ends.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd

from src_pure.config.files import parse_yaml, read_config_file, to_yaml
from src_pure.config.names import DEVICE, PLAN, dotted, harmless
from src_pure.config.sweep import is_search
from src_pure.errors import CheckpointError, ConfigError, LockedError, explain
from src_pure.experiment import lanes_of
from src_pure.runs.atomic import flush, partial_path, read_json, replacing, validated
from src_pure.runs.folder import Folder, append_line, is_there, read_file
from src_pure.runs.identity import new_identity, write_identity
from src_pure.runs.lock import LOCK, locked
from src_pure.runs.rundir import CHECKPOINTS, CONFIG, LOG, SUMMARY, RunDir, SummaryFile, make_free, make_fresh
from src_pure.runs.tables import METRICS
from src_pure.sweeps.plan import Plan, shown_value

SWEEP_FILE, RUNS, BATCHES = "sweep.yaml", "runs.parquet", "batches"
State = Literal["waiting", "running", "stopped", "finished", "failed"]
ERROR = "error: "  # how a line of the log begins that says why a batch ended
PATIENCE = 60.0  # seconds to wait for another process that writes runs.parquet


class Status(NamedTuple):
    """What a batch has done so far."""

    state: State
    reason: str  # why it failed; empty otherwise
    failed: Mapping[str, int]  # the update at which a run failed, by the label of its lane


def is_sweep_folder(path: Path) -> bool:
    return (path / SWEEP_FILE).is_file()


def folder_to_continue(config: dict[str, Any]) -> Path | None:
    """run_dir of a command if it holds the sweep or search that the command describes; None: it is to be made.

    Raises ConfigError for the folder of another one, and if `resume` does not allow what it would take.
    """
    resume, what = config["resume"], "search" if is_search(config) else "sweep"
    path = Path(config["run_dir"]).expanduser() if config["run_dir"] else None
    if path is not None and is_sweep_folder(path):
        if resume == "never":
            raise ConfigError(f"resume=never, but run_dir={path} holds a sweep; choose another run_dir")
        refuse_other_sweep(path, config)
        return path
    if resume == "must":
        raise ConfigError(f"resume=must, but there is no {what} to continue in run_dir={path}")
    return None


def new_folder(config: dict[str, Any], name: str) -> Path:
    """The new, empty folder of a command: its run_dir, or one in runs/<name> that is named after the time.

    Raises FileExistsError for a folder that is not empty.
    """
    if not config["run_dir"]:
        return make_fresh(Path("runs") / name, f"{datetime.now():%Y-%m-%d_%H-%M-%S}")
    path = Path(config["run_dir"]).expanduser()
    make_free(path)
    return path


@contextmanager
def filling(path: Path, config: dict[str, Any]) -> Generator[Path]:
    """A folder to fill, with room for batches. After the block it becomes `path`, with its identity and sweep.yaml."""
    partial = partial_path(path)
    try:
        (partial / BATCHES).mkdir(parents=True)
        yield partial
        content = as_stored(config)
        write_identity(partial, new_identity(content))
        with replacing(partial / SWEEP_FILE) as file:
            file.write(to_yaml(content).encode())
        partial.rename(path)
        flush(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # it has another name by now unless something failed


def begin_sweep(path: Path, plan: Plan, config: dict[str, Any]) -> None:
    """Makes the folder of a sweep with all of its batches. `path` must be a new, empty folder."""
    names = batch_names(len(plan.batches))
    with filling(path, config) as partial:
        for name, batch in zip(names, plan.batches, strict=True):
            begin_batch(partial / BATCHES / name, batch.experiment().config)
        write_runs(partial, _runs(plan, names))


def batch_names(number: int) -> list[str]:
    """The names of a sweep's batches: 000, 001, ..."""
    digits = max(3, len(str(number - 1)))
    return [f"{index:0{digits}}" for index in range(number)]


def begin_batch(path: Path, config: dict[str, Any]) -> None:
    """Makes the run folder of a batch."""
    path.mkdir()
    content = to_yaml(config)
    with Folder(path) as folder:
        RunDir.begin(folder, True, content, new_identity(parse_yaml(content)))


def as_stored(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration as sweep.yaml holds it: without what belongs to one command."""
    return config | {"run_dir": None, "resume": "auto", "resume_anyway": False, PLAN: None, DEVICE: None}


def read_sweep(path: Path) -> dict[str, Any]:
    """The configuration of a sweep folder; raises ConfigError if `path` is not one or its file is damaged."""
    if not is_sweep_folder(path):
        raise ConfigError(f"{path} is not the folder of a sweep: it has no {SWEEP_FILE}")
    return read_config_file(path / SWEEP_FILE)


def refuse_other_sweep(path: Path, config: dict[str, Any]) -> None:
    """Raises ConfigError listing how a configuration differs from the sweep in a folder."""
    before, now = dotted(read_sweep(path)), dotted(parse_yaml(to_yaml(as_stored(config))))
    names = [name for name in sorted(before | now) if before.get(name) != now.get(name) and not harmless(name)]
    if names:
        listed = ", ".join(f"{name} is {now.get(name)!r}, was {before.get(name)!r}" for name in names)
        raise ConfigError(f"run_dir={path} holds another sweep: {listed}; repeat its command or choose another run_dir")


def batch_folders(path: Path) -> list[Path]:
    """The run folders of a sweep, in order."""
    return sorted(item for item in (path / BATCHES).iterdir() if not item.name.startswith("."))


def batch_config(batch: Path, command: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a batch, with what does not change numbers (log_seconds, wandb, ...) from a command."""
    values = {key: value for key, value in command.items() if harmless(key)}
    return read_config_file(batch / CONFIG) | values | {"run_dir": str(batch), "resume": "auto"}


def status_of(batch: Path) -> Status:
    """What a batch has done, read from its own files; failed, with the reason, if these are damaged or unreadable."""
    try:
        return _status_of(batch)
    except (CheckpointError, ConfigError, OSError) as error:
        return Status("failed", explain(error), {})


def _status_of(batch: Path) -> Status:
    if is_locked(batch):
        return Status("running", "", {})
    file = batch / SUMMARY
    summary = validated(read_json(file), SummaryFile, file) if is_there(file) else None
    if summary is not None and is_complete(batch, summary):
        return Status("finished", "", summary.failed)
    if reason := last_error(batch):
        return Status("failed", reason, summary.failed if summary else {})
    begun = is_there(batch / METRICS) or os.listdir(batch / CHECKPOINTS)
    return Status("stopped" if begun else "waiting", "", {})


def is_complete(batch: Path, summary: SummaryFile) -> bool:
    """Whether a summary is of a training that ended: all updates are done, or every run has failed."""
    config = read_config_file(batch / CONFIG)
    if is_search(config):
        return True
    per_update = config["num_envs"] * config["num_steps"]
    whole = summary.env_steps >= int(config["total_steps"]) // per_update * per_update
    return whole or len(summary.failed) == summary.runs


def last_error(batch: Path) -> str:
    """Why the last process that trained a batch ended, if an error ended it; empty otherwise."""
    log = batch / LOG
    lines = read_file(log).decode(errors="replace").splitlines() if is_there(log) else []
    _, _, text = lines[-1].partition("  ") if lines else ("", "", "")
    return text.removeprefix(ERROR) if text.startswith(ERROR) else ""


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of a run folder; the lock itself is not touched."""
    try:
        descriptor = os.open(path / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)


def log_line(path: Path, line: str) -> None:
    """Appends a line with the current time to log.txt of a sweep or of one of its batches."""
    append_line(path / LOG, f"{datetime.now():%Y-%m-%d %H:%M:%S}  {line}")


def read_runs(path: Path, batches: Sequence[Path] | None = None) -> pd.DataFrame:
    """runs.parquet with the present states of the runs in these batches, by default all."""
    runs = pd.read_parquet(path / RUNS)
    if is_search(read_sweep(path)):  # the search itself writes them; its processes may have died
        idle = [batch.name for batch in batch_folders(path) if not is_locked(batch)]
        return runs.assign(state=runs["state"].mask(runs["state"].eq("running") & runs["batch"].isin(idle), "stopped"))
    found = {batch.name: status_of(batch) for batch in (batch_folders(path) if batches is None else batches)}
    failed = {run for name, status in found.items() if status.failed for run in _failed(path / BATCHES / name, status)}
    states = runs["batch"].map({name: status.state for name, status in found.items()}).fillna(runs["state"])
    return runs.assign(state=states.mask(runs["run"].isin(failed), "failed"))


def refresh_runs(path: Path, batches: Sequence[Path] | None = None) -> None:
    """Writes runs.parquet with the states that `read_runs` gives; waits for other processes that do the same.

    A process that has trained a batch gives that batch alone: reading all of them each time would be quadratic.
    """
    with holding(path):
        write_runs(path, read_runs(path, batches))


@contextmanager
def holding(path: Path, seconds: float = PATIENCE) -> Generator[None]:
    """Holds the lock of a sweep's folder; waits for other processes, raises LockedError after so many seconds."""
    until = time.monotonic() + seconds
    with Folder(path) as folder, ExitStack() as stack:
        while True:
            with suppress(LockedError):
                stack.enter_context(locked(folder))
                break
            if time.monotonic() > until:
                raise LockedError(f"{path / LOCK} has been held for {seconds:.0f} s by another process of the sweep")
            time.sleep(0.05)
        yield


def _failed(batch: Path, status: Status) -> list[int]:
    """The numbers of the runs of a batch that failed."""
    return [lane.run for lane in lanes_of(read_config_file(batch / CONFIG)) if lane.label in status.failed]


def _runs(plan: Plan, names: Sequence[str]) -> pd.DataFrame:
    """One row per run, in order of their numbers; names: of the batches."""
    rows = []
    for name, batch in zip(names, plan.batches, strict=True):
        for lane, point in zip(batch.lanes, batch.points, strict=True):
            values = {key: shown_value(key, value) for key, value in point.values.items()}
            row = {"run": lane.run, "seed": lane.seed, "point": point.number, "program": batch.program}
            rows.append(row | {"batch": name, "state": "waiting"} | values)
    return pd.DataFrame(rows).sort_values("run", ignore_index=True)


def write_runs(path: Path, runs: pd.DataFrame) -> None:
    """Replaces runs.parquet as a whole."""
    with replacing(path / RUNS) as file:
        runs.to_parquet(file)
