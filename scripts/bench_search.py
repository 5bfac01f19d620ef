"""Successive halving against the grid that it covers: python scripts/bench_search.py [--repeats 10] [--out FOLDER]

Every repeat is another seed. The grid trains every point to its end; the search draws from the same points, with as
many trials as the grid has. Printed for each repeat: how far the point that the search found lies below the best of the
grid, both by the grid's scores, and which part of the grid's environment steps the search took; then the medians.
"""

if __name__ == "__main__":
    from src_pure.interrupt import imported  # first: from here on Ctrl-C prints one line instead of a traceback

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

import trainer_pure
from src_pure import read_run
from src_pure.errors import Parser, between, guarded
from src_pure.sweeps.folder import read_runs

TASK = ["model=gru", "model.size=32", "task.corridor_len=10", "num_envs=8", "num_steps=32", "algo.num_minibatches=2",
        "evaluation.num_episodes=128", "total_steps=20736", "log_seconds=30"]  # fmt: skip
AXES = {
    "algo.learning_rate": [3e-4, 1e-3, 3e-3, 1e-2, 3e-2],
    "algo.ent_coef": [0.0, 0.01, 0.1],
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


def compare(grid: pd.DataFrame, folder: Path, seed: int) -> tuple[float, float]:
    """(how far the search's best point lies below the best of the grid, its steps as a part of the grid's)."""
    runs = read_runs(folder)
    finished = runs[runs["state"] == "finished"]
    best = finished.loc[finished["value"].idxmax()]
    found = grid.loc[tuple(best[key] for key in AXES), seed]
    longest = runs["updates"].max()
    return float(grid[seed].max() - found), float(runs["updates"].sum() / (len(grid) * longest))


@guarded
def main(command_line: Sequence[str] | None = None) -> int:
    """The exit code, after everything is trained and printed."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=between(int, 1, 1000), default=10)
    parser.add_argument("--lanes", type=between(int, 1, POINTS), default=10)
    parser.add_argument("--out", type=Path, help="keeps all trainings there, to be continued")
    options = parser.parse_args(command_line)
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary)
        grid = scores_of_grid(train([f"num_seeds={options.repeats}"], out / "grid"))
        print(f"best of the grid: {grid.mean(axis=1).idxmax()}, {METRIC} {grid.mean(axis=1).max():.3f}")
        found = []
        search = ["sweep.mode=search", f"sweep.trials={len(grid)}", f"sweep.lanes={options.lanes}"]
        for seed in range(options.repeats):
            folder = train([*search, f"seed={seed}", f"sweep.random_seed={seed}"], out / f"search{seed}")
            found.append(compare(grid, folder, seed))
            print(f"seed {seed}: {found[-1][0]:.3f} below the grid's best, {found[-1][1]:.2f} of its steps", flush=True)
    below, part = np.median(found, axis=0)
    print(f"medians of {options.repeats}: {below:.3f} below the grid's best with {part:.2f} of its steps")
    return 0


if __name__ == "__main__":
    imported(exception=False)
    trainer_pure.keep_compiled_programs()
    sys.exit(main())
