"""The host side of a training: compile the program, call it in segments, write down what comes back."""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import lax

from src_pure.algos.base import Algorithm
from src_pure.build import Experiment
from src_pure.config.settings import Settings
from src_pure.device import bytes_of, check_fits
from src_pure.errors import ConfigError, NumericalError
from src_pure.evaluate import make_evaluate
from src_pure.models.base import precision_of
from src_pure.models.policy import num_parameters
from src_pure.runs.checkpoint import Checkpoints
from src_pure.runs.columns import column
from src_pure.runs.loggers import Sink
from src_pure.runs.policies import warm_start
from src_pure.runs.preemption import StopRequest
from src_pure.runs.process import numeric_settings
from src_pure.runs.report import final_scores, git_commit, versions
from src_pure.runs.resume import Start, refuse_incomplete
from src_pure.runs.rows import evaluation_rows, mean_score, metric_rows
from src_pure.runs.rundir import RunDir
from src_pure.runs.tables import RowBuffer
from src_pure.train import init_runs, make_train, run_updates, runs_of
from src_pure.types import Key, Learner, Metrics, Params, TrainState

GENERATOR = "threefry2x32"
MAX_SEGMENT = 256  # updates that one of several calls can do at the most: rows of its table of metrics
# Of the first minibatch, where the policy has not changed yet, by the model's precision: rounding stayed below it
MAX_LOG_RATIO = {"float32": 1e-4, "bfloat16": 1e-1}


@dataclass(frozen=True)
class Program:
    """The compiled training of all runs."""

    algo: Algorithm
    segment: Callable[[TrainState, Algorithm, Any], tuple[TrainState, Metrics]]
    evaluate: Callable[[Key, Params], dict[str, Metrics]]
    max_updates: int
    compile_seconds: float


def compile_program(experiment: Experiment, warm: str | None = None) -> tuple[Program, TrainState]:
    """The Program of an experiment, compiled ahead, and the state at the start.

    warm: folder of the exported policy whose parameters it starts with. Raises ConfigError, before it compiles
    anything, if that is another policy, or if checkpoint.metric is no column of the metrics.
    """
    start = time.perf_counter()
    settings = experiment.settings
    init, update = make_train(experiment.env, experiment.policy)
    evaluate = make_evaluate(experiment.evaluation_env, experiment.policy, experiment.evaluation_steps)
    # whatever total_steps is, segments are one program: a training that was continued equals an unbroken one
    max_updates = MAX_SEGMENT if settings.log_seconds else settings.num_updates

    def segment(state, algo, num_updates):
        return run_updates(update, state, algo, num_updates, max_updates)

    def evaluate_runs(keys, params):
        evaluate_mode = partial(jax.vmap(evaluate, in_axes=(0, 0, None)), keys, params)
        metrics = lax.map(evaluate_mode, jnp.array([True, False]))  # one after the other, compiled once
        return {mode: jax.tree.map(lambda x, i=i: x[i], metrics) for i, mode in enumerate(("greedy", "sampled"))}

    num_runs = settings.num_seeds
    keys = jax.ShapeDtypeStruct((num_runs,), jax.random.key(0, impl=GENERATOR).dtype)
    algo = jax.eval_shape(lambda: runs_of(experiment.algo, num_runs))  # nothing is made before it is known to fit
    initialise = jax.jit(lambda keys, algo: init_runs(init, keys, algo)).trace(keys, algo)
    traced = jax.jit(segment, donate_argnums=0).trace(initialise.out_info, algo, jax.ShapeDtypeStruct((), jnp.int32))
    _check_metric(settings.checkpoint.metric, traced.out_info[1])
    check_fits(bytes_of(traced.out_info), num_runs, "the state of a training with its table of metrics")
    shapes = initialise.out_info.learner.params
    params = warm_start(Path(warm), shapes) if warm else None
    update, evaluation = traced.lower(), jax.jit(evaluate_runs).lower(keys, shapes)
    program = Program(
        algo=runs_of(experiment.algo, num_runs),
        segment=_fitting(update.compile(), num_runs, "an update", "num_envs, num_steps or model"),
        evaluate=_fitting(evaluation.compile(), num_runs, "an evaluation", "evaluation.num_episodes or model"),
        max_updates=max_updates,
        compile_seconds=0.0,
    )
    state = jax.block_until_ready(initialise.lower().compile()(training_keys(settings.seeds), program.algo))
    if warm:
        state = state._replace(learner=jax.jit(start_runs)(program.algo, params))
    program = replace(program, compile_seconds=time.perf_counter() - start)
    return program, state


def _fitting(program: jax.stages.Compiled, num_runs: int, what: str, sizes: str) -> jax.stages.Compiled:
    """The program; raises ConfigError if it needs more memory than there is."""
    needed = program.memory_analysis()
    total = needed.argument_size_in_bytes + needed.output_size_in_bytes + needed.temp_size_in_bytes
    check_fits(total - needed.alias_size_in_bytes, num_runs, what, sizes)
    return program


def start_runs(algo: Algorithm, params: Params) -> Learner:
    """Every run with the same parameters and an optimiser that has seen nothing; leaves of algo [R]."""

    def start(algo: Algorithm) -> Learner:
        return Learner(params, algo.optimizer().init(params))

    return jax.vmap(start)(algo)


def training_keys(seeds: Sequence[int]) -> Key:
    """One key for each seed, [R]: a run depends on its seed alone, not on the runs beside it."""
    return _split_keys(seeds)[:, 0]


def evaluation_keys(seeds: Sequence[int], update: int) -> Key:
    """One key for each seed, [R], for the evaluation after `update`; training never sees any of them."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(_split_keys(seeds)[:, 1], update)


def _split_keys(seeds: Sequence[int]) -> Key:
    """[R, 2] keys of threefry, whatever generator the process prefers: with rbg, runs side by side give other numbers
    than alone."""
    return jax.vmap(lambda seed: jax.random.split(jax.random.key(seed, impl=GENERATOR)))(np.asarray(seeds, np.int32))


def train(
    experiment: Experiment, run_dir: RunDir, sinks: Sequence[Sink], start: Start, stop: StopRequest | None = None
) -> dict[str, Any]:
    """The summary of the whole training, which is also in the run folder.

    Continues from `start`. Raises Preempted, with all saved, at the first boundary after `stop` is set. A run whose
    numbers end keeps its parameters and has no more rows; raises NumericalError at the end of the segment in which none
    is left, and what was written stays. Raises CheckpointError if at the end the run folder lacks what was written.
    """
    settings = experiment.settings
    stop = stop or StopRequest()
    progress = Progress(start)
    run_dir.log("compiling")
    program, state = compile_program(experiment, None if start.checkpoint else settings.warm_start)
    run_dir.log(f"compiled in {program.compile_seconds:.1f} s")
    if start.checkpoint:
        state = start.checkpoint.restore(state)
        progress.completed = jax.device_get(state.update)
    start.prepare(run_dir, experiment.config_yaml)
    stop.training = True
    buffer = RowBuffer(run_dir.append_metrics, settings.log_seconds)
    with closing(open_checkpoints(run_dir, settings)) as checkpoints, buffer:
        while True:
            if stop.signal is not None:
                if progress.unsaved:
                    buffer.write()
                    _save(checkpoints, state, progress, experiment, run_dir)
                checkpoints.wait()
                stop.raise_if_set(f"after update {progress.done} of {settings.num_updates}")
            if _evaluation_due(settings, progress.done) and not run_dir.evaluation.has_rows_of(progress.done):
                buffer.write()
                rows = _evaluate(experiment, program, state, progress.done)
                run_dir.append_evaluation(rows[~rows["run"].isin(progress.failed)])
            if progress.done == settings.num_updates:
                break
            num_updates = _segment_length(settings, program, progress)
            segment_start = time.perf_counter()
            state, metrics = program.segment(state, program.algo, jnp.int32(num_updates))
            metrics, completed = jax.device_get((metrics, state.update))
            rows = metric_rows({k: v[:num_updates] for k, v in metrics.items()}, settings, progress.done)
            rows = progress.living(rows, completed)
            progress.advance(rows, num_updates, time.perf_counter() - segment_start)
            buffer.add(rows)
            for sink in sinks:
                sink.log(rows, progress.elapsed)
            _warn(rows, run_dir, MAX_LOG_RATIO[precision_of(experiment.policy.memory)])
            if len(progress.failed) == settings.num_seeds:
                buffer.write()
                run_dir.write_summary(_summary(experiment, run_dir, program, state, progress))
                listed = ", ".join(f"seed {settings.seeds[run]} at update {at}" for run, at in progress.failed.items())
                raise NumericalError(f"no run is left: {listed} failed; what was written is in {run_dir.path}")
            if _checkpoint_due(settings, progress):
                buffer.write()
                _save(checkpoints, state, progress, experiment, run_dir)
        checkpoints.wait()
    summary = _summary(experiment, run_dir, program, state, progress)
    run_dir.write_summary(summary)
    with RunDir.open(run_dir.path) as written:
        run_dir.folder.check()
        refuse_incomplete(written, experiment)
    return summary


def open_checkpoints(run_dir: RunDir, settings: Settings) -> Checkpoints:
    keep, metric = settings.checkpoint.keep, settings.checkpoint.metric
    return Checkpoints(run_dir.checkpoints, keep, run_dir.identity, metric, run_dir.folder.check)


class Progress:
    """Where a training stands. Seconds are of this process; `*_before` of those that it continues."""

    def __init__(self, start: Start):
        self.begun = self.saved = time.perf_counter()
        self.first = self.done = start.update
        self.seconds_before = start.checkpoint.seconds if start.checkpoint else 0.0
        self.wall_before = start.checkpoint.wall_seconds if start.checkpoint else 0.0
        self.process = numeric_settings()
        self.continued = start.continued  # where the run went on under other settings of the process
        self.elapsed = 0.0
        self.completed: np.ndarray = np.array([], int)  # updates of each run, [R]
        self.unsaved: list[pd.DataFrame] = []  # rows since the last checkpoint

    @property
    def failed(self) -> dict[int, int]:
        """For each run that is no longer training, the update that gave numbers that are none."""
        return {run: int(update) + 1 for run, update in enumerate(self.completed) if update < self.done}

    def living(self, rows: pd.DataFrame, completed: np.ndarray) -> pd.DataFrame:
        """The rows of a segment without those of runs that failed before it, and of those in it after they failed."""
        failed, self.completed = list(self.failed), completed
        return rows[~rows["run"].isin(failed) & (rows["update"] <= completed[rows["run"]] + 1)].reset_index(drop=True)

    def advance(self, rows: pd.DataFrame, num_updates: int, seconds: float) -> None:
        if self.done == self.first:
            self.saved = time.perf_counter()  # nothing could be saved while the program was compiled
        self.unsaved.append(rows)
        self.done += num_updates
        self.elapsed += seconds

    def wall_seconds(self) -> float:
        return self.wall_before + time.perf_counter() - self.begun


def _checkpoint_due(settings: Settings, progress: Progress) -> bool:
    updates, minutes = settings.checkpoint.updates, settings.checkpoint.minutes
    by_count = updates is not None and progress.done % updates == 0
    by_clock = minutes is not None and time.perf_counter() - progress.saved >= 60 * minutes
    return by_count or by_clock or progress.done == settings.num_updates


def _save(
    checkpoints: Checkpoints, state: TrainState, progress: Progress, experiment: Experiment, run_dir: RunDir
) -> None:
    """Hands a checkpoint of where training stands to the thread that writes it."""
    checkpoint = experiment.settings.checkpoint
    checkpoints.save(
        state,
        progress.done,
        score=mean_score(progress.unsaved, checkpoint.metric, checkpoint.min_episodes),
        seconds=progress.seconds_before + progress.elapsed,
        wall_seconds=progress.wall_seconds(),
        config=experiment.config,
        process=progress.process,
        continued=progress.continued,
        metrics_sha256=run_dir.metrics.digest_of(progress.done),
    )
    progress.saved, progress.unsaved = time.perf_counter(), []


def _check_metric(metric: str | None, metrics: Metrics) -> None:
    known = [column(name) for name in metrics]
    if metric is not None and metric not in known:
        raise ConfigError(f"checkpoint.metric must be one of {', '.join(known)}, got {metric!r}")


def _evaluation_due(settings: Settings, done: int) -> bool:
    interval = settings.evaluation.interval
    return done == settings.num_updates or (interval > 0 and done > 0 and done % interval == 0)


def _summary(
    experiment: Experiment, run_dir: RunDir, program: Program, state: TrainState, progress: Progress
) -> dict[str, Any]:
    """What summary.json says: `final` are the scores of the sampled policy at the end, none where no run came to it."""
    settings = experiment.settings
    evaluation = run_dir.evaluation.frame()
    evaluation = evaluation[evaluation["update"] == settings.num_updates]
    scores = final_scores(evaluation)
    env_steps = progress.done * settings.steps_per_update
    training = run_dir.metrics.frame(["episodes", "episode_shared_world"])
    shared = training.get("episode_shared_world", pd.Series(dtype=float)) * training["episodes"]
    return {
        "name": experiment.name,
        "parameters": num_parameters(state.learner.params) // settings.num_seeds,
        "steps_per_second": env_steps * settings.num_seeds / (progress.seconds_before + progress.elapsed),
        "compile_seconds": program.compile_seconds,
        "env_steps": env_steps,
        "wall_seconds": progress.wall_seconds(),
        "runs": settings.num_seeds,
        "failed": {settings.seeds[run]: update for run, update in progress.failed.items()},  # by seed
        "final": scores.get("sampled", {}),
        "final_greedy": scores.get("greedy", {}),
        "episodes_in_shared_worlds": round(shared.sum()),
        "continued_under_other_settings": progress.continued,
        "process": progress.process,
        "versions": versions(),
        "commit": git_commit(),
    }


def _segment_length(settings: Settings, program: Program, progress: Progress) -> int:
    """Updates of the next segment: as many as fit into log_seconds, and none past what is due or the end.

    It takes half of grace_seconds at the most, which leaves the other half for saving.
    """
    left = settings.num_updates - progress.done
    in_time = left
    if settings.log_seconds:
        known = progress.done - progress.first
        seconds = min(settings.log_seconds, settings.grace_seconds / 2)
        in_time = int(seconds * known / progress.elapsed) if known else 1
    for interval in (settings.evaluation.interval, settings.checkpoint.updates):
        if interval:
            left = min(left, interval - progress.done % interval)
    return max(1, min(in_time, left, program.max_updates))


def _evaluate(experiment: Experiment, program: Program, state: TrainState, done: int) -> pd.DataFrame:
    keys = evaluation_keys(experiment.settings.seeds, done)
    metrics = jax.device_get(program.evaluate(keys, state.learner.params))
    return evaluation_rows(metrics, experiment.settings, done)


def _warn(rows: pd.DataFrame, run_dir: RunDir, max_log_ratio: float) -> None:
    """Warns of runs that failed, and of a policy that acts otherwise than it learns."""
    for _, last in rows.groupby("run").tail(1).iterrows():
        cause = _cause_of_failure(last)
        if cause:
            print_and_log(
                f"warning: seed {last['seed']:.0f} failed at update {last['update']:.0f}: {cause}; this run keeps the "
                "parameters that it had before",
                run_dir,
            )
    ratio = rows.get("first_minibatch_max_abs_log_ratio", pd.Series([0.0])).max()
    if ratio > max_log_ratio:
        print_and_log(
            f"warning: before any gradient step log(new policy / acting policy) is up to {ratio:.1e}, it should be 0: "
            "does the memory model give the same outputs step by step and as a sequence?",
            run_dir,
        )


def _cause_of_failure(row: pd.Series) -> str:
    """What of an update's metrics is no number and what to change; nothing where all of it is."""
    if row["nonfinite_inputs"]:
        return f"{row['nonfinite_inputs']:.0f} observations or rewards are NaN or infinite, correct the environment"
    wrong = [f"the {name} is {row[name]}" for name in ("loss", "param_norm") if not np.isfinite(row[name])]
    return f"{' and '.join(wrong)}, try a smaller algo.learning_rate" if wrong else ""


def print_and_log(line: str, run_dir: RunDir) -> None:
    run_dir.log(line)
    print(line, file=sys.stderr)
