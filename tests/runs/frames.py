"""Metrics as training hands them over, made up."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from src_pure.runs import parquet
from src_pure.runs.folder import Folder
from src_pure.runs.identity import Identity, read_identity
from src_pure.runs.rundir import RunDir, make_free, to_arrow

IDENTITY = Identity(run_id="0" * 32, config_sha256="1" * 64)  # of a run that tests make


def new_run(path: str | Path, config_yaml: str, identity: Identity) -> RunDir:
    """A new run in a folder that is made, or there and empty."""
    made = make_free(Path(path))
    return RunDir.begin(Folder(Path(path)), made, config_yaml, identity)


def write_table(path: Path, frame: pd.DataFrame) -> None:
    """Other rows for a table of a run folder, as the run itself would write them."""
    with path.open("wb") as file:
        parquet.write(to_arrow(frame), file, read_identity(path.parent))


def metrics_frame(updates: Sequence[int], num_runs: int = 2, seed: int = 0) -> pd.DataFrame:
    """One row per update and run, 1000 environment steps per update; rows with update % 3 == 1 have no episode."""
    rng = np.random.default_rng(seed)
    rows = []
    for update in updates:
        for run in range(num_runs):
            episodes = 0 if update % 3 == 1 else int(rng.integers(1, 20))
            rows.append(
                {
                    "run": run,
                    "seed": 10 + run,
                    "update": update,
                    "env_steps": 1000 * update,
                    "episodes": episodes,
                    "episode_return": rng.normal() if episodes else np.nan,
                    "episode_length": rng.uniform(5, 9) if episodes else np.nan,
                    "success_rate": rng.uniform() if episodes else np.nan,
                    "policy_loss": rng.normal(),
                }
            )
    return pd.DataFrame(rows)
