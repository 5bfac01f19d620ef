"""One training in its run folder: opens or continues the folder, trains, and prints what came out."""

import sys
from collections.abc import Generator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from src_pure.build import Experiment
from src_pure.device import computing
from src_pure.errors import CannotWriteError, CheckpointError, Interrupted, NumericalError, Preempted, explain
from src_pure.models.policy import num_parameters
from src_pure.runs.columns import main_metric
from src_pure.runs.loggers import Sink, TensorBoardSink, WandbSink, progress
from src_pure.runs.loop import train
from src_pure.runs.policies import params_of
from src_pure.runs.preemption import StopRequest
from src_pure.runs.programs import Programs
from src_pure.runs.resume import Start, find_start, finished_summary, open_run
from src_pure.runs.rundir import RunDir


def train_in_folder(
    experiment: Experiment,
    config: dict[str, Any],
    path: Path | None,
    stop: StopRequest,
    named: Path | None = None,
    programs: Programs | None = None,
) -> None:
    """Trains an experiment in the run folder at `path`, or continues there; None: in a new folder named after the time.

    config: as the command gave it, for dashboards; named: the run_dir of the command that continues, by default that
    folder; programs: those that earlier trainings compiled. Raises NumericalError if runs failed, now or in a training
    that was finished before; otherwise the errors of `open_run`, `find_start` and `run`.
    """
    with ExitStack() as stack:
        run_dir = stack.enter_context(open_run(path, experiment))
        with stopped_in(run_dir.path, OSError, MemoryError):
            if summary := finished_summary(run_dir, experiment):
                print(f"{experiment.name} is finished: everything is in {run_dir.path}")
                raise_if_failed(summary.failed, summary.runs)
                return
            start = find_start(run_dir, experiment)
            for line in start.lines:
                run_dir.log(line)
                print(line, file=sys.stderr)
        stack.callback(run_dir.discard)
        run(experiment, config, run_dir, start, stop, named or run_dir.path, programs)


def run(
    experiment: Experiment,
    config: dict[str, Any],
    run_dir: RunDir,
    start: Start,
    stop: StopRequest,
    named: Path,
    programs: Programs | None,
) -> None:
    """Trains an experiment in its run folder, beginning at `start`, and prints the results.

    Raises CannotWriteError, Preempted, NumericalError, DeviceError, or ConfigError if training needs too much memory.
    """
    settings = experiment.settings
    parameters = num_parameters(params_of(experiment))
    size = f"{settings.num_updates:,} updates of {settings.steps_per_update:,} steps"
    size += f" x {len(experiment.lanes)} runs" if len(experiment.lanes) > 1 else ""
    print(f"{experiment.name}, {parameters:,} parameters: {size} -> {run_dir.path}", flush=True)
    try:
        with ExitStack() as stack, computing(), stopped_in(run_dir.path, OSError, CheckpointError):
            sinks = [stack.enter_context(closing(sink)) for sink in open_sinks(experiment, config, run_dir)]
            summary = train(experiment, run_dir, sinks, start, stop, programs)
    except Preempted as error:
        run_dir.disposable = False
        with suppress(OSError):  # the message is printed in any case
            run_dir.log(str(error))
        raise type(error)(f"{error}; the same command with run_dir={named} continues") from error
    except NumericalError as error:
        with suppress(OSError):
            run_dir.log(f"error: {error}")
        raise
    except KeyboardInterrupt as error:
        kept = f"what was saved is in {run_dir.path}" if run_dir.begun else "nothing was done yet"
        raise Interrupted(f"interrupted; {kept}") from error
    report(summary, run_dir)
    raise_if_failed(summary["failed"], summary["runs"])


@contextmanager
def stopped_in(path: Path, *kinds: type[Exception]) -> Generator[None]:
    """Turns errors of these types in the block into a CannotWriteError that names the run folder."""
    try:
        yield
    except BrokenPipeError as error:
        raise CannotWriteError(f"standard output was closed; what was saved in {path} stays") from error
    except kinds as error:
        raise CannotWriteError(f"stopped in {path}: {explain(error)}; what was saved before stays") from error


def raise_if_failed(failed: dict[str, int], num_runs: int) -> None:
    """Raises NumericalError if runs of a finished training failed; failed: the update of each failure, by seed."""
    if failed:
        listed = ", ".join(f"seed {seed} at update {update}" for seed, update in failed.items())
        raise NumericalError(f"{len(failed)} of {num_runs} runs failed: {listed}")


def open_sinks(experiment: Experiment, config: dict[str, Any], run_dir: RunDir) -> list[Sink]:
    settings = experiment.settings
    sinks = []
    if settings.wandb.mode != "disabled":
        run_id = run_dir.identity.run_id[:8]
        sinks.append(WandbSink(run_dir.path, run_id, **settings.wandb.model_dump(), config=config))
    if settings.tensorboard:
        sinks.append(TensorBoardSink(run_dir.path))
    return [*sinks, progress(settings.num_updates, sys.stdout)]


def report(summary: dict[str, Any], run_dir: RunDir) -> None:
    """Prints the scores on fresh evaluation episodes, the speed and the run folder."""
    for mode, scores in (("sampled", summary["final"]), ("greedy", summary["final_greedy"])):
        metric = main_metric(scores)
        print(f"{metric} ({mode} policy): {score_line(metric, scores[metric])}")
    speed = f"{summary['steps_per_second']:,.0f} steps/s, compiled in {summary['compile_seconds']:.0f} s"
    print(f"{speed}, {summary['wall_seconds']:.0f} s in all; everything is in {run_dir.path}")


def score_line(metric: str, score: dict[str, Any]) -> str:
    """One line with a final score, its episodes and its interval."""
    if score["mean"] is None:
        return "missing, it is not a number in any run"
    line = f"{score['mean']:.3f} over {score['episodes']:,} fresh episodes"
    if score["unfinished"]:
        counted = "not solved" if metric == "success_rate" else "far as they came"
        line += f", {score['unfinished']:,} of them cut off at evaluation.max_steps and counted as {counted}"
    if score["interval"]:
        low, high = score["interval"]
        line += f"; 95% t-interval over {score['runs']} runs {low:.3f} to {high:.3f}"
    return line
