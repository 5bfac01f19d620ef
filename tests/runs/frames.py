"""Invented metrics in the form that training gives them."""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from src_pure.runs import parquet
from src_pure.runs.columns import to_arrow
from src_pure.runs.folder import Folder
from src_pure.runs.identity import Identity, read_identity
from src_pure.runs.rundir import RunDir, make_free
from src_pure.runs.tables import Part, Table

IDENTITY = Identity(run_id="0" * 32, config_sha256="1" * 64)  # of a run that tests make


def new_run(path: str | Path, config_yaml: str, identity: Identity) -> RunDir:
    """A new run in a folder that is created, or exists and is empty."""
    made = make_free(Path(path))
    return RunDir.begin(Folder(Path(path)), made, config_yaml, identity)


def write_table(path: Path, frame: pd.DataFrame) -> None:
    """Writes other rows for a table of a run folder, one part for each update."""
    shutil.rmtree(path, ignore_errors=True)
    for update, rows in frame.groupby("update"):
        write_part(path, to_arrow(rows), update, update, read_identity(path.parent))


def write_part(path: Path, rows: pa.Table, first: int, last: int, identity: Identity | None) -> Path:
    """Writes the file of a part with any rows."""
    return write_content(path, parquet.encode(rows, identity), first, last)


def write_content(path: Path, content: bytes, first: int, last: int) -> Path:
    """Writes a file with the name of a part and the right digest, whatever its content."""
    path.mkdir(exist_ok=True)
    part = path / Part(first, last, hashlib.sha256(content).hexdigest()).name
    part.write_bytes(content)
    return part


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


def three_parts(path: Path) -> Table:
    """A table of updates 1 to 9 of IDENTITY, three in each part."""
    table = Table(path, path, IDENTITY)
    for first in (1, 4, 7):
        table.append(metrics_frame(range(first, first + 3)))
    return table


def parts(path: Path) -> list[Path]:
    """The files of a table in order."""
    return sorted(path.iterdir())
