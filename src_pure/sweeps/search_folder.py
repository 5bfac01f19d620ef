"""The folder of a search: that of a sweep, whose batches appear as processes join it, with the journal of its trials.

<run_dir>/  sweep.yaml, run.json  as in every sweep
            optuna.journal        the trials; Optuna's own programs can read it
            runs.parquet          one row per run: as in every sweep, with `value` and `updates` of its trial
            batches/000/          the run folder of one process at a time
            best.yaml             the configuration of the best trial, once all have ended
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from src_pure.config.files import to_yaml
from src_pure.errors import ConfigError
from src_pure.runs.atomic import flush, partial_path, partials_of, replacing
from src_pure.runs.folder import is_there
from src_pure.runs.program import Program
from src_pure.runs.rundir import SUMMARY, RunDir
from src_pure.runs.schedule import Progress
from src_pure.runs.summary import versions
from src_pure.sweeps.folder import (
    BATCHES,
    batch_folders,
    begin_batch,
    filling,
    is_locked,
    is_sweep_folder,
    log_line,
    write_runs,
)
from src_pure.sweeps.plan import shown_value, tally
from src_pure.sweeps.search_plan import Search, config_of_batch
from src_pure.sweeps.trials import Place, Trial, Trials

BEST = "best.yaml"


def begin_search(path: Path, search: Search, config: dict[str, Any]) -> None:
    """Makes the folder of a search, unless another process of the same search has just made it."""
    try:
        with filling(path, config) as partial:
            Trials(partial, search.ranges, search.settings).begin()
    except OSError:
        if not is_sweep_folder(path):
            raise


def next_batch(path: Path, search: Search, trials: Trials) -> str | None:
    """A batch that is left and that no process trains: one that its process left, or a new one; None: there is none.

    Only for the block of trials.held().
    """
    known = trials.all()
    names = sorted({trial.place.batch for trial in known} | {batch.name for batch in batch_folders(path)})
    for name in names:
        batch = path / BATCHES / name
        left = not is_there(batch / SUMMARY) and not (batch.is_dir() and is_locked(batch))
        if left and _fill(path, search, trials, name):
            return name
    name = f"{len(names):03}"
    return name if _fill(path, search, trials, name) else None


def _fill(path: Path, search: Search, trials: Trials, name: str) -> bool:
    """Whether a batch has trials; makes its folder with a trial in each slot, unless it is there already."""
    batch = path / BATCHES / name
    if batch.is_dir() and RunDir.continuable(batch):
        return True
    placed = ask_until_valid(search, trials, [Place(name, 0, slot) for slot in range(search.slots)])
    if not placed:
        return False
    config = config_of_batch(search, search.side_by_side(placed))
    for left in [*partials_of(batch), *([batch] if batch.is_dir() else [])]:  # by a process that died
        shutil.rmtree(left)
    partial = partial_path(batch)
    begin_batch(partial, config)
    partial.rename(batch)
    flush(batch.parent)
    write_runs(path, runs_of(search, trials.all()))
    return True


def ask_until_valid(search: Search, trials: Trials, places: Sequence[Place]) -> list[Trial]:
    """The trials at these places, as many as are left: those that were asked for before, and new ones for the others.

    A trial whose values contradict each other is recorded, and the next one takes its place.
    """
    asked, placed = trials.all(), {}
    while True:
        placed |= {trial.place: trial for trial in asked if trial.place in places and _is_valid(search, trials, trial)}
        missing = [place for place in places if place not in placed]
        missing = missing[: max(0, search.num_trials - trials.count())]
        if not missing:
            return [placed[place] for place in places if place in placed]
        asked = trials.ask(missing)


def _is_valid(search: Search, trials: Trials, trial: Trial) -> bool:
    """Whether a trial can be trained; records it if not."""
    if trial.state == "invalid":
        return False
    try:
        search.point(trial.values)
    except ConfigError as error:
        trials.is_invalid(trial, str(error))
        log_line(trials.folder, f"trial {trial.number} cannot be trained: {error}")
        return False
    return True


def runs_of(search: Search, trials: Sequence[Trial]) -> pd.DataFrame:
    """The content of runs.parquet: one row per run."""
    rows = []
    for trial in trials:
        for i in range(search.num_seeds):
            state = "pruned" if trial.state == "failed" and i not in trial.failed else trial.state
            row = {
                "run": trial.number * search.num_seeds + i,
                "seed": search.experiment.settings.seed + i,
                "point": trial.number,
                "program": 0,
                "batch": trial.place.batch,
                "state": "failed" if state == "invalid" else state,
            }
            values = {key: shown_value(key, value) for key, value in trial.values.items()}
            rows.append(row | values | {"value": trial.value, "updates": trial.updates})
    return pd.DataFrame(rows)


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """The finished trial with the highest value, the earliest of several; None if no trial has finished."""
    finished = [trial for trial in trials if trial.state == "finished"]
    return max(finished, key=lambda trial: (trial.value, -trial.number), default=None)


def write_best(path: Path, search: Search, trial: Trial) -> None:
    """Writes the configuration of a trial with its seeds, which trains it again alone."""
    with replacing(path / BEST) as file:
        file.write(to_yaml(search.point(trial.values).config).encode())


def progress_line(search: Search, trials: Sequence[Trial]) -> str:
    """One line about how far a search has come."""
    best = best_trial(trials)
    score = f"; best {search.metric} {best.value:.3f}, trial {best.number}" if best else ""
    return f"{len(trials):,} of {search.num_trials:,} trials: {tally(trial.state for trial in trials)}{score}"


def summary_of(search: Search, own: Sequence[Trial], program: Program, progress: Progress) -> dict[str, Any]:
    """The content of a batch's summary.json, which says that the batch has come to its end; own: its trials."""
    per_update, num_seeds = search.experiment.settings.steps_per_update, search.num_seeds
    of_trials = sum(trial.updates for trial in own) * num_seeds * per_update
    failed = {trial.number * num_seeds + seed: update for trial in own for seed, update in trial.failed.items()}
    return {
        "name": search.experiment.name,
        "env_steps": progress.done * per_update,
        "runs": len(own) * num_seeds,
        "failed": {f"run {run}": update for run, update in failed.items()},
        "env_steps_of_all_runs": of_trials,
        "steps_per_second": of_trials / progress.seconds if progress.seconds else None,
        "compile_seconds": program.compile_seconds,
        "lanes_per_block": program.blocks.width,
        "wall_seconds": progress.wall_seconds,
        "continued_under_other_settings": progress.continued,
        "process": progress.process,
        "versions": versions(),
    }
