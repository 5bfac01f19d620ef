"""A search as a command: makes, joins or continues its folder and trains until every trial has come to its end."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from src_pure.device import computing
from src_pure.errors import LockedError, NumericalError
from src_pure.runs.preemption import StopRequest
from src_pure.runs.programs import Programs
from src_pure.runs.training import stopped_in
from src_pure.sweeps.folder import BATCHES, folder_to_continue, log_line, new_folder, write_runs
from src_pure.sweeps.plan import described, tally
from src_pure.sweeps.search_batch import SearchBatch, open_batch
from src_pure.sweeps.search_folder import BEST, begin_search, best_trial, next_batch, runs_of, write_best
from src_pure.sweeps.search_plan import Search, make_search
from src_pure.sweeps.trials import Trials


def open_search(config: dict[str, Any], trust: Sequence[str] = ()) -> tuple[Path, Search]:
    """(the folder of a search, one to continue or join or a new one; the search).

    Raises ConfigError for wrong settings and a folder of another sweep, FileExistsError for a folder that is not empty.
    """
    search = make_search(config, trust)
    if (path := folder_to_continue(config)) is not None:
        return path, search
    path = new_folder(config, f"{search.experiment.name}-search")
    begin_search(path, search, config)
    print(search, flush=True)
    return path, search


def run_search(path: Path, search: Search, stop: StopRequest) -> None:
    """Trains batches of a search until none is left that no other process trains; then prints the best trial.

    Raises Preempted once `stop` is set, LockedError if other processes are still training trials, NumericalError if
    every trial failed.
    """
    trials, programs = Trials(path, search.ranges, search.settings), Programs()
    with computing(), stopped_in(path, OSError):
        while True:
            stop.raise_if_set(f"between batches; the same command with run_dir={path} continues")
            with trials.held():
                name = next_batch(path, search, trials)
            if name is None:
                break
            print(f"batch {name} of {path}", flush=True)
            with ExitStack() as stack:
                try:
                    run_dir = stack.enter_context(open_batch(path / BATCHES / name))
                except LockedError:
                    continue  # another process was faster
                SearchBatch(search, trials, run_dir, stop, programs).train()
        _finish(path, search, trials)


def _finish(path: Path, search: Search, trials: Trials) -> None:
    """Prints and writes what came out."""
    with trials.held():
        known = trials.all()
        if left := [trial.number for trial in known if not trial.over]:
            raise LockedError(
                f"other processes are training {len(left)} trials of {path}; the same command continues what they leave"
            )
        best = best_trial(known)
        write_runs(path, runs_of(search, known))
        if best is None:
            raise NumericalError(f"all {len(known)} trials of {path} failed: try other axes")
        write_best(path, search, best)
    states = tally(trial.state for trial in known)
    line = f"best of {len(known)} trials ({states}): trial {best.number}, {search.metric} {best.value:.3f}"
    line += f", {described(best.values)}"
    print(f"{line}; {path / BEST} trains it again")
    log_line(path, line)
