"""The program of a training, compiled ahead of time: initialisation, segments of updates and evaluation."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from signal import Signals
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from src_pure.algos.base import Algorithm
from src_pure.build import Experiment
from src_pure.device import bytes_of, check_fits
from src_pure.errors import ConfigError
from src_pure.evaluate import make_evaluate
from src_pure.lanes import GENERATOR, Lane, Numbers, evaluation_keys, training_keys
from src_pure.runs.arrays import numbers_of
from src_pure.runs.blocks import Blocks, blocks_of
from src_pure.runs.columns import column
from src_pure.runs.compilation import CacheUse, compile_fitting, counting
from src_pure.runs.mesh import EACH, ROWS, SAME, on_each_device
from src_pure.runs.policies import read_warm_start
from src_pure.train import example_of_rollout, init_runs, make_train, run_updates
from src_pure.types import Array, Key, Learner, Metrics, Params, TrainState

MAX_SEGMENT = 256  # most updates of one call when log_seconds splits a training: rows of its metrics
BUSY = 256  # episodes that keep a CPU busy
MODES = ("greedy", "sampled")

State = tuple[TrainState, ...]  # of each block, leaves [size, ...]


@dataclass(frozen=True)
class Program:
    """The compiled training of all lanes, called for one block of lanes after another."""

    lanes: Sequence[Lane]
    blocks: Blocks
    numbers: Sequence[Numbers]  # of each block
    like: TrainState  # shapes of the state of all lanes, [R, ...]
    warm_start: Callable[[Algorithm], Learner] | None  # learners that start from an exported policy; None: fresh ones
    max_updates: int  # of one segment
    compile_seconds: float
    cache: CacheUse
    compiled_init: jax.stages.Compiled
    compiled_segment: jax.stages.Compiled
    compiled_evaluate: jax.stages.Compiled

    @property
    def signal(self) -> Signals | None:
        """A signal that asked another process of this training to stop."""
        return None

    def init(self) -> State:
        """The state before the first update."""
        keys = self.blocks.split(training_keys(self.lanes))
        return tuple(self._init_block(*each) for each in zip(keys, self.numbers, strict=True))

    def _init_block(self, keys: Key, numbers: Numbers) -> TrainState:
        """The state of one block before the first update; keys [size]."""
        state = self.compiled_init(keys, numbers)
        return state if self.warm_start is None else state._replace(learner=self.warm_start(numbers.algo))

    def segment(self, state: State, num_updates: int) -> tuple[State, Metrics]:
        """(state, metrics [U, R] as numpy arrays) after num_updates updates of every lane. Donates the old state.

        No block waits for another on the host: all are started before the first metrics are read.
        """
        count = jax.device_put(np.int32(num_updates), self.blocks.place(SAME))
        calls = [self.compiled_segment(each, n, count) for each, n in zip(state, self.numbers, strict=True)]
        metrics = self.blocks.join([metrics for _, metrics in calls], axis=1)
        return tuple(state for state, _ in calls), {name: x[:num_updates] for name, x in metrics.items()}

    def refill(self, state: State, positions: Sequence[int]) -> State:
        """The state in which the lanes at these positions are as `init` makes them. Donates the old state.

        A lane that is refilled trains as if it had been there from the beginning.
        """
        refilled = np.isin(np.arange(len(self.lanes)), positions)
        keys, masks = self.blocks.split(training_keys(self.lanes)), self.blocks.split(refilled)
        starts = range(0, len(masks) * self.blocks.size, self.blocks.size)
        new = list(state)
        for i, start in enumerate(starts):
            if refilled[start : start + self.blocks.size].any():
                new[i] = lanes_of_either(masks[i], self._init_block(keys[i], self.numbers[i]), state[i])
        return tuple(new)

    def evaluate(self, state: State, update: int | np.ndarray) -> dict[str, Metrics]:
        """Metrics [R] of each mode, greedy and sampled, on the evaluation episodes of an update; as numpy arrays.

        update: of all lanes, or of each lane, [R].
        """
        keys = self.blocks.split(evaluation_keys(self.lanes, update))
        arguments = zip(keys, state, self.numbers, strict=True)
        return self.blocks.join([self.compiled_evaluate(key, x.learner.params, n.task) for key, x, n in arguments])

    def completed(self, state: State) -> np.ndarray:
        """The number of updates that each lane completed, [R]."""
        return self.blocks.join([block.update for block in state])

    def gather(self, state: State) -> TrainState:
        """The state of all lanes as numpy arrays [R, ...] of their own; typed keys as key data."""
        return self.blocks.join(state)

    def scatter(self, state: TrainState) -> State:
        """The opposite of `gather`, whatever the blocks and devices were then."""
        return tuple(self.blocks.split(state, self.like))


class Traced(NamedTuple):
    """The functions of one block as jax sees them: only shapes, nothing is allocated or compiled."""

    init: jax.stages.Traced
    segment: jax.stages.Traced
    evaluate: jax.stages.Traced
    state: TrainState  # shapes of the state of a block
    bytes_of_block: int  # on each device: state and metrics
    max_updates: int  # of one segment


def trace(experiment: Experiment, blocks: Blocks) -> Traced:
    """The program of an experiment, traced; raises ConfigError if checkpoint.metric is not a column of the metrics."""
    settings = experiment.settings
    # the same program for every total_steps, so that a continued training equals an uninterrupted one
    max_updates = MAX_SEGMENT if settings.log_seconds else settings.num_updates
    init, segment, evaluate = (jax.jit(x, donate_argnums=n) for x, n in functions(experiment, blocks, max_updates))
    keys = jax.ShapeDtypeStruct((blocks.size,), jax.random.key(0, impl=GENERATOR).dtype)
    keys, numbers = blocks.shapes((keys, blocks.resized(jax.eval_shape(experiment.numbers))))
    traced_init = init.trace(keys, numbers)
    state = blocks.shapes(traced_init.out_info)
    traced_segment = segment.trace(state, numbers, blocks.shapes(jax.ShapeDtypeStruct((), jnp.int32), SAME))
    check_metric(settings.checkpoint.metric, traced_segment.out_info[1])
    of_block = bytes_of(jax.tree.map(numbers_of, traced_segment.out_info)) // blocks.shares
    traced_evaluate = evaluate.trace(keys, state.learner.params, numbers.task)
    return Traced(traced_init, traced_segment, traced_evaluate, state, of_block, max_updates)


def compile_program(experiment: Experiment, warm_start: str | None = None, width: int | None = None) -> Program:
    """The Program of an experiment.

    warm_start: folder of an exported policy whose parameters every run starts from. width: lanes per block that a
    continued training has, see blocks_of. Raises ConfigError before compilation if the parameters do not fit or if
    checkpoint.metric is not a column of the metrics.
    """
    started = time.perf_counter()
    num_lanes, blocks = len(experiment.lanes), blocks_of(experiment, width)
    traced = trace(experiment, blocks)
    check_fits(traced.bytes_of_block * len(blocks), num_lanes, "the state of a training with its table of metrics")
    state = traced.state
    params = read_warm_start(Path(warm_start), state.learner.params) if warm_start else None
    lowered = (traced.init.lower(), traced.segment.lower(), traced.evaluate.lower())
    others = traced.bytes_of_block * (len(blocks) - 1), num_lanes
    with counting() as cache:
        segment = compile_fitting(lowered[1], *others, "an update", "num_envs, num_steps or model")
        evaluate = compile_fitting(lowered[2], *others, "an evaluation", "evaluation.num_episodes or model")
        init = lowered[0].compile()
    program = Program(
        lanes=experiment.lanes,
        blocks=blocks,
        numbers=blocks.split(experiment.numbers()),
        like=blocks.resized(state, num_lanes),
        warm_start=None if params is None else partial(learners_from, experiment, blocks, params),
        max_updates=traced.max_updates,
        compile_seconds=0.0,
        cache=cache,
        compiled_init=init,
        compiled_segment=segment,
        compiled_evaluate=evaluate,
    )
    return replace(program, compile_seconds=time.perf_counter() - started)


def functions(experiment: Experiment, blocks: Blocks, max_updates: int) -> tuple[tuple[Callable, int | None], ...]:
    """(init, segment, evaluate) of one block, each with the number of the argument that it donates."""
    init, update = make_train(experiment.env, experiment.policy)
    evaluate = make_evaluate(experiment.evaluation_env, experiment.policy, experiment.evaluation_steps)
    platform = blocks.mesh.devices.flat[0].platform
    at_once = lanes_evaluated_at_once(blocks.width, experiment.evaluation_env.num_envs, platform)

    def init_lanes(keys, numbers):
        return init_runs(init, keys, *numbers)

    def segment(state, numbers, num_updates):
        return run_updates(update, state, numbers.algo, num_updates, max_updates, numbers.task)

    def evaluate_lanes(keys, params, task):
        greedy = jnp.array([True, False])  # in sequence, so that the evaluation is compiled once
        metrics = lax.map(lambda greedy: evaluate_mode(keys, params, greedy, task), greedy)
        return {mode: jax.tree.map(lambda x, i=i: x[i], metrics) for i, mode in enumerate(MODES)}

    def evaluate_mode(keys, params, greedy, task):
        def of_lane(lane):
            key, params, task = lane
            return evaluate(key, params, greedy, task)

        return lax.map(of_lane, (keys, params, task), batch_size=None if at_once == 1 else at_once)

    return (
        (blocks.pin(on_each_device(init_lanes, blocks.mesh, (EACH, EACH), EACH)), None),
        (blocks.pin(on_each_device(segment, blocks.mesh, (EACH, EACH, SAME), (EACH, ROWS))), 0),
        (on_each_device(evaluate_lanes, blocks.mesh, (EACH, EACH, EACH), EACH), None),
    )


def lanes_evaluated_at_once(width: int, num_episodes: int, platform: str) -> int:
    """How many lanes of a block are evaluated together: on a CPU just enough to keep it busy, else all of them.

    Lanes that are evaluated together wait for the longest episode among them.
    """
    if platform != "cpu":
        return width
    return max(
        lanes for lanes in range(1, width + 1) if width % lanes == 0 and (lanes == 1 or lanes * num_episodes <= BUSY)
    )


@partial(jax.jit, donate_argnums=2)
def lanes_of_either(first: Array, one: TrainState, other: TrainState) -> TrainState:
    """The lanes of `one` where `first` [size] holds, those of `other` elsewhere; leaves [size, ...]."""

    def either(x: Array, y: Array) -> Array:
        return jnp.where(first.reshape(-1, *(1,) * (x.ndim - 1)), x, y)

    return jax.tree.map(either, one, other)


def check_metric(metric: str | None, metrics: Metrics) -> None:
    """Raises ConfigError if the program does not report checkpoint.metric."""
    known = [column(name) for name in metrics]
    if metric is not None and metric not in known:
        raise ConfigError(f"checkpoint.metric must be one of {', '.join(known)}, got {metric!r}")


def learners_from(experiment: Experiment, blocks: Blocks, params: Params, algo: Algorithm) -> Learner:
    """Learners of one block, which start from the same parameters; leaves of algo [size]."""

    def learners(params: Params, algo: Algorithm) -> Learner:
        example = partial(example_of_rollout, experiment.env, experiment.policy, experiment.algo)
        return jax.vmap(lambda algo: algo.init(params, example))(algo)

    return jax.jit(on_each_device(learners, blocks.mesh, (SAME, EACH), EACH))(params, algo)
