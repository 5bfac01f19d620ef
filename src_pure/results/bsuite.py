"""bsuite's score (Osband et al., arXiv:1908.03568) of a sweep over its memory tasks, from the sweep's run folders."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from src_pure.build import build
from src_pure.config.targets import instantiate
from src_pure.envs.memory_chain import SWEEPS
from src_pure.errors import ConfigError
from src_pure.runs.columns import floats
from src_pure.runs.resume import came_to_its_end, read_config
from src_pure.runs.rundir import RunDir, read_metrics

NUM_EPISODES = 10_000  # bsuite's budget for learning a setting
SOLVED_BELOW = 0.75  # fraction of the regret of guessing
SETTING = ["task", "memory_length", "num_bits"]


def read_sweep(paths: Sequence[Path], trust: Sequence[str] = ()) -> pd.DataFrame:
    """One row per setting, in order: number of runs, fewest counted episodes of a run, mean regret ratio.

    Folders of the same setting, such as different seeds, share a row. Raises ConfigError or OSError for a folder that
    is not a finished run of a memory task.
    """
    runs = pd.concat([read_runs(path, trust) for path in paths])
    columns = {"runs": ("episodes", "size"), "episodes": ("episodes", "min"), "regret": ("regret", "mean")}
    return runs.groupby(SETTING).agg(**columns).reset_index()


def read_runs(path: Path, trust: Sequence[str] = ()) -> pd.DataFrame:
    """One row per run of a folder: its setting, the number of counted episodes and their regret ratio."""
    if not path.is_dir():
        raise FileNotFoundError(f"no run folder {path}")
    config = read_config(path)
    experiment = build(config, trust)
    task = config["task"].get("env_name", experiment.name)
    if task not in SWEEPS:
        raise ConfigError(f"{path} must be a run of {', '.join(SWEEPS)}, got {task}")
    with RunDir.open(path) as run_dir:
        if not came_to_its_end(run_dir.summary(), experiment):
            raise ConfigError(f"the training in {path} is unfinished; repeat its command with run_dir={path} first")
    env = instantiate(config["task"], "task", trust)
    rows = []
    for run, metrics in read_metrics(path).groupby("run"):
        episodes, regret = regret_ratio(floats(metrics["episodes"]), floats(metrics["success_rate"]))
        if episodes == 0:
            raise ConfigError(f"no episode ended in run {run} of {path}; raise its total_steps")
        rows.append((task, env.memory_length, env.num_bits, episodes, regret))
    return pd.DataFrame(rows, columns=[*SETTING, "episodes", "regret"])


def regret_ratio(episodes: np.ndarray, success_rate: np.ndarray) -> tuple[int, float]:
    """(number of counted episodes, regret relative to guessing) of a run's updates [U], in order.

    The ratio is (n - successes) / (n / 2) over the first n = 10,000 episodes, or over all if there are fewer, as in
    bsuite for partial runs. The update that reaches n counts in part. Rates over no episodes (NaN) are ignored.
    """
    before = np.cumsum(episodes) - episodes
    counted = np.clip(NUM_EPISODES - before, 0, episodes)  # [U]
    num_episodes = counted.sum()
    if num_episodes == 0:
        return 0, float("nan")
    successes = (counted * np.where(counted > 0, success_rate, 0.0)).sum()
    return int(num_episodes), float((num_episodes - successes) / (0.5 * num_episodes))


def bsuite_score(regret_ratios: Sequence[float]) -> float:
    """The fraction of settings with a regret ratio below 0.75: those learned well before the episodes ran out."""
    return float(np.mean(np.asarray(regret_ratios) < SOLVED_BELOW))
