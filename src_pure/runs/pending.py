"""Updates that wait in a checkpoint for the end of their row of metrics."""

from pathlib import Path

import pandas as pd

from src_pure.errors import DamagedError
from src_pure.runs import parquet
from src_pure.runs.columns import IN_METRICS, to_arrow
from src_pure.runs.folder import is_there, read_file
from src_pure.runs.identity import Identity

PENDING = "pending.parquet"


def encode(updates: pd.DataFrame | None, identity: Identity) -> bytes:
    """The content of the file; empty if no updates wait, and then there is no file."""
    return b"" if updates is None else parquet.encode(to_arrow(updates), identity)


def read_pending(checkpoint: Path, update: int, identity: Identity) -> pd.DataFrame | None:
    """The updates that wait in the checkpoint of an update, None if there are none.

    Raises DamagedError or ForeignError if the run cannot have written them.
    """
    path = checkpoint / PENDING
    if not is_there(path):
        return None
    content = parquet.open_content(read_file(path), path)
    identity.check(content.identity, path)
    missing = set(IN_METRICS) - set(content.columns)
    if missing or content.updates is None or not 1 <= content.updates[0] <= content.updates[1] == update:
        raise DamagedError(f"{path} cannot be read: it does not hold updates up to {update}")
    return content.rows(content.columns).to_pandas()
