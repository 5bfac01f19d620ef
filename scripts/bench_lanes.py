"""Speed of many runs in one program: python scripts/bench_lanes.py [--lanes 1,16,64] [--calls N] [--case NAME] [--bill]

For each number of lanes: environment steps per second in blocks, in one block of all lanes (the baseline) and of `vmap`
over a whole training (_vmapped_train.py), with the temporaries of a call. The three take turns in the same process.
--bill compares one command of many runs with as many commands, start, compilation and evaluation included.
"""

if __name__ == "__main__":
    from src_pure.interrupt import imported  # first: from here on Ctrl-C prints one line instead of a traceback

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import _vmapped_train as vmapped_train
import jax
import jax.numpy as jnp
from bench_train import medians

from src_pure.build import Experiment, build
from src_pure.config.compose import compose
from src_pure.device import check_device, spread_over_cores
from src_pure.errors import ConfigError, Parser, between, guarded
from src_pure.lanes import training_keys
from src_pure.runs.blocks import Blocks, blocks_of
from src_pure.runs.mesh import mesh_of
from src_pure.runs.program import functions

TMAZE = ["task=tmaze", "task.corridor_len=20", "num_envs=8"]
CASES = {
    "gru": [*TMAZE, "model=gru", "model.size=64"],
    "agalite": [*TMAZE, "model=agalite_small"],
    "memory chain": ["task=bsuite", "task.env_name=memory_length", "num_envs=8", "model=gru", "model.size=64"],
}
PROJECT = Path(__file__).parents[1]


class Measured(NamedTuple):
    megabytes: float  # temporaries of one call
    num_blocks: int
    call: Callable[[], float]  # trains every lane for one update and returns seconds per environment step


def prepare(experiment: Experiment, blocks: Blocks, programs: "Programs") -> Measured:
    """A training of these lanes in these blocks."""
    numbers = blocks.split(experiment.numbers())
    keys = blocks.split(training_keys(experiment.lanes))
    init, segment = programs.of(blocks, keys[0], numbers[0])
    states = [init(*each) for each in zip(keys, numbers, strict=True)]
    steps = experiment.settings.steps_per_update * len(experiment.lanes)

    def call() -> float:
        nonlocal states
        start = time.perf_counter()
        calls = [segment(state, n, jnp.int32(1)) for state, n in zip(states, numbers, strict=True)]
        blocks.join([metrics for _, metrics in calls], axis=1)
        states = [state for state, _ in calls]
        return (time.perf_counter() - start) / steps

    return Measured(segment.memory_analysis().temp_size_in_bytes / 1e6, len(blocks), call)


class Programs:
    """(init, segment of one update) of a block; each width is compiled once, for any number of lanes."""

    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        self.held: dict[tuple[int, int], Any] = {}

    def of(self, blocks: Blocks, keys: Any, numbers: Any) -> Any:
        shape = blocks.width, blocks.shares
        if shape not in self.held:
            (init, _), (segment, donated), _ = functions(self.experiment, blocks, max_updates=1)
            init = jax.jit(init)
            segment = jax.jit(segment, donate_argnums=donated)
            lowered = segment.lower(jax.eval_shape(init, keys, numbers), numbers, jnp.int32(1))
            self.held[shape] = init, lowered.compile()
        return self.held[shape]


def vmapped(num_lanes: int) -> Measured:
    """`vmap` over a whole training of one update; its initialisation stays outside the clock."""
    state = jax.jit(jax.vmap(vmapped_train.begin))(jax.random.split(jax.random.key(0), num_lanes))
    train = jax.vmap(partial(vmapped_train.train, num_updates=1))
    program = jax.jit(train, donate_argnums=0).lower(state).compile()
    steps = vmapped_train.NUM_ENVS * vmapped_train.NUM_STEPS * num_lanes

    def call() -> float:
        nonlocal state
        begun = time.perf_counter()
        state, _ = jax.block_until_ready(program(state))
        return (time.perf_counter() - begun) / steps

    memory: Any = program.memory_analysis()  # jax does not type its fields
    return Measured(memory.temp_size_in_bytes / 1e6, 1, call)


def curve(case: str, lanes: Sequence[int], times: int, most: int) -> None:
    """Prints the speed for each number of lanes; the baselines are left out above `most` lanes."""
    columns = f"{'blocks':>14}{'steps/s':>10}{'MB':>8}{'one block':>12}{'MB':>8}{'vmap of all':>13}{'MB':>8}"
    print(f"{case}: {'lanes':>6}{columns}")
    programs = Programs(build(compose(CASES[case])))
    best = 0.0
    for number in lanes:
        experiment = build(compose([*CASES[case], f"num_seeds={number}"]))
        blocks = blocks_of(experiment)
        found = {"blocks": prepare(experiment, blocks, programs)}
        if number <= most:
            found["one"] = prepare(experiment, Blocks(number, number, mesh_of(1)), programs)
            if case == "gru":
                found["vmap"] = vmapped(number)
        seconds = medians({name: each.call for name, each in found.items()}, times)
        speed = {name: 1 / x for name, x in seconds.items()}
        best = max(best, *(x for name, x in speed.items() if name != "vmap"))
        row = f"{'':{len(case) + 2}}{number:6}{f'{len(blocks)} x {blocks.size}':>14}"
        for (name, each), width in zip(found.items(), (10, 12, 13), strict=False):
            row += f"{speed[name]:{width},.0f}{each.megabytes:8.1f}"
        print(f"{row}   {speed['blocks'] / best:.0%} of the best", flush=True)


def seconds_of(options: Sequence[str], folder: str, cache_folder: str) -> float:
    """Seconds that one command takes, from its start to its end."""
    start = time.perf_counter()
    command = [sys.executable, str(PROJECT / "trainer_pure.py"), *CASES["gru"], *options, f"run_dir={folder}"]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache_folder}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, cwd=PROJECT)
    return time.perf_counter() - start


def bill(lanes: int, steps: int, processes: int) -> None:
    """Prints what one command of many runs costs, next to as many commands of one run, cold and warm."""
    with tempfile.TemporaryDirectory() as parent:
        size = f"total_steps={steps}"
        spent: dict[str, float] = {}
        for kind in ("cold", "warm"):  # the second use of a folder finds its programs
            spent[f"{kind}, together"] = seconds_of([size, f"num_seeds={lanes}"], f"{parent}/{kind}", f"{parent}/many")
        alone = []
        for i in range(1 + processes):
            alone.append(seconds_of([size, f"seed={i}"], f"{parent}/alone{i}", f"{parent}/single"))
        spent["cold, one by one"], spent["warm, one by one"] = lanes * alone[0], lanes * sum(alone[1:]) / processes
    print(f"{lanes} runs of {steps:,} steps; one by one: {processes} warm commands and one cold one, scaled")
    for kind in ("cold", "warm"):
        together, apart = spent[f"{kind}, together"], spent[f"{kind}, one by one"]
        print(f"{kind}: together {together:,.0f} s, one by one {apart:,.0f} s: {apart / together:.1f} times as fast")


def numbers(text: str) -> list[int]:
    """The numbers of lanes in a list with commas."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise ConfigError(f"--lanes must be numbers from 1 on, as in 1,16,64, got {text!r}")
    return found


@guarded
def main(command_line: Sequence[str] | None = None) -> int:
    """0 once everything is measured."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--lanes", default="", help="numbers of lanes (1,4,16,64,256); with --bill a single one (256)")
    parser.add_argument("--calls", type=between(int, 1, 10_000), default=3, help="timed calls of one update each (3)")
    parser.add_argument("--case", choices=CASES, default="gru")
    parser.add_argument("--most", type=between(int, 0, 1_000_000), default=256, help="lanes of the baselines (256)")
    parser.add_argument("--bill", action="store_true", help="whole commands instead of updates")
    parser.add_argument("--steps", type=between(int, 1024, 10**9), default=51_200, help="of each run, with --bill")
    parser.add_argument("--processes", type=between(int, 1, 1000), default=5, help="warm commands, with --bill (5)")
    options = parser.parse_args(command_line)
    spread_over_cores()
    check_device()
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}, PPO, 8 environments, 128 steps, 4 epochs")
    if options.bill:
        bill(numbers(options.lanes or "256")[0], options.steps, options.processes)
    else:
        curve(options.case, numbers(options.lanes or "1,4,16,64,256"), options.calls, options.most)
    return 0


if __name__ == "__main__":
    imported()
    sys.exit(main())
