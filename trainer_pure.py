"""Trains an agent with memory: `python trainer_pure.py +tmaze=agalite task.corridor_len=160`, `--help` for all options.

Exit codes: 0 done, 2 wrong input, 3 a run's loss stopped being a number, 4 the run folder cannot be written, 5 another
process works on it, 75 stopped by SIGTERM or SIGUSR1, 130 interrupted; docs/durability.md says more.
"""

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Any

import jax
import platformdirs

from src_pure.build import CONFIG_FILE, ConfigError, Experiment, build, compose
from src_pure.models.policy import num_parameters
from src_pure.runs.checkpoint import Checkpoint
from src_pure.runs.lock import LockedError
from src_pure.runs.loggers import Sink, TensorBoardSink, WandbSink, progress
from src_pure.runs.loop import NumericalError, train
from src_pure.runs.policies import params_of
from src_pure.runs.preemption import PREEMPTED, Preempted, noticed
from src_pure.runs.resume import finished, opened, rewind
from src_pure.runs.rundir import RunDir, main_metric
from src_pure.runs.sealed import CheckpointError, one_line
from src_pure.usage import usage

WRONG_INPUT, NOT_A_NUMBER, CANNOT_WRITE, LOCKED, INTERRUPTED = 2, 3, 4, 5, 130
LONGEST_LINE = 10_000  # characters of an error: a list of differences may be long


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        raise ConfigError(f"{message}; see --help")


def main(arguments: Sequence[str]) -> int:
    """The exit code of the training that the command-line arguments describe."""
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--config", type=Path, default=CONFIG_FILE)
    parser.add_argument("--trust", action="append", default=[])
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("overrides", nargs="*")
    try:
        options = parser.parse_intermixed_args(arguments)
        if options.multirun:
            raise ConfigError(
                "one command trains one setting: leave out --multirun; for several seeds write num_seeds=3"
            )
        config = compose(options.overrides, options.config)
        experiment = build(config, options.trust)
    except (ConfigError, OSError) as error:
        return stop(WRONG_INPUT, error)
    if options.help:
        print(usage(config))
        return 0
    with ExitStack() as stack:
        told_to_stop = stack.enter_context(noticed(experiment.settings.grace_seconds))
        try:
            path = Path(experiment.settings.run_dir or default_run_dir(experiment))
            run_dir = stack.enter_context(opened(path, experiment))
            if finished(run_dir, experiment):
                print(f"{experiment.name} is finished: everything is in {run_dir.path}")
                return failed_code(run_dir.summary())
            start, lines = rewind(run_dir, experiment)
            for line in lines:
                run_dir.log(line)
                print(line, file=sys.stderr)
        except LockedError as error:
            return stop(LOCKED, error)
        except (ConfigError, CheckpointError, FileExistsError, NotADirectoryError) as error:
            return stop(WRONG_INPUT, error)
        except OSError as error:
            return stop(CANNOT_WRITE, stopped(path, error))
        stack.callback(run_dir.discard)
        return run(experiment, config, run_dir, start, told_to_stop)


def run(
    experiment: Experiment, config: dict[str, Any], run_dir: RunDir, start: Checkpoint | None, told_to_stop: Event
) -> int:
    """The exit code of training an experiment in its run folder, from where it stands."""
    settings = experiment.settings
    parameters = num_parameters(params_of(experiment))
    size = f"{settings.num_updates:,} updates of {settings.steps_per_update:,} steps x {settings.num_seeds} runs"
    print(f"{experiment.name}, {parameters:,} parameters: {size} -> {run_dir.path}", flush=True)
    try:
        with ExitStack() as stack:
            sinks = [stack.enter_context(closing(sink)) for sink in open_sinks(experiment, config, run_dir)]
            summary = train(experiment, run_dir, sinks, start, told_to_stop)
    except BrokenPipeError:
        return stop(CANNOT_WRITE, f"standard output was closed; what was saved in {run_dir.path} stays")
    except (ConnectionError, ConfigError) as error:
        return stop(WRONG_INPUT, error)
    except (CheckpointError, OSError) as error:
        return stop(CANNOT_WRITE, stopped(run_dir.path, error))
    except Preempted as error:
        run_dir.disposable = False
        with suppress(OSError):  # it is told anyway
            run_dir.log(str(error))
        return stop(PREEMPTED, f"{error}; the same command with run_dir={run_dir.path} continues")
    except NumericalError as error:
        with suppress(OSError):
            run_dir.log(f"error: {error}")
        return stop(NOT_A_NUMBER, error)
    except KeyboardInterrupt:
        return stop(INTERRUPTED, f"interrupted; what was done is in {run_dir.path}")
    report(summary, run_dir)
    return failed_code(summary)


def failed_code(summary: dict[str, Any]) -> int:
    """The exit code of a training that came to its end."""
    failed = summary.get("failed", {})
    if not failed:
        return 0
    listed = ", ".join(f"seed {seed} at update {update}" for seed, update in failed.items())
    return stop(NOT_A_NUMBER, f"{len(failed)} of {summary['runs']} runs failed: {listed}")


def stopped(path: Path, error: Exception) -> str:
    return f"stopped in {path}: {one_line(error)}; what was saved before stays"


def stop(code: int, error: object) -> int:
    """The exit code, explained in one line as far as anybody reads it."""
    with suppress(OSError):
        print(f"error: {one_line(error, limit=LONGEST_LINE)}", file=sys.stderr)
    return code


def default_run_dir(experiment: Experiment) -> Path:
    return Path("runs") / experiment.name / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


def open_sinks(experiment: Experiment, config: dict[str, Any], run_dir: RunDir) -> list[Sink]:
    settings = experiment.settings
    sinks = []
    if settings.wandb.mode != "disabled":
        sinks.append(WandbSink(run_dir.path, **settings.wandb.model_dump(), config=config))
    if settings.tensorboard:
        sinks.append(TensorBoardSink(run_dir.path))
    return [*sinks, progress(settings.num_updates, sys.stdout)]


def report(summary: dict[str, Any], run_dir: RunDir) -> None:
    """Prints what came out, on fresh evaluation episodes."""
    for mode, scores in (("sampled", summary["final"]), ("greedy", summary["final_greedy"])):
        metric = main_metric(scores)
        score = scores[metric]
        unfinished = summary["final_unfinished_episodes"][mode]
        cut_off = f", {unfinished:,} more were cut off at evaluation.max_steps" if unfinished else ""
        mean = f"{score['mean']:.3f}" if score["episodes"] else "missing"
        low, high = score["interval"] or (None, None)
        interval = f", 95% interval over runs {low:.3f} to {high:.3f}" if low is not None else ""
        print(f"{metric} ({mode} policy): {mean} over {score['episodes']:,} fresh episodes{interval}{cut_off}")
    speed = f"{summary['steps_per_second']:,.0f} steps/s, compiled in {summary['compile_seconds']:.0f} s"
    print(f"{speed}, {summary['wall_seconds']:.0f} s in all; everything is in {run_dir.path}")


def command_line(arguments: Sequence[str]) -> int:
    """The exit code of main, also where it is interrupted before it trains, or `--help | head -1` reads no further."""
    code = 0
    try:
        code = main(arguments)
        print(end="", flush=True)
    except KeyboardInterrupt:
        code = stop(INTERRUPTED, "interrupted")
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python writes when it ends
        if not isinstance(error, BrokenPipeError):
            code = stop(CANNOT_WRITE, f"standard output cannot be written: {error}")
    return code


def keep_compiled_programs() -> None:
    """Sets the folder where jax keeps them; one that cannot be written is named, and training goes on without."""
    project = Path(__file__).resolve().parent
    checkout = (project / "pyproject.toml").is_file()
    default = project / ".cache" / "jax" if checkout else platformdirs.user_cache_path("src-pure") / "jax"
    folder = jax.config.jax_compilation_cache_dir or str(default)
    try:
        if "://" not in folder:  # else jax writes to a bucket
            os.makedirs(folder, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"0")
    except OSError as error:
        with suppress(OSError):
            print(
                f"warning: compiled programs are not kept: {error}; JAX_COMPILATION_CACHE_DIR moves them",
                file=sys.stderr,
            )
        folder = None
    jax.config.update("jax_compilation_cache_dir", folder)


def program() -> int:
    """The exit code of the process."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # what orbax logs is in the errors that it raises
    keep_compiled_programs()
    return command_line(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(program())
