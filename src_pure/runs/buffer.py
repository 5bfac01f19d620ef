"""Rows of metrics on their way to the table: updates become rows, and rows wait until writing them is worth a file."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from src_pure.runs.rows import averaged, row_ends


class RowBuffer:
    """Collects rows of metrics and writes them together, so that a day of training leaves about two thousand parts.

    Rows wait for `seconds`, or for 1 % of the time since training began if that is longer. As a context manager it
    writes the remaining rows however the training ends.

    append(rows, averaged_from): writes rows, see Table.append; updates_per_row: updates that a row averages; end: the
    last update of the training, which ends a row as well; pending: updates of a row that had not ended at a checkpoint.
    """

    def __init__(
        self,
        append: Callable[[pd.DataFrame, int | None], None],
        seconds: float | None,
        updates_per_row: int = 1,
        end: int = 0,
        pending: pd.DataFrame | None = None,
    ):
        self.append = append
        self.seconds = seconds or 0.0
        self.updates_per_row = updates_per_row
        self.end = end
        self.begun = time.monotonic()
        self.written: float | None = None  # time of the last write
        self.waiting: list[pd.DataFrame] = []  # complete rows
        self.first = 0  # the first update in them
        self.pending = pending  # updates of the row that has not ended; None if there are none

    def __enter__(self) -> "RowBuffer":
        return self

    def __exit__(self, *error: Any) -> None:
        self.write()

    def add(self, updates: pd.DataFrame) -> None:
        """Takes the updates of a segment and writes all complete rows when they are due; the first are due at once."""
        if self.pending is not None:
            updates, self.pending = pd.concat([self.pending, updates], ignore_index=True), None
        if self.updates_per_row == 1:
            self._wait(updates, updates)
        else:
            ends = row_ends(updates["update"].to_numpy(), self.updates_per_row, self.end)
            complete = int(np.searchsorted(ends, updates["update"].max(), side="right"))
            if complete:
                self._wait(updates[:complete], averaged(updates[:complete], ends[:complete]))
            if complete < len(updates):
                self.pending = updates[complete:].reset_index(drop=True)  # a copy, which lets go of the rest
        now = time.monotonic()
        if self.written is None or now - self.written >= max(self.seconds, (now - self.begun) / 100):
            self.write()

    def finish(self) -> None:
        """Writes all rows, also one that has not ended, because no update follows."""
        if self.pending is not None:
            updates, self.pending = self.pending, None
            self._wait(updates, averaged(updates, np.zeros(len(updates))))
        self.write()

    def write(self) -> None:
        """Writes all complete rows."""
        if self.waiting:
            rows, self.waiting = pd.concat(self.waiting, ignore_index=True), []
            self.append(rows, None if self.updates_per_row == 1 else self.first)
            self.written = time.monotonic()

    def _wait(self, updates: pd.DataFrame, rows: pd.DataFrame) -> None:
        """Takes complete rows and the updates that they cover."""
        if not self.waiting:
            self.first = int(updates["update"].iloc[0])
        self.waiting.append(rows)
