"""The program of a training, compiled ahead of time: initialisation, segments of updates and evaluation."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from src_pure.algos.base import Algorithm
from src_pure.build import Experiment
from src_pure.device import bytes_of, check_fits
from src_pure.errors import ConfigError
from src_pure.evaluate import make_evaluate
from src_pure.lanes import GENERATOR, Lane, Numbers, evaluation_keys, training_keys
from src_pure.runs.columns import column
from src_pure.runs.policies import read_warm_start
from src_pure.train import example_of_rollout, init_runs, make_train, run_updates
from src_pure.types import Learner, Metrics, Params, TrainState

MAX_SEGMENT = 256  # most updates of one call when log_seconds splits a training: rows of its metrics
MODES = ("greedy", "sampled")


@dataclass(frozen=True)
class Program:
    """The compiled training of all lanes."""

    lanes: Sequence[Lane]
    numbers: Numbers  # leaves [R, ...]
    warm_start: Callable[[Algorithm], Learner] | None  # learners that start from an exported policy; None: fresh ones
    max_updates: int  # of one segment
    compile_seconds: float
    compiled_init: jax.stages.Compiled
    compiled_segment: jax.stages.Compiled
    compiled_evaluate: jax.stages.Compiled

    def init(self) -> TrainState:
        """The state before the first update; leaves [R, ...]."""
        state = self.compiled_init(training_keys(self.lanes), self.numbers)
        return state if self.warm_start is None else state._replace(learner=self.warm_start(self.numbers.algo))

    def segment(self, state: TrainState, num_updates: int) -> tuple[TrainState, Metrics]:
        """(state, metrics [max_updates, R]) after num_updates updates; later rows are zero. Donates the old state."""
        return self.compiled_segment(state, self.numbers, jnp.int32(num_updates))

    def evaluate(self, state: TrainState, update: int) -> dict[str, Metrics]:
        """Metrics [R] of each mode, greedy and sampled, on the evaluation episodes of an update."""
        return self.compiled_evaluate(evaluation_keys(self.lanes, update), state.learner.params, self.numbers.task)


def compile_program(experiment: Experiment, warm_start: str | None = None) -> Program:
    """The Program of an experiment.

    warm_start: folder of an exported policy whose parameters every run starts from. Raises ConfigError before
    compilation if its parameters do not fit or if checkpoint.metric is not a column of the metrics.
    """
    started = time.perf_counter()
    settings, lanes = experiment.settings, experiment.lanes
    init, update = make_train(experiment.env, experiment.policy)
    evaluate = make_evaluate(experiment.evaluation_env, experiment.policy, experiment.evaluation_steps)
    # the same program for every total_steps, so that a continued training equals an uninterrupted one
    max_updates = MAX_SEGMENT if settings.log_seconds else settings.num_updates

    def init_lanes(keys, numbers):
        return init_runs(init, keys, *numbers)

    def segment(state, numbers, num_updates):
        return run_updates(update, state, numbers.algo, num_updates, max_updates, numbers.task)

    def evaluate_lanes(keys, params, task):
        evaluate_mode = jax.vmap(evaluate, in_axes=(0, 0, None, 0))
        greedy = jnp.array([True, False])  # in sequence, so that the evaluation is compiled once
        metrics = lax.map(lambda greedy: evaluate_mode(keys, params, greedy, task), greedy)
        return {mode: jax.tree.map(lambda x, i=i: x[i], metrics) for i, mode in enumerate(MODES)}

    # only shapes so far: nothing is allocated before it is known to fit
    keys = jax.ShapeDtypeStruct((len(lanes),), jax.random.key(0, impl=GENERATOR).dtype)
    numbers = jax.eval_shape(experiment.numbers)
    traced_init = jax.jit(init_lanes).trace(keys, numbers)
    state = traced_init.out_info
    traced_segment = jax.jit(segment, donate_argnums=0).trace(state, numbers, jax.ShapeDtypeStruct((), jnp.int32))
    check_metric(settings.checkpoint.metric, traced_segment.out_info[1])
    check_fits(bytes_of(traced_segment.out_info), len(lanes), "the state of a training with its table of metrics")
    params = read_warm_start(Path(warm_start), state.learner.params) if warm_start else None
    lowered_segment = traced_segment.lower()
    lowered_evaluate = jax.jit(evaluate_lanes).lower(keys, state.learner.params, numbers.task)
    sizes = "num_envs, num_steps or model", "evaluation.num_episodes or model"
    program = Program(
        lanes=lanes,
        numbers=experiment.numbers(),
        warm_start=None if params is None else partial(learners_from, experiment, params),
        max_updates=max_updates,
        compile_seconds=0.0,
        compiled_segment=compile_fitting(lowered_segment, len(lanes), "an update", sizes[0]),
        compiled_evaluate=compile_fitting(lowered_evaluate, len(lanes), "an evaluation", sizes[1]),
        compiled_init=traced_init.lower().compile(),
    )
    return replace(program, compile_seconds=time.perf_counter() - started)


def check_metric(metric: str | None, metrics: Metrics) -> None:
    """Raises ConfigError if the program does not report checkpoint.metric."""
    known = [column(name) for name in metrics]
    if metric is not None and metric not in known:
        raise ConfigError(f"checkpoint.metric must be one of {', '.join(known)}, got {metric!r}")


def compile_fitting(program: jax.stages.Lowered, num_runs: int, what: str, sizes: str) -> jax.stages.Compiled:
    """The compiled program; raises ConfigError if it needs more memory than the device has."""
    compiled = program.compile()
    needed: Any = compiled.memory_analysis()  # jax types it loosely
    total = needed.argument_size_in_bytes + needed.output_size_in_bytes + needed.temp_size_in_bytes
    check_fits(total - needed.alias_size_in_bytes, num_runs, what, sizes)
    return compiled


def learners_from(experiment: Experiment, params: Params, algo: Algorithm) -> Learner:
    """Learners of all runs, which start from the same parameters; leaves of algo [R]."""

    @jax.jit
    def learners(params: Params, algo: Algorithm) -> Learner:
        example = partial(example_of_rollout, experiment.env, experiment.policy, experiment.algo)
        return jax.vmap(lambda algo: algo.init(params, example))(algo)

    return learners(params, algo)
