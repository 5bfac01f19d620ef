"""Speed of training on T-Maze, published sizes: python scripts/bench_train.py [--calls N] [--only NAME]

Reports compile time, environment steps per second (median of several calls after a warm-up) and the temporaries of one
update (memory_analysis). The cases take turns. The baseline is the same AGaLiTe with a plain associative scan, in the
same process.
"""

if __name__ == "__main__":
    from src_pure.interrupt import imported  # first: from here on Ctrl-C prints one line instead of a traceback

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax

from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.device import check_device
from src_pure.errors import Parser, between, guarded
from src_pure.lanes import training_keys
from src_pure.train import init_runs, make_train, run_updates

AGALITE = ["model=agalite", "task.corridor_len=160", "num_envs=64", "num_steps=128", "algo.num_minibatches=8"]
GRU = ["model=gru", "model.size=128", "task.corridor_len=160"]
CASES = {
    "agalite": AGALITE,
    "agalite, associative scan": [*AGALITE, "model.implementation=associative_scan"],
    "gru": [*GRU, "num_envs=64", "algo.num_minibatches=8"],
    "gru, 8 environments": [*GRU, "num_envs=8"],
    "gru, 8 environments x 64 seeds": [*GRU, "num_envs=8", "num_seeds=64"],
}
RATIOS = (
    ("agalite", "agalite, associative scan"),
    ("gru, 8 environments x 64 seeds", "gru, 8 environments"),
)


def prepare(overrides: list[str]) -> tuple[float, float, Callable[[], float]]:
    """(compile seconds, MB of temporaries, a function that trains one update and returns seconds per env step)."""
    experiment = build(compose(overrides))
    settings = experiment.settings
    init, update = make_train(experiment.env, experiment.policy)
    algo = experiment.numbers().algo
    state = jax.jit(partial(init_runs, init))(training_keys(experiment.lanes), algo)
    segment = jax.jit(partial(run_updates, update, max_updates=1), donate_argnums=0)
    start = time.perf_counter()
    program = segment.lower(state, algo, num_updates=1).compile()
    compile_seconds = time.perf_counter() - start
    memory: Any = program.memory_analysis()  # jax does not type its fields

    def call() -> float:
        nonlocal state
        start = time.perf_counter()
        state, _ = jax.block_until_ready(program(state, algo, num_updates=1))
        return (time.perf_counter() - start) / (settings.steps_per_update * len(experiment.lanes))

    return compile_seconds, memory.temp_size_in_bytes / 1e6, call


def medians(calls: dict[str, Callable[[], float]], times: int) -> dict[str, float]:
    """The median result of each function over several calls after a warm-up.

    The functions take turns, so that other load on the machine affects all of them alike.
    """
    results = {name: [] for name in calls}
    for _ in range(1 + times):
        for name, call in calls.items():
            results[name].append(call())
    return {name: statistics.median(values[1:]) for name, values in results.items()}


@guarded
def main(command_line: Sequence[str] | None = None) -> int:
    """0 once everything is measured."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=between(int, 1, 10_000), default=5, help="timed calls of one update each (5)")
    parser.add_argument("--only", choices=CASES, help="one case alone")
    options = parser.parse_args(command_line)
    check_device()
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}, T-Maze v2, PPO, 128 steps, 4 epochs")
    print(f"{'':32}{'compile s':>10}{'steps/s':>10}{'temporaries MB':>16}")
    prepared = {name: prepare(CASES[name]) for name in ([options.only] if options.only else CASES)}
    seconds = medians({name: call for name, (_, _, call) in prepared.items()}, options.calls)
    speed = {name: 1.0 / seconds[name] for name in prepared}
    for name, (compile_seconds, megabytes, _) in prepared.items():
        print(f"{name:32}{compile_seconds:10.1f}{speed[name]:10,.0f}{megabytes:16.1f}")
    for fast, slow in RATIOS:
        if fast in speed and slow in speed:
            print(f"{fast} / {slow}: {speed[fast] / speed[slow]:.2f}")
    return 0


if __name__ == "__main__":
    imported()
    sys.exit(main())
