"""The host side of a training: compiles the program, calls it in segments and writes the results."""

import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from src_pure.build import Experiment
from src_pure.config.settings import Settings
from src_pure.models.base import precision_of
from src_pure.runs.buffer import RowBuffer
from src_pure.runs.checkpoint import Checkpoints
from src_pure.runs.health import failures, no_run_left, rows_of_living, warnings
from src_pure.runs.loggers import Sink
from src_pure.runs.preemption import StopRequest
from src_pure.runs.program import Program, State
from src_pure.runs.programs import Programs
from src_pure.runs.resume import Start, refuse_incomplete
from src_pure.runs.rows import evaluation_rows, mean_score, metric_rows
from src_pure.runs.rundir import RunDir
from src_pure.runs.schedule import Progress
from src_pure.runs.summary import summarise


def train(
    experiment: Experiment,
    run_dir: RunDir,
    sinks: Sequence[Sink],
    start: Start,
    stop: StopRequest | None = None,
    programs: Programs | None = None,
) -> dict[str, Any]:
    """The summary of the whole training, also written to the run folder.

    Continues from `start`; `programs` may hold its program. Once `stop` is set, saves everything at the next boundary
    and raises Preempted. A run whose numbers stop being finite keeps its parameters and gets no more rows; after the
    segment in which the last run fails, raises NumericalError and keeps all files. Raises CheckpointError if files are
    missing from the run folder at the end.
    """
    stop = stop or StopRequest()
    progress = Progress(experiment.settings, start)
    run_dir.log("compiling")
    warm_start = None if start.checkpoint else experiment.settings.warm_start
    program = (programs or Programs()).of(experiment, warm_start, start.lanes_per_block)
    run_dir.log(f"compiled in {program.compile_seconds:.1f} s")
    if start.checkpoint:
        state = program.scatter(start.checkpoint.restore(program.like))
        progress.completed = program.completed(state)
    else:
        state = program.init()
    start.prepare(run_dir, experiment.config_yaml)
    stop.training = True
    settings = experiment.settings
    per_row, end, pending = settings.updates_per_row, settings.num_updates, start.pending_rows
    rows = RowBuffer(run_dir.append_metrics, settings.log_seconds, per_row, end, pending)
    with closing(open_checkpoints(run_dir, experiment.settings)) as checkpoints, rows:
        training = Training(experiment, program, run_dir, rows, sinks, checkpoints, progress)
        while True:
            training.stop_if_asked(stop, state)
            training.evaluate_if_due(state)
            if progress.finished:
                break
            state = training.segment(state)
            training.save_if_due(state)
        checkpoints.wait()
    summary = summarise(experiment, run_dir, program, progress)
    run_dir.write_summary(summary)
    with RunDir.open(run_dir.path) as written:
        run_dir.folder.check()
        refuse_incomplete(written, experiment)
    return summary


@dataclass(frozen=True)
class Training:
    """A running training: everything that its segments share."""

    experiment: Experiment
    program: Program
    run_dir: RunDir
    rows: RowBuffer
    sinks: Sequence[Sink]
    checkpoints: Checkpoints
    progress: Progress

    def segment(self, state: State) -> State:
        """The state after the next segment; writes its rows. Raises NumericalError if every run has failed."""
        lanes, progress = self.experiment.lanes, self.progress
        num_updates = progress.segment_length(self.program.max_updates)
        started = time.perf_counter()
        state, metrics = self.program.segment(state, num_updates)
        completed = self.program.completed(state)
        rows = metric_rows(metrics, lanes, self.experiment.settings.steps_per_update, progress.done)
        rows = rows_of_living(rows, progress.completed, completed, progress.done)
        progress.advance(rows, num_updates, completed, time.perf_counter() - started)
        self.rows.add(rows)
        for sink in self.sinks:
            sink.log(rows, progress.elapsed)
        for line in warnings(rows, lanes, precision_of(self.experiment.policy.memory)):
            self.run_dir.log(f"warning: {line}")
            print(f"warning: {line}", file=sys.stderr)
        failed = failures(lanes, completed, progress.done)
        if len(failed) == len(lanes):
            self.rows.finish()
            self.run_dir.write_summary(summarise(self.experiment, self.run_dir, self.program, progress))
            raise no_run_left(failed, self.run_dir.path)
        return state

    def evaluate_if_due(self, state: State) -> None:
        """Runs and writes the evaluation of this update, unless the run folder already has it."""
        progress, table = self.progress, self.run_dir.evaluation
        if not progress.evaluation_due() or table.has_rows_of(progress.done):
            return
        self.rows.write()
        lanes, steps = self.experiment.lanes, self.experiment.settings.steps_per_update
        rows = evaluation_rows(self.program.evaluate(state, progress.done), lanes, steps, progress.done)
        failed = [failure.lane.run for failure in failures(lanes, progress.completed, progress.done)]
        self.run_dir.append_evaluation(rows[~rows["run"].isin(failed)])

    def save_if_due(self, state: State) -> None:
        if self.progress.checkpoint_due():
            self.save(state)

    def stop_if_asked(self, stop: StopRequest, state: State) -> None:
        """Saves everything and raises Preempted if a signal has arrived, here or at another process of the training."""
        stop.signal = stop.signal or self.program.signal
        if stop.signal is None:
            return
        if self.progress.unsaved:
            self.save(state)
        self.checkpoints.wait()
        stop.raise_if_set(f"after update {self.progress.done} of {self.experiment.settings.num_updates}")

    def save(self, state: State) -> None:
        """Starts writing a checkpoint in the background."""
        progress, settings = self.progress, self.experiment.settings.checkpoint
        self.rows.write()
        self.checkpoints.save(
            self.program.gather(state),
            progress.done,
            score=mean_score(progress.unsaved, settings.metric, settings.min_episodes),
            seconds=progress.seconds,
            wall_seconds=progress.wall_seconds,
            config=self.experiment.config,
            process=progress.process,
            continued=progress.continued,
            metrics_sha256=self.run_dir.metrics.digest_of(self.run_dir.metrics.last),
            pending_rows=self.rows.pending,
            lanes_per_block=self.program.blocks.width,
        )
        progress.count_from_here()


def open_checkpoints(run_dir: RunDir, settings: Settings) -> Checkpoints:
    keep, metric = settings.checkpoint.keep, settings.checkpoint.metric
    return Checkpoints(run_dir.checkpoints, keep, run_dir.identity, metric, run_dir.folder.check)
