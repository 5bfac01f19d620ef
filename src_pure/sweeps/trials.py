"""The trials of a search in its storage, a journal of Optuna: what was tried, where, how it went and what was decided.

The journal comes first, everything else follows from it. A trial appears in it with its values and its place in one
line, so a process that dies between two lines leaves nothing half done. A training that goes back to an older
checkpoint finds here which trial began where and which passed a rung, and repeats exactly what happened before.
"""

import itertools
import math
import os
from collections.abc import Generator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from src_pure.config.settings import Sweep
from src_pure.errors import DamagedError, one_line
from src_pure.runs.folder import is_there
from src_pure.sweeps.folder import holding
from src_pure.sweeps.halving import WORST
from src_pure.sweeps.points import Range, Values, values_of_all

JOURNAL, STUDY = "optuna.journal", "search"
PLACE, PASSED, FAILED, REASON = "place", "passed", "failed", "reason"  # attributes of a trial
ATTEMPTS = 20  # to draw something new
PATIENCE = 600.0  # seconds to wait for other processes, which may ask for many trials


class Place(NamedTuple):
    """Where a trial trains."""

    batch: str
    begun: int  # updates that the batch had done before the trial began
    slot: int  # which lanes of the batch: slot * num_seeds and those that follow


class Trial(NamedTuple):
    """One setting that a search tries."""

    number: int
    values: Values  # by dotted key
    place: Place
    state: str  # running | pruned | finished | failed | invalid
    reports: Mapping[int, float]  # its value at each rung that it reached, by the updates
    passed: int  # the last rung where it was decided that it goes on; 0: none so far
    failed: Mapping[int, int]  # the update at which a run failed, by the number of its seed, 0, 1, ...

    @property
    def value(self) -> float:
        """At the last rung that it reached; NaN before the first."""
        return self.reports[self.updates] if self.reports else math.nan

    @property
    def updates(self) -> int:
        """Updates at its last report."""
        return max(self.reports, default=0)

    @property
    def over(self) -> bool:
        return self.state != "running"


class Trials:
    """The trials of a search. All methods but `begin` and `held` belong into the block of `held`."""

    def __init__(self, folder: Path, ranges: Mapping[str, Range], settings: Sweep):
        self.folder, self.path, self.settings, self.ranges = folder, folder / JOURNAL, settings, ranges
        self.distributions = {key: distribution(each) for key, each in ranges.items()}
        self.study: Any = None  # of Optuna

    def begin(self) -> None:
        """Makes the journal; nobody else may know the folder yet."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = optuna.create_study(storage=self._storage(), study_name=STUDY, direction="maximize")

    @contextmanager
    def held(self) -> Generator[None]:
        """No other process reads or changes the search in this block; raises DamagedError for a damaged journal."""
        with holding(self.folder, PATIENCE):
            if not is_there(self.path):
                raise DamagedError(f"{self.path} is missing; restore it, or begin the search in a new run_dir")
            drop_torn_line(self.path)
            if self.study is None:
                self._open()
            yield

    def all(self) -> list[Trial]:
        """Every trial, by number."""
        return [self._read(trial) for trial in self._frozen()]

    def count(self) -> int:
        return len(self._frozen())

    def get(self, number: int) -> Trial:
        """One trial as it is now."""
        return self._read(self._frozen()[number])

    def ask(self, places: Sequence[Place]) -> list[Trial]:
        """New trials at these places, as the sampler suggests them."""
        from optuna import create_study
        from optuna.trial import TrialState, create_trial

        # the sampler changes a trial step by step, so it works on a copy, and the journal gets the trial as a whole
        known = self._frozen()
        copy = create_study(direction="maximize")
        copy.add_trials(known)
        tried = {self._key(trial.params) for trial in known}
        for number, place in enumerate(places, len(known)):
            params = self._another(copy, number, tried)
            tried.add(self._key(params))
            new = create_trial(state=TrialState.RUNNING, params=params, distributions=self.distributions)
            new.set_user_attr(PLACE, place)
            self.study.add_trial(new)
            copy.add_trial(new)
        return self.all()[len(known) :]

    def _another(self, study: Any, number: int, tried: Set[tuple[Any, ...]]) -> dict[str, Any]:
        """What the sampler suggests for the trial of this number; never what was tried: it would only be repeated."""
        from optuna.trial import TrialState

        for attempt in range(ATTEMPTS):
            study.sampler = self._sampler(number, attempt)
            asked = study.ask(self.distributions)
            study.tell(asked, state=TrialState.FAIL)  # which samplers ignore
            if self._key(asked.params) not in tried:
                return asked.params
        values = values_of_all(self.ranges)  # few are left, or the sampler is sure of what was tried
        left = [point for point in itertools.product(*values) if point not in tried] if values else []
        return dict(zip(self.ranges, left[number % len(left)], strict=True)) if left else asked.params

    def _key(self, params: Mapping[str, Any]) -> tuple[Any, ...]:
        """The values of a trial, to compare with those of others."""
        return tuple(each.value(params[key]) for key, each in self.ranges.items())

    def report(self, trial: Trial, updates: int, value: float) -> None:
        """Records the value of a running trial at a rung, if it is not recorded yet."""
        if not trial.over and updates not in trial.reports:
            self._of(trial).report(value, updates)

    def goes_on(self, trial: Trial, updates: int) -> None:
        """Records that a running trial passed a rung."""
        self._of(trial).set_user_attr(PASSED, updates)

    def ends(self, trial: Trial) -> None:
        """Records that a trial has come to its end."""
        self.study.tell(trial.number, trial.value)

    def is_pruned(self, trial: Trial) -> None:
        """Records that a trial stops at a rung; the last report is its value."""
        from optuna.trial import TrialState

        self.study.tell(trial.number, state=TrialState.PRUNED)

    def fails(self, trial: Trial, updates: int, failed: Mapping[int, int]) -> None:
        """Records that runs of a trial failed, which makes it worse than every other."""
        if trial.over:
            return
        self.report(trial, updates, WORST)
        self._of(trial).set_user_attr(FAILED, {str(seed): update for seed, update in failed.items()})
        self.is_pruned(trial)

    def is_invalid(self, trial: Trial, reason: str) -> None:
        """Records that the values of a trial contradict each other, so it cannot be trained."""
        from optuna.trial import TrialState

        self._of(trial).set_user_attr(REASON, reason)
        self.study.tell(trial.number, state=TrialState.FAIL)

    def _open(self) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with self._naming():
            self.study = optuna.load_study(storage=self._storage(), study_name=STUDY)

    def _storage(self) -> Any:
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        return JournalStorage(JournalFileBackend(str(self.path), lock_obj=_Held()))  # ty: ignore[invalid-argument-type]

    @contextmanager
    def _naming(self) -> Generator[None]:
        """Turns what Optuna raises for a damaged journal into a DamagedError that names it."""
        try:
            yield
        except (ValueError, KeyError, AssertionError, TypeError) as error:
            raise DamagedError(f"{self.path} cannot be read: {one_line(error)}") from error

    def _frozen(self) -> list[Any]:
        with self._naming():
            return self.study.get_trials(deepcopy=False)

    def _read(self, frozen: Any) -> Trial:
        failed = {int(seed): update for seed, update in frozen.user_attrs.get(FAILED, {}).items()}
        states = {"COMPLETE": "finished", "PRUNED": "pruned", "RUNNING": "running", "FAIL": "invalid"}
        with self._naming():
            return Trial(
                number=frozen.number,
                values={key: each.value(frozen.params[key]) for key, each in self.ranges.items()},
                place=Place(*frozen.user_attrs[PLACE]),
                state="failed" if failed else states[frozen.state.name],
                reports=frozen.intermediate_values,
                passed=frozen.user_attrs.get(PASSED, 0),
                failed=failed,
            )

    def _of(self, trial: Trial) -> Any:
        """Optuna's object of a trial."""
        from optuna.trial import Trial as OptunaTrial

        return OptunaTrial(self.study, self._frozen()[trial.number]._trial_id)

    def _sampler(self, number: int, attempt: int) -> Any:
        """The sampler of one trial: what it draws depends on the trials so far, not on when a process was started."""
        from optuna.samplers import RandomSampler, TPESampler

        seed = int(np.random.SeedSequence([self.settings.random_seed, number, attempt]).generate_state(1)[0])
        return RandomSampler(seed) if self.settings.sampler == "random" else TPESampler(seed=seed)


class _Held:
    """The journal's own lock, which is not needed: whoever uses the journal holds the lock of the folder."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def distribution(each: Range) -> Any:
    """Optuna's distribution for a range."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if each.kind == "choice":
        return CategoricalDistribution(each.arguments)
    low, high = each.arguments
    kind = IntDistribution if each.integer else FloatDistribution
    return kind(low, high, log=each.kind == "loguniform")


def drop_torn_line(path: Path) -> None:
    """Cuts off what a process that died while it wrote left after the last whole line."""
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        kept = end
        while kept:
            start = max(0, kept - 4096)
            file.seek(start)
            found = file.read(kept - start).rfind(b"\n")
            if found >= 0:
                kept = start + found + 1
                break
            kept = start
        if kept < end:
            file.truncate(kept)
            os.fsync(file.fileno())
