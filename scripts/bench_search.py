"""Successive halving against the grid that it covers: python scripts/bench_search.py [--repeats 10] [--out FOLDER]

The grid trains every point to its end; the search tries the same points. In each repeat both see the same few seeds and
choose a point by them. What a choice is worth is its mean score in the grid over all other seeds: results of few seeds
are partly luck, and the best of many points is the luckiest. Printed for each repeat: the worth of both choices, and
which part of the grid's environment steps the search took; then the medians.
"""

if __name__ == "__main__":
    from src_pure.interrupt import imported  # first: from here on Ctrl-C prints one line instead of a traceback

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

import trainer_pure
from src_pure import read_run
from src_pure.errors import Parser, between, guarded
from src_pure.sweeps.folder import read_runs

TASK = ["model=gru", "model.size=32", "task.corridor_len=4", "num_envs=8", "num_steps=32", "algo.num_minibatches=2",
        "evaluation.num_episodes=128", "total_steps=31104", "log_seconds=30"]  # fmt: skip
AXES = {
    "algo.learning_rate": [3e-4, 1e-3, 3e-3, 1e-2, 3e-2],
    "algo.ent_coef": [0.01, 0.1],
    "algo.gamma": [0.9, 0.99],
}
POINTS = int(np.prod([len(values) for values in AXES.values()]))
METRIC = "success_rate"


def train(options: Sequence[str], folder: Path) -> Path:
    """The folder, after the training of a command; one that is there already is continued."""
    axes = [f"sweep.{key}={values}" for key, values in AXES.items()]
    code = trainer_pure.main([*TASK, *axes, *options, f"run_dir={folder}"])
    if code not in (0, 3):  # 3: runs of the grid failed, which counts against them
        sys.exit(code)
    return folder


def scores_of_grid(folder: Path) -> pd.DataFrame:
    """The final score of each point, [points, seeds]; 0 for a run that failed."""
    rows = read_run(folder, table="evaluation")
    rows = rows[rows["mode"] == "sampled"]
    return rows.pivot_table(index=list(AXES), columns="seed", values=METRIC, dropna=False).fillna(0.0)


class Compared(NamedTuple):
    by_grid: float  # worth of the point that the grid chooses
    by_search: float
    part: float  # of the grid's environment steps that the search took

    def __str__(self) -> str:
        return (
            f"the grid's choice {self.by_grid:.3f}, the search's {self.by_search:.3f} with {self.part:.2f} of its steps"
        )


def compare(grid: pd.DataFrame, folder: Path, seeds: Sequence[int]) -> Compared:
    """What the choices by these seeds are worth; folder: of the search that saw them."""
    runs = read_runs(folder)
    finished = runs[runs["state"] == "finished"]
    best = finished.loc[finished["value"].idxmax()]
    worth = grid.drop(columns=list(seeds)).mean(axis=1)
    steps = runs["updates"].sum() / (len(grid) * len(seeds) * runs["updates"].max())
    chosen = grid[list(seeds)].mean(axis=1).idxmax()
    return Compared(float(worth.loc[chosen]), float(worth.loc[tuple(best[key] for key in AXES)]), float(steps))


@guarded
def main(command_line: Sequence[str] | None = None) -> int:
    """The exit code, after everything is trained and printed."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=between(int, 3, 1000), default=10)
    parser.add_argument("--seeds", type=between(int, 1, 100), default=3, help="that a choice is based on")
    parser.add_argument("--lanes", type=between(int, 1, POINTS), default=8)
    parser.add_argument("--out", type=Path, help="keeps all trainings there, to be continued")
    options = parser.parse_args(command_line)
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary)
        grid = scores_of_grid(train([f"num_seeds={options.repeats + options.seeds - 1}"], out / "grid"))
        print(f"best of the grid: {METRIC} {grid.mean(axis=1).max():.3f} over {grid.shape[1]} seeds", flush=True)
        search = ["sweep.mode=search", f"sweep.trials={len(grid)}", f"sweep.lanes={options.lanes}"]
        found = []
        for seed in range(options.repeats):
            own = [f"seed={seed}", f"num_seeds={options.seeds}", f"sweep.random_seed={seed}"]
            folder = train([*search, *own], out / f"search{seed}")
            found.append(compare(grid, folder, range(seed, seed + options.seeds)))
            print(f"repeat {seed}: {found[-1]}", flush=True)
    medians = Compared(*np.median(found, axis=0))
    print(f"medians of {options.repeats}: {medians}; search - grid {np.median([x[1] - x[0] for x in found]):+.3f}")
    return 0


if __name__ == "__main__":
    imported(exception=False)
    trainer_pure.keep_compiled_programs()
    sys.exit(main())
