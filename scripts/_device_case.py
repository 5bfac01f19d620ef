"""Measures one training, or without KEY=VALUE the device itself: python scripts/_device_case.py FILE [KEY=VALUE ...]

scripts/bench_device.py starts it as a process of its own for each case: a device reports the highest use of memory only
of a whole process, and a compilation that takes too long ends only with its process. FILE is written after every step,
so what was measured before the time ran out stays.
"""

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from bench_train import medians
from jax import lax

from src_pure.build import Experiment, build
from src_pure.config.compose import compose
from src_pure.device import bytes_of, check_device, computing
from src_pure.envs.base import with_params
from src_pure.errors import Parser, between, guarded
from src_pure.lanes import training_keys
from src_pure.preview.counting import BYTES, LAUNCHES, SCOPES, count
from src_pure.preview.devices import BFLOAT16, DEVICES, FULL, ROUNDED
from src_pure.preview.hlo import parse
from src_pure.preview.roofline import bound
from src_pure.preview.table import write_table
from src_pure.runs.arrays import numbers_of
from src_pure.runs.blocks import Blocks, blocks_on
from src_pure.runs.compilation import bytes_needed, compile_fitting
from src_pure.runs.program import functions
from src_pure.train import acting_step

COPIED, SIDE = 2**28, 8192  # float32 of the array that is copied, 1 GiB; rows of the matrices
COPIED_SMALL, SIDE_SMALL = 2**16, 128
IN_A_ROW = 10  # copies or products that are started before the clock waits for them
TURNS = 1000  # of the loop that times launches
ENVIRONMENT, ACTING, LEARNING = SCOPES

Keep = Callable[[str, Any], None]  # adds one entry to the file


class Ready(NamedTuple):
    """A training that is compiled and initialised."""

    experiment: Experiment
    blocks: Blocks
    states: list[Any]  # of each block
    numbers: list[Any]
    update: Callable[[], float]  # trains every lane for one update and returns seconds


def measure_device(calls: int, small: bool, keep: Keep) -> None:
    """Keeps the speed of copies, of products of matrices and of launches."""
    size, side = (COPIED_SMALL, SIDE_SMALL) if small else (COPIED, SIDE)
    device = jax.local_devices()[0]
    keep("kind", device.device_kind)
    keep("jax", jax.__version__)
    x = jnp.ones(size)
    seconds = timed(jax.jit(lambda x: x + 1.0), (x,), calls)
    keep("copy bytes_per_second", rounded(2 * x.nbytes / seconds))
    for name, dtype, precision in (
        (FULL, jnp.float32, lax.Precision.HIGHEST),
        (ROUNDED, jnp.float32, lax.Precision.DEFAULT),
        (BFLOAT16, jnp.bfloat16, lax.Precision.DEFAULT),
    ):
        x = jax.random.normal(jax.random.key(0), (side, side), dtype)  # a GPU multiplies ones faster
        seconds = timed(jax.jit(partial(jnp.matmul, precision=precision)), (x, x), calls)
        keep(f"{name} operations_per_second", rounded(2 * side**3 / seconds))
    keep("launch_seconds", rounded(launch_seconds(calls)))


def launch_seconds(calls: int) -> float:
    """Seconds from one tiny kernel to the next, in a loop in which each needs the one before."""
    x = jnp.arange(128.0)
    # a sort cannot be joined with the addition
    loop = jax.jit(lambda x: lax.fori_loop(0, TURNS, lambda _, x: jnp.sort(-x) + 1.0, x)).lower(x).compile()
    return timed(loop, (x,), calls) / count(parse(loop.as_text() or "")).total(LAUNCHES)


def timed(function: Callable, arguments: Sequence[Any], calls: int) -> float:
    """Seconds of one of several calls that the device is given at once; median."""

    def call() -> float:
        start = time.perf_counter()
        for _ in range(IN_A_ROW):
            result = function(*arguments)  # the one before is freed
        jax.block_until_ready(result)
        return (time.perf_counter() - start) / IN_A_ROW

    return medians({"": call}, calls)[""]


def measure_training(overrides: Sequence[str], calls: int, keep: Keep) -> None:
    """Keeps what a training costs: the most valuable numbers first."""
    ready = prepare(build(compose(overrides)), keep)
    seconds = medians({"": ready.update}, calls)[""]
    steps = ready.experiment.settings.steps_per_update * len(ready.experiment.lanes)
    keep("update_seconds", rounded(seconds))
    keep("env_steps_per_second", rounded(steps / seconds))
    stats = jax.local_devices()[0].memory_stats() or {}  # a CPU has none
    if "peak_bytes_in_use" in stats:
        keep("peak_bytes", stats["peak_bytes_in_use"])
    parts = {}
    for name, function in ((ACTING, only_acting), (ENVIRONMENT, only_environment)):
        parts[name] = seconds_of_part(function(ready.experiment), ready, calls)
        keep("part_seconds", {name: rounded(x) for name, x in parts.items()})
    parts[LEARNING] = max(0.0, seconds - sum(parts.values()))  # and what belongs to no part
    keep("part_seconds", {name: rounded(x) for name, x in parts.items()})


def prepare(experiment: Experiment, keep: Keep) -> Ready:
    """The training on the first device; keeps what the compiler says. Raises ConfigError if it does not fit."""
    blocks = blocks_on(jax.local_devices()[:1], experiment)
    (init, _), (segment, donated), _ = functions(experiment, blocks, max_updates=1)
    numbers, keys = blocks.split(experiment.numbers()), blocks.split(training_keys(experiment.lanes))
    keep("lanes", len(experiment.lanes))
    keep("lanes_per_block", blocks.width)
    keep("env_steps", experiment.settings.steps_per_update * len(experiment.lanes))
    init, one, start = jax.jit(init), jnp.int32(1), time.perf_counter()
    shapes = jax.eval_shape(init, keys[0], numbers[0])
    lowered = jax.jit(segment, donate_argnums=donated).lower(shapes, numbers[0], one)
    others = bytes_of(jax.tree.map(numbers_of, shapes)) * (len(blocks) - 1)
    program = compile_fitting(lowered, others, len(experiment.lanes), "an update", "num_envs, num_steps or model")
    keep("compile_seconds", rounded(time.perf_counter() - start))
    keep("needed_bytes", bytes_needed(program) + others)
    keep_bound(program, len(blocks), keep)
    states = [init(*each) for each in zip(keys, numbers, strict=True)]

    def update() -> float:
        start = time.perf_counter()
        # a block's old state is donated, so it is replaced at once
        metrics = []
        for i, state in enumerate(states):
            states[i], found = program(state, numbers[i], one)
            metrics.append(found)
        jax.block_until_ready((states, metrics))
        return time.perf_counter() - start

    return Ready(experiment, blocks, states, numbers, update)


def keep_bound(program: jax.stages.Compiled, num_blocks: int, keep: Keep) -> None:
    """Keeps the least seconds of an update of all blocks, counted in the program itself, if the device is known."""
    kind = jax.local_devices()[0].device_kind
    device = next((device for device in DEVICES.values() if device.name == kind), None)
    if device is None:
        keep("bound", f"none: {kind} is not in src_pure/preview/devices.py")
        return
    counted = count(parse(program.as_text() or ""), counted_loop=True).times(num_blocks)
    least = bound(counted, device)
    keep(LAUNCHES, counted.total(LAUNCHES))
    keep(BYTES, counted.total(BYTES))
    keep("bound", least.resource)
    keep("bound_seconds", {name: rounded(getattr(least, name)) for name in least._fields})
    keep("bound_part_seconds", {name: rounded(bound(counted, device, name).seconds) for name in SCOPES})


def only_environment(experiment: Experiment) -> Callable:
    """A function of (key, params, actor, algo, task) that takes the steps of one rollout with random actions."""
    num_steps = experiment.settings.num_steps

    def of_lane(key, params, actor, algo, task):
        env = with_params(experiment.env, task)
        key_refresh, key_steps = jax.random.split(key)

        def step(loop, key):
            key_action, key_env = jax.random.split(key)
            action = jax.vmap(env.action_space.sample)(jax.random.split(key_action, env.num_envs))
            return env.step(key_env, loop[0], action), None

        start = env.refresh(key_refresh, actor.env_state), actor.timestep
        return lax.scan(step, start, jax.random.split(key_steps, num_steps))[0]

    return of_lane


def only_acting(experiment: Experiment) -> Callable:
    """A function of (key, params, actor, algo, task) that acts as often as in one rollout, always on the same input."""
    num_steps, apply = experiment.settings.num_steps, experiment.policy.apply

    def of_lane(key, params, actor, algo, task):
        explore = partial(algo.explore, update=jnp.int32(0))

        def step(loop, key):
            carry, obs = lax.optimization_barrier(loop)  # or the encoder would be computed once, before the loop
            carry, action, output = acting_step(key, apply, params, carry, obs, reset, explore=explore)
            return (carry, obs), (action, output.actions.log_prob(action), output.value)

        obs, reset = actor.timestep.obs, actor.timestep.reset
        return lax.scan(step, (actor.carry, obs), jax.random.split(key, num_steps))

    return of_lane


def seconds_of_part(of_lane: Callable, ready: Ready, calls: int) -> float:
    """Seconds that one part of an update of all blocks takes: that of the first block, as often as there are blocks."""
    state, numbers = ready.states[0], ready.numbers[0]
    arguments = state.key, state.learner.params, state.actor, numbers.algo, numbers.task
    program = jax.jit(jax.vmap(of_lane)).lower(*arguments).compile()

    def call() -> float:
        start = time.perf_counter()
        jax.block_until_ready(program(*arguments))
        return time.perf_counter() - start

    return medians({"": call}, calls)[""] * len(ready.blocks)


def rounded(x: float) -> float:
    """Four digits: no measurement has more."""
    return float(f"{x:.4g}")


@guarded
def main(command_line: Sequence[str] | None = None) -> int:
    """0 once everything is measured."""
    parser = Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("file", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--calls", type=between(int, 1, 10_000), default=3)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_intermixed_args(command_line)
    check_device()
    found: dict[str, Any] = {}

    def keep(name: str, value: Any) -> None:
        found[name] = value
        write_table(options.file, found)

    with computing():
        if options.overrides:
            measure_training(options.overrides, options.calls, keep)
        else:
            measure_device(options.calls, options.small, keep)
    return 0


if __name__ == "__main__":
    sys.exit(main())
