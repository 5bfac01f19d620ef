"""The folder of a search: that of a sweep, whose batches appear as processes join it, with the journal of its trials.

    <run_dir>/  sweep.yaml, run.json  as in every sweep
                optuna.journal        the trials; Optuna's own programs can read it
                runs.parquet          one row per run: as in every sweep, with `value` and `updates` of its trial
                batches/000/          the run folder of one process at a time
                best.yaml             the configuration of the best trial, once all have ended
"""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from src_pure.config.files import parse_yaml, to_yaml
from src_pure.errors import ConfigError
from src_pure.runs.atomic import flush, partial_path, replacing
from src_pure.runs.folder import Folder, is_there
from src_pure.runs.identity import new_identity, write_identity
from src_pure.runs.rundir import SUMMARY, RunDir
from src_pure.sweeps.folder import (
    BATCHES,
    SWEEP_FILE,
    as_stored,
    batch_folders,
    is_locked,
    is_sweep_folder,
    log_line,
    write_runs,
)
from src_pure.sweeps.plan import shown_value
from src_pure.sweeps.search_plan import Search, config_of_batch
from src_pure.sweeps.trials import Place, Trial, Trials

BEST = "best.yaml"


def begin_search(path: Path, search: Search, config: dict[str, Any]) -> None:
    """Makes the folder of a search, unless another process of the same search has just made it."""
    partial = partial_path(path)
    try:
        (partial / BATCHES).mkdir(parents=True)
        Trials(partial, search.ranges, search.settings).begin()
        content = as_stored(config)
        write_identity(partial, new_identity(content))
        with replacing(partial / SWEEP_FILE) as file:
            file.write(to_yaml(content).encode())
        partial.rename(path)
        flush(path.parent)
    except OSError:
        if not is_sweep_folder(path):
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def next_batch(path: Path, search: Search, trials: Trials) -> str | None:
    """A batch that is left and that no process trains: one that its process left, or a new one; None: there is none.

    Only for the block of trials.held().
    """
    known = trials.all()
    names = sorted({trial.place.batch for trial in known} | {batch.name for batch in batch_folders(path)})
    for name in names:
        batch = path / BATCHES / name
        if not is_there(batch / SUMMARY) and not (batch.is_dir() and is_locked(batch)):
            if _fill(path, search, trials, name):
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
    points = [search.point(trial.values) for trial in placed]
    content = to_yaml(config_of_batch(search, search.side_by_side(placed, points)))
    partial = partial_path(batch)
    partial.mkdir()
    with Folder(partial) as folder:
        RunDir.begin(folder, True, content, new_identity(parse_yaml(content)))
    if batch.is_dir():  # left by a process that died
        shutil.rmtree(batch)
    partial.rename(batch)
    flush(batch.parent)
    write_runs(path, runs_of(search, trials.all()))
    return True


def ask_until_valid(search: Search, trials: Trials, places: list[Place]) -> list[Trial]:
    """The trials at these places, as many as are left: those that were asked before, and new ones for the others.

    A trial whose values contradict each other is recorded and replaced by the next one.
    """
    found = {trial.place: trial for trial in trials.all() if trial.state != "invalid"}
    placed = []
    for place in places:
        trial = found.get(place)
        while trial is None and len(trials.all()) < (search.settings.trials or 0):
            asked = trials.ask(place)[0]
            try:
                search.point(asked.values)
                trial = asked
            except ConfigError as error:
                trials.is_invalid(asked, str(error))
                log_line(trials.folder, f"trial {asked.number} cannot be trained: {error}")
        placed += [trial] if trial else []
    return placed


def runs_of(search: Search, trials: list[Trial]) -> pd.DataFrame:
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


def best_trial(trials: list[Trial]) -> Trial | None:
    """The finished trial with the highest value, the earliest of several; None if no trial has finished."""
    finished = [trial for trial in trials if trial.state == "finished"]
    return max(finished, key=lambda trial: (trial.value, -trial.number), default=None)


def write_best(path: Path, search: Search, trial: Trial) -> None:
    """Writes the configuration of a trial with its seeds, which trains it again alone."""
    with replacing(path / BEST) as file:
        file.write(to_yaml(search.point(trial.values).config).encode())
