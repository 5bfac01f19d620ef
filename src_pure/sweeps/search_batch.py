"""One batch of a search: trains its trials side by side, judges them at their rungs, and refills the lanes of losers.

All lanes advance together, by the updates of the smallest rung; then those at a rung are evaluated. What follows is
written into the journal before a checkpoint can hold its consequences, so a batch that goes back to a checkpoint finds
there what was decided, and repeats it.
"""

import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from src_pure.config.settings import Settings
from src_pure.errors import CheckpointError
from src_pure.experiment import Experiment
from src_pure.models.base import precision_of
from src_pure.runs.buffer import RowBuffer
from src_pure.runs.checkpoint import Checkpoints
from src_pure.runs.columns import floats
from src_pure.runs.folder import Folder, read_file
from src_pure.runs.health import rows_of_living, warnings
from src_pure.runs.lock import locked
from src_pure.runs.loop import open_checkpoints
from src_pure.runs.preemption import StopRequest
from src_pure.runs.program import Program, State
from src_pure.runs.programs import Programs
from src_pure.runs.resume import Start, refuse_foreign_config, start_at_checkpoint
from src_pure.runs.rows import evaluation_rows, metric_rows
from src_pure.runs.rundir import CONFIG, RunDir
from src_pure.runs.schedule import Progress
from src_pure.sweeps.folder import write_runs
from src_pure.sweeps.halving import WORST, goes_on
from src_pure.sweeps.search_folder import ask_until_valid, progress_line, runs_of, summary_of
from src_pure.sweeps.search_plan import Search
from src_pure.sweeps.trials import Place, Trial, Trials

ENDLESS = 2**31 - 1  # updates: a batch ends when there are no trials left


def endless(settings: Settings) -> Settings:
    """The settings of a training without an end and without evaluations of its own."""
    return settings.model_copy(
        update={
            "total_steps": ENDLESS * settings.steps_per_update,
            "evaluation": settings.evaluation.model_copy(update={"interval": 0}),
        }
    )


@dataclass
class SearchBatch:
    """A batch while it trains."""

    search: Search
    trials: Trials
    run_dir: RunDir
    stop: StopRequest
    programs: Programs
    slots: list[Trial] = field(init=False)  # the trial in each slot; it may be over, when there is no other
    active: list[bool] = field(init=False)  # whether each slot trains; fixed between two judgements
    experiment: Experiment = field(init=False)
    program: Program = field(init=False)
    progress: Progress = field(init=False)
    rows: RowBuffer = field(init=False)
    checkpoints: Checkpoints = field(init=False)

    def __post_init__(self):
        self.settings = endless(self.search.experiment.settings)
        self.width: int | None = None

    def train(self) -> None:
        """Trains until there is no trial left. Raises Preempted once `stop` is set, after everything is saved."""
        start = start_at_checkpoint(self.run_dir, self.settings)
        for line in start.lines:
            self.run_dir.log(line)
        self.width, self.progress = start.lanes_per_block, Progress(self.settings, start)
        with self.trials.held():
            self.slots = self._slots_at(start)
        self.active = self._going_on()
        self._compile()
        if start.checkpoint:
            state = self.program.scatter(start.checkpoint.restore(self.program.like))
        else:
            state = self.program.init()
        self.progress.completed = self.program.completed(state)
        start.prepare(self.run_dir, read_file(self.run_dir.path / CONFIG).decode())
        self.stop.training = True
        per_row, seconds = self.search.experiment.settings.updates_per_row, self.settings.log_seconds
        self.rows = RowBuffer(self.run_dir.append_metrics, seconds, per_row, ENDLESS, start.pending_rows)
        with closing(open_checkpoints(self.run_dir, self.settings)) as self.checkpoints, self.rows:
            while any(self.active):
                self._stop_if_asked(state)
                state = self._segment(state)
                if self._at_a_rung():
                    state = self._refilled(state, self._judged(state))
                if self.progress.checkpoint_due():
                    self._save(state)
            self.checkpoints.wait()
            self.rows.finish()
        with self.trials.held():
            own = [trial for trial in self.trials.all() if trial.place.batch == self.run_dir.path.name]
        self.run_dir.write_summary(summary_of(self.search, own, self.program, self.progress))

    def _slots_at(self, start: Start) -> list[Trial]:
        """The trial in each slot where training begins; raises CheckpointError if the journal does not know them."""
        placed: dict[int, Trial] = {}
        for trial in sorted(self.trials.all(), key=lambda trial: trial.place.begun):
            place = trial.place
            if place.batch == self.run_dir.path.name and place.begun <= start.update and trial.state != "invalid":
                placed[place.slot] = trial
        slots = [placed[slot] for slot in sorted(placed)]
        if start.checkpoint:
            saved = [lane["run"] for lane in start.checkpoint.config["lanes"]]
            if saved != [lane.run for lane in self.search.side_by_side(slots).lanes]:
                raise CheckpointError(
                    f"{start.checkpoint.path} was saved with other trials than {self.trials.path} has; restore the "
                    "files that belong together"
                )
        return slots

    def _compile(self) -> None:
        """Gives the program the lanes of the present trials; compiles it the first time."""
        self.experiment = self.search.side_by_side(self.slots)
        self.program = self.programs.of(self.experiment, self.settings.warm_start, self.width)
        self.width = self.program.blocks.width
        if self.program.compile_seconds:
            self.run_dir.log(f"compiled in {self.program.compile_seconds:.1f} s")

    def _ages(self) -> np.ndarray:
        """Updates since each trial began, [S]."""
        return self.progress.done - np.array([trial.place.begun for trial in self.slots])

    def _going_on(self) -> list[bool]:
        """Whether each slot holds a trial that goes on from here, as far as is decided."""
        return [not trial.over or age < trial.updates for trial, age in zip(self.slots, self._ages(), strict=True)]

    def _per_lane(self, values: Any) -> np.ndarray:
        """A value of each slot for each of its lanes, [R]."""
        return np.repeat(np.asarray(values), self.search.num_seeds)

    def _living(self) -> np.ndarray:
        """Whether each lane trains, and its numbers are finite, [R]."""
        return self._per_lane(self.active) & (self.progress.completed == self._per_lane(self._ages()))

    def _until_rung(self) -> int:
        """Updates until the next trial may be at a rung; all that train are equally far from it."""
        age = self._ages()[self.active][0]
        return int(self.search.rungs[0] - age % self.search.rungs[0])

    def _at_a_rung(self) -> bool:
        """Whether trials are to be judged now: at a rung, or because all have failed."""
        return self._until_rung() == self.search.rungs[0] or not self._living().any()

    def _segment(self, state: State) -> State:
        """The state after some updates of every lane; takes their rows."""
        progress, living, ages = self.progress, self._living(), self._per_lane(self._ages())
        begun, training = progress.done - ages, self._per_lane(self.active)
        number = progress.segment_length(min(self.program.max_updates, self._until_rung()))
        started, steps = time.perf_counter(), self.settings.steps_per_update
        state, metrics = self.program.segment(state, number)
        completed = self.program.completed(state)
        rows = metric_rows(metrics, self.experiment.lanes, steps, progress.done)
        rows["env_steps"] -= np.tile(begun, number) * steps
        rows = rows_of_living(rows, np.where(living, progress.done, -1), completed + begun, progress.done)
        done = progress.done
        progress.advance(rows, number, completed, time.perf_counter() - started)
        if not (training & (completed + begun == progress.done)).any():
            progress.done = max(
                done + 1, int((completed + begun)[training].max()) + 1
            )  # all have failed: go no further
        self.rows.add(rows)
        for line in warnings(rows, self.experiment.lanes, precision_of(self.experiment.policy.memory)):
            self.run_dir.log(f"warning: {line}")
        return state

    def _judged(self, state: State) -> dict[int, Trial]:
        """The next trial of each slot that is free, after the trials at a rung are judged; commits all of it."""
        ages, failed = self._ages(), [self._failed(slot) for slot in range(len(self.slots))]
        reached = [
            slot for slot, age in enumerate(ages) if self.active[slot] and age in self.search.rungs and not failed[slot]
        ]
        values = self._evaluate(state, reached)
        with self.trials.held():
            for slot, age in enumerate(ages):
                if self.active[slot] and failed[slot]:
                    self.trials.fails(self._current(slot), int(age), failed[slot])
            for slot in reached:
                self.trials.report(self._current(slot), int(ages[slot]), values[slot])
            self._decide({slot: int(ages[slot]) for slot in reached})
            self.slots = [self._current(slot) for slot in range(len(self.slots))]
            free = [slot for slot, going_on in enumerate(self._going_on()) if not going_on]
            name = self.run_dir.path.name
            places = [Place(name, self.progress.done, slot) for slot in free]
            new = {trial.place.slot: trial for trial in ask_until_valid(self.search, self.trials, places)}
            known = self.trials.all()
            write_runs(self.trials.folder, runs_of(self.search, known))
        print(progress_line(self.search, known), flush=True)
        return new

    def _current(self, slot: int) -> Trial:
        """The trial of a slot as the journal has it now."""
        return self.trials.get(self.slots[slot].number)

    def _failed(self, slot: int) -> dict[int, int]:
        """The update at which each run of a slot failed, by the number of its seed."""
        num_seeds, age = self.search.num_seeds, self._ages()[slot]
        completed = self.progress.completed[slot * num_seeds : (slot + 1) * num_seeds]
        return {seed: int(count) + 1 for seed, count in enumerate(completed) if count < age}

    def _evaluate(self, state: State, slots: list[int]) -> dict[int, float]:
        """The value of each of these slots, the mean over its runs; writes the rows of the evaluation."""
        if not slots:
            return {}
        self.rows.write()
        lanes, steps, ages = self.experiment.lanes, self.settings.steps_per_update, self._per_lane(self._ages())
        rows = evaluation_rows(self.program.evaluate(state, ages), lanes, steps, self.progress.done)
        rows["env_steps"] = np.tile(ages * steps, len(rows) // len(ages))
        runs = {lanes[slot * self.search.num_seeds + i].run for slot in slots for i in range(self.search.num_seeds)}
        rows = rows[rows["run"].isin(runs)].reset_index(drop=True)
        self.run_dir.append_evaluation(rows)
        sampled = rows[rows["mode"] == "sampled"]
        means = floats(sampled[self.search.metric]).reshape(len(slots), -1).mean(1)
        return {slot: float(mean) if np.isfinite(mean) else WORST for slot, mean in zip(slots, means, strict=True)}

    def _decide(self, reached: dict[int, int]) -> None:
        """Records for each slot at a rung whether its trial goes on, unless that is recorded already."""
        known = self.trials.all()
        values = {age: {x.number: x.reports[age] for x in known if age in x.reports} for age in set(reached.values())}
        for slot, age in reached.items():
            trial = known[self.slots[slot].number]
            if trial.over or trial.passed >= age:
                continue
            if age == self.search.rungs[-1]:
                self.trials.ends(trial)
            elif goes_on(trial.number, values[age], self.search.settings.eta):
                self.trials.goes_on(trial, age)
            else:
                self.trials.is_pruned(trial)

    def _refilled(self, state: State, new: dict[int, Trial]) -> State:
        """The state in which new trials have begun in these slots."""
        self.slots = [new.get(slot, trial) for slot, trial in enumerate(self.slots)]
        self.active = self._going_on()
        if not new:
            return state
        self._compile()
        num_seeds = self.search.num_seeds
        state = self.program.refill(state, [slot * num_seeds + i for slot in new for i in range(num_seeds)])
        self.progress.completed = self.program.completed(state)
        return state

    def _stop_if_asked(self, state: State) -> None:
        if self.stop.signal is None:
            return
        if self.progress.unsaved:
            self._save(state)
        self.checkpoints.wait()
        where = f"after update {self.progress.done} of batch {self.run_dir.path.name}"
        self.stop.raise_if_set(f"{where}; the same command with run_dir={self.trials.folder} continues")

    def _save(self, state: State) -> None:
        """Starts writing a checkpoint in the background."""
        progress, metrics = self.progress, self.run_dir.metrics
        self.rows.write()
        self.checkpoints.save(
            self.program.gather(state),
            progress.done,
            score=None,
            seconds=progress.seconds,
            wall_seconds=progress.wall_seconds,
            config=self.experiment.config,
            process=progress.process,
            continued=progress.continued,
            metrics_sha256=metrics.digest_of(metrics.last),
            pending_rows=self.rows.pending,
            lanes_per_block=self.program.blocks.width,
        )
        progress.count_from_here()


@contextmanager
def open_batch(batch: Path) -> Generator[RunDir]:
    """The run folder of a batch, locked; raises LockedError if another process trains it."""
    with Folder(batch) as folder, locked(folder):
        run_dir = RunDir(folder)
        refuse_foreign_config(run_dir)
        yield run_dir
