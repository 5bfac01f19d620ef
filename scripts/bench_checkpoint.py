"""What checkpoints cost a training: python scripts/bench_checkpoint.py [--repeats N] [--seconds S] [--only NAME]

Two kinds of stretches alternate: plain training, and training that begins with a checkpoint and ends when it is on
disk. The extra time of the second is the cost of one checkpoint: copying the state while training waits (blocked), and
writing it while training continues more slowly. Both run the same compiled program in the same process.
"""

if __name__ == "__main__":
    from src_pure.interrupt import imported  # first: from here on Ctrl-C prints one line instead of a traceback

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.device import check_device
from src_pure.errors import Parser, between, guarded
from src_pure.runs.arrays import named_arrays
from src_pure.runs.checkpoint import Checkpoints
from src_pure.runs.identity import new_identity
from src_pure.runs.program import compile_program

GRU = ["model=gru", "model.size=128", "task.corridor_len=160", "num_envs=8"]
CASES = {"gru": GRU, "gru x 64 seeds": [*GRU, "num_seeds=64"]}
INTERVAL = 60  # seconds of training between two checkpoints
NO_MATTER: dict[str, Any] = {
    "score": None,
    "seconds": 0.0,
    "wall_seconds": 0.0,
    "config": {},
    "process": {},
    "continued": [],
    "metrics_sha256": "",
    "lanes_per_block": 1,
}


class Bench:
    """An endless training with checkpoints in a temporary folder."""

    def __init__(self, overrides: list[str], folder: Path):
        self.experiment = build(compose(overrides))
        self.program = compile_program(self.experiment)
        self.state = self.program.init()
        self.checkpoints = Checkpoints(folder, 2, new_identity({}))
        self.saved = 0

    def train(self, num_calls: int) -> None:
        """Calls the program for one update num_calls times and waits after each, as the training loop does."""
        for _ in range(num_calls):
            self.state, _ = self.program.segment(self.state, 1)  # waits for the metrics

    def save(self) -> float:
        """Seconds that training waits until a checkpoint is handed over."""
        start = time.perf_counter()
        self.saved += 1
        self.checkpoints.save(self.program.gather(self.state), self.saved, **NO_MATTER)
        return time.perf_counter() - start

    def stretch(self, num_calls: int, checkpoint: bool) -> tuple[float, float]:
        """(seconds that num_calls updates took, seconds that training waited for a checkpoint)."""
        start = time.perf_counter()
        blocked = self.save() if checkpoint else 0.0
        self.train(num_calls)
        self.checkpoints.wait()
        return time.perf_counter() - start, blocked

    def calls_in(self, seconds: float) -> int:
        """The number of updates that take about this many seconds, measured after a warm-up."""
        self.train(1)
        start = time.perf_counter()
        self.train(2)
        return max(1, round(2 * seconds / (time.perf_counter() - start)))


def measure(bench: Bench, repeats: int, seconds: float) -> dict[str, float]:
    """Size, speed and costs: medians over pairs of stretches."""
    bench.save()
    bench.checkpoints.wait()  # keeps one-time costs of the first checkpoint out of the measurement
    num_calls = bench.calls_in(seconds)
    plain, longer, blocked = [], [], []
    for _ in range(repeats):
        plain.append(bench.stretch(num_calls, checkpoint=False)[0])
        with_checkpoint, waited = bench.stretch(num_calls, checkpoint=True)
        longer.append(with_checkpoint - plain[-1])
        blocked.append(waited)
    experiment = bench.experiment
    steps = experiment.settings.steps_per_update * len(experiment.lanes) * num_calls
    return {
        "MB": sum(x.nbytes for x in named_arrays(bench.program.gather(bench.state)).values()) / 1e6,
        "steps/s": steps / statistics.median(plain),
        "blocked ms": 1e3 * statistics.median(blocked),
        "cost ms": 1e3 * statistics.median(longer),
        "spread ms": 1e3 * (max(longer) - min(longer)),
        "overhead %": 100 * statistics.median(longer) / INTERVAL,
    }


@guarded
def main(command_line: Sequence[str] | None = None) -> int:
    """0 once everything is measured."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=between(int, 1, 10_000), default=10, help="pairs of stretches (10)")
    parser.add_argument(
        "--seconds", type=between(float, 0.01, 600), default=3.0, help="of each stretch, longer than a write (3)"
    )
    parser.add_argument("--only", choices=CASES, help="one case alone")
    options = parser.parse_args(command_line)
    check_device()
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}; overhead at one checkpoint every {INTERVAL} s")
    for name in [options.only] if options.only else CASES:
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(CASES[name], Path(folder))
            numbers = measure(bench, options.repeats, options.seconds)
            bench.checkpoints.close()
        print(f"{name:16}" + "".join(f"  {label} {value:,.2f}" for label, value in numbers.items()), flush=True)
    return 0


if __name__ == "__main__":
    imported()
    sys.exit(main())
