"""The summary of a training: its final scores, its speed, and what produced them."""

import os
import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import pandas as pd

from src_pure.build import Experiment
from src_pure.models.policy import num_parameters
from src_pure.runs.health import failures
from src_pure.runs.program import Program
from src_pure.runs.rundir import RunDir
from src_pure.runs.schedule import Progress
from src_pure.runs.scores import final_scores

PROJECT = Path(__file__).parents[2]


def summarise(experiment: Experiment, run_dir: RunDir, program: Program, progress: Progress) -> dict[str, Any]:
    """The content of summary.json; the scores are empty if no run reached the end.

    `final` holds the scores of the sampled policy, `final_greedy` those of the greedy policy.
    """
    settings, num_runs = experiment.settings, len(experiment.lanes)
    evaluation = run_dir.evaluation.frame()
    evaluation = evaluation[evaluation["update"] == settings.num_updates]
    scores = final_scores(evaluation)
    env_steps = progress.done * settings.steps_per_update
    training = run_dir.metrics.frame(["episodes", "episode_shared_world"])
    shared = training.get("episode_shared_world", pd.Series(dtype=float)) * training["episodes"]
    failed = failures(experiment.lanes, progress.completed, progress.done)
    return {
        "name": experiment.name,
        "parameters": num_parameters(program.like.learner.params) // num_runs,
        "steps_per_second": env_steps * num_runs / progress.seconds,
        "compile_seconds": program.compile_seconds,
        "compilation_cache": program.cache.as_dict(),
        "lanes_per_block": program.blocks.width,
        "env_steps": env_steps,
        "wall_seconds": progress.wall_seconds,
        "runs": num_runs,
        "failed": {failure.lane.label: failure.update for failure in failed},
        "final": scores.get("sampled", {}),
        "final_greedy": scores.get("greedy", {}),
        "episodes_in_shared_worlds": round(shared.sum()),
        "continued_under_other_settings": progress.continued,
        "process": progress.process,
        "versions": versions(),
        "commit": git_commit(),
    }


def versions() -> dict[str, Any]:
    """The packages and the machine that produced the numbers."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy", "src-pure")
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "platform": jax.default_backend(),
        "device_kind": jax.devices()[0].device_kind,
        "device_count": jax.device_count(),
        "cpu_count": os.cpu_count(),
    }


def git_commit(root: Path = PROJECT) -> dict[str, Any] | None:
    """The commit checked out at `root` and whether files differ from it; None outside a repository."""
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():  # a copy of the project may lie inside another repository
        return None
    head = subprocess.run([git, "-C", root, "rev-parse", "--verify", "HEAD"], capture_output=True, text=True)
    status = subprocess.run([git, "-C", root, "status", "--porcelain"], capture_output=True, text=True)
    if head.returncode or status.returncode:
        return None
    return {"hash": head.stdout.strip(), "dirty": bool(status.stdout.strip())}
