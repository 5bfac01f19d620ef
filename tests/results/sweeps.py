"""Sweep folders as the trainer writes them, made up: tables are written directly, nothing is trained."""

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.config.files import to_yaml
from src_pure.experiment import LANES
from src_pure.lanes import Lane
from src_pure.results.reading import RUN_COLUMNS, read_runs
from src_pure.runs.identity import new_identity
from src_pure.runs.rundir import RunDir
from tests.runs.frames import new_run
from tests.test_command_line import TINY

NUM_UPDATES, STEPS = 10, 64  # as in TINY
Values = dict[str, Any]


def grid(**axes: Sequence[Any]) -> list[Values]:
    """Every combination of values; `__` in a name stands for a dot."""
    names = [name.replace("__", ".") for name in axes]
    return [dict(zip(names, values, strict=True)) for values in product(*axes.values())]


def make_sweep(
    folder: Path,
    points: Sequence[Values],
    score: Callable[[Values, int], float],
    seeds: Sequence[int] = (0, 1, 2),
    per_batch: int = 10_000,
    failed: Sequence[int] = (),
    states: dict[int, str] | None = None,
    options: Sequence[str] = (),
    num_updates: int = NUM_UPDATES,
) -> Path:
    """A sweep folder; runs are numbered point by point. score(values, seed): of the final evaluation.

    states: the state of each batch that is not finished, by number.
    """
    states = states or {}
    base = build(compose([*TINY, f"total_steps={num_updates * STEPS}", *options])).config
    (folder / "batches").mkdir(parents=True)
    (folder / "sweep.yaml").write_text(to_yaml(base))
    runs = []
    for point, values in enumerate(points):
        for seed in seeds:
            runs.append({"run": len(runs), "seed": seed, "point": point, "program": 0} | {"values": values})
    for run in runs:
        number = run["run"] // per_batch
        run["batch"] = f"{number:03}"
        state = states.get(number, "finished")
        run["state"] = "failed" if state == "finished" and run["run"] in failed else state
    for batch in sorted({run["batch"] for run in runs}):
        members = [run for run in runs if run["batch"] == batch]
        write_batch(folder / "batches" / batch, base, members, score, num_updates)
    columns = ["run", "seed", "point", "program", "batch", "state"]
    table = pd.DataFrame([{name: run[name] for name in columns} | run["values"] for run in runs])
    table.to_parquet(folder / "runs.parquet")
    return folder


def write_batch(path: Path, base: Values, runs: Sequence[Values], score: Callable, num_updates: int) -> None:
    """The run folder of a batch."""
    config = base | {LANES: [{"run": run["run"], "seed": run["seed"]} | run["values"] for run in runs]}
    write_rows(new_run(path, to_yaml(config), new_identity(config)), runs, score, num_updates)


def fill_sweep(folder: Path, score: Callable[[Values, int], float]) -> None:
    """Writes what every run of a sweep that has been begun would leave at its end."""
    runs = read_runs(folder)
    keys = [name for name in runs if name not in RUN_COLUMNS]
    for batch, rows in runs.groupby("batch"):
        members = [
            {"run": row["run"], "seed": row["seed"], "state": "finished", "values": {key: row[key] for key in keys}}
            for row in rows.to_dict("records")
        ]
        with RunDir.open(folder / "batches" / str(batch)) as run_dir:
            write_rows(run_dir, members, score, NUM_UPDATES)


def write_rows(run_dir: RunDir, runs: Sequence[Values], score: Callable, num_updates: int) -> None:
    """The tables and the summary of a batch: waiting without rows, stopped with half of them, finished with all."""
    state = {run["state"] for run in runs} - {"failed"}
    if "waiting" in state:
        return
    updates = num_updates if "stopped" not in state else num_updates // 2
    run_dir.append_metrics(metrics_of(runs, score, updates, num_updates))
    if "stopped" in state:
        return
    run_dir.append_evaluation(evaluation_of(runs, score, num_updates))
    failed = {Lane(run["run"], run["seed"], run["values"]).label: 3 for run in runs if run["state"] == "failed"}
    run_dir.write_summary({"env_steps": num_updates * STEPS, "runs": len(runs), "failed": failed})


def metrics_of(runs: Sequence[Values], score: Callable, updates: int, num_updates: int) -> pd.DataFrame:
    """Curves that rise to the final score; a failed run stops after three updates."""
    rows = []
    rng = np.random.default_rng(0)
    for update in range(1, updates + 1):
        for run in runs:
            if run["state"] == "failed" and update > 3:
                continue
            value = score(run["values"], run["seed"]) * min(1, 1.5 * update / num_updates) + 0.02 * rng.normal()
            rows.append(row(run, update) | {"episodes": 10, "episode_return": 2 * value, "success_rate": value})
    return pd.DataFrame(rows)


def evaluation_of(runs: Sequence[Values], score: Callable, update: int) -> pd.DataFrame:
    """The final evaluation in both modes, without failed runs."""
    rows = []
    for mode in ("greedy", "sampled"):
        for run in runs:
            if run["state"] == "failed":
                continue
            value = score(run["values"], run["seed"]) + (0.5 if mode == "greedy" else 0)
            rows.append(row(run, update) | {"mode": mode, "episodes": 8, "unfinished": 0, "episode_return": 2 * value}
                        | {"episode_length": 5.0, "success_rate": value})  # fmt: skip
    return pd.DataFrame(rows)


def row(run: Values, update: int) -> Values:
    return {"run": run["run"], "seed": run["seed"], "update": update, "env_steps": update * STEPS}
