"""Tables that grow by adding parts: files in a folder that are written once and never changed.

    metrics.parquet/  0000000001-0000000256.<SHA-256>.parquet   the rows of updates 1 to 256
                      0000000257-0000000300.<SHA-256>.parquet

A row may be a mean over several updates. Its `update` is the last of them, and a part names the first in its metadata.

The name of a part contains the digest of its bytes, so one rename publishes both at once. `pd.read_parquet(folder)`
reads all parts in order and skips names that begin with a dot: parts that are still being written. The folder appears
together with its first part and disappears together with its last.
"""

import hashlib
import json
import os
import re
import shutil
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from src_pure.device import host_memory
from src_pure.errors import CheckpointError, DamagedError, OddFileError
from src_pure.runs import parquet
from src_pure.runs.atomic import flush, is_partial, partial_path, replacing
from src_pure.runs.columns import IN_EVALUATION, IN_METRICS, to_arrow
from src_pure.runs.folder import is_there, read_file, refuse_odd
from src_pure.runs.identity import Identity

METRICS, EVALUATION = "metrics.parquet", "evaluation.parquet"
PART = re.compile(r"(\d{10})-(\d{10})\.([0-9a-f]{64})\.parquet", re.ASCII)


class Part(NamedTuple):
    """A part by the fields of its file name; its rows cover every update from `first` to `last`."""

    first: int
    last: int
    sha256: str

    @property
    def name(self) -> str:
        return f"{self.first:010}-{self.last:010}.{self.sha256}.parquet"


class Table:
    """A table of a run folder. Only the names of its parts are kept in memory.

    path: for messages; held: for access, inside a folder that is held open; identity: the run that all parts must
    belong to, None for published results, which carry none. A table called METRICS covers every update. Raises
    OddFileError for anything in the folder that is not a part, DamagedError for overlapping parts and, in METRICS, for
    missing updates.
    """

    def __init__(self, path: Path, held: Path, identity: Identity | None):
        self.path = path
        self.held = held
        self.identity = identity
        self.required = IN_METRICS if path.name == METRICS else IN_EVALUATION
        self.columns: list[str] | None = None  # of the parts read or written so far
        self.parts = list_parts(path, held)
        self._refuse_wrong_order()

    def check(self) -> None:
        """Verifies every part, one at a time and without keeping it; raises the errors of `frame`."""
        for part in self.parts:
            self._checked(part)

    @property
    def last(self) -> int:
        """The last update of the table, 0 if it is empty."""
        return self.parts[-1].last if self.parts else 0

    def append(self, frame: pd.DataFrame, averaged_from: int | None = None) -> None:
        """Writes a new part; raises CheckpointError if its columns are not those of the table.

        averaged_from: the first update that the rows cover, if they are means over updates.
        """
        updates, rows = frame["update"], to_arrow(frame)
        last, smallest = int(updates.max()), int(updates.min())
        first = smallest if averaged_from is None else averaged_from
        follows = first == self.last + 1 if self.path.name == METRICS else first > self.last
        complete = updates.nunique() == last - first + 1 if averaged_from is None else first <= smallest
        if not (follows and complete):
            raise ValueError(f"rows after update {self.last} must continue {self.path}, got {first} to {last}")
        if self.columns is not None:
            self._refuse_other_columns(rows.column_names, self.columns)
            rows = rows.select(self.columns)
        content = parquet.encode(rows, self.identity, averaged_from)
        part = Part(first, last, hashlib.sha256(content).hexdigest())
        self._publish(part, content)
        self.parts.append(part)
        self.columns = rows.column_names

    def refuse_rewind(self, update: int) -> None:
        """Raises DamagedError if a part spans an update that training goes back to: the run ended a part there."""
        for part in self.parts:
            if part.first <= update < part.last:
                raise DamagedError(
                    f"{self.path / part.name} has rows from before and after update {update}, where training "
                    "continues; restore the parts that the run wrote or choose another run_dir"
                )

    def rewind(self, update: int) -> None:
        """Deletes the parts after an update; if no part is left, deletes the folder as well.

        Deletes the newest part first, so that the table never has a gap, even if the process is killed.
        """
        self.refuse_rewind(update)
        if self.parts and self.parts[0].first > update:
            aside = partial_path(self.held)
            self.held.rename(aside)
            flush(self.held.parent)
            self.parts, self.columns = [], None
            shutil.rmtree(aside)
        while self.last > update:
            (self.held / self.parts.pop().name).unlink()
            flush(self.held)

    def remove_partials(self) -> None:
        """Deletes half-written parts; nobody is writing them, because the caller holds the folder's lock."""
        for partial in self.held.glob(".*.partial"):
            partial.unlink()

    def has_rows_of(self, update: int) -> bool:
        return self._part_of(update) is not None

    def first_missing(self, wanted: range) -> int | None:
        """The first wanted update without rows; None if there is no such update."""
        return next((update for update in wanted if not self.has_rows_of(update)), None)

    def digest_of(self, update: int) -> str:
        """SHA-256 of the rows that end at an update, which always lie in one part."""
        part = self._part_of(update)
        rows = [] if part is None else self._rows(part).filter(pc.field("update") == update).to_pylist()
        rows.sort(key=lambda row: row["run"])
        return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()

    def frame(self, columns: Sequence[str] = ()) -> pd.DataFrame:
        """All rows, missing values as NaN; columns: the ones to read, of which absent ones are skipped; default all.

        Raises DamagedError if a part is not as it was written, ForeignError if it belongs to another run, OddFileError
        if the table does not fit into half of this machine's memory.
        """
        total, most = sum((self.held / part.name).stat().st_size for part in self._present()), host_memory() // 2
        if total > most:
            raise OddFileError(f"{self.path} must have at most {most:,} bytes, it has {total:,}")
        if not self.parts:
            return pd.DataFrame(columns=list(columns or self.required))
        return pa.concat_tables([self._rows(part, columns) for part in self.parts]).to_pandas()

    def _rows(self, part: Part, columns: Sequence[str] = ()) -> pa.Table:
        content = self._checked(part)
        return content.rows([name for name in content.columns if not columns or name in columns])

    def _checked(self, part: Part) -> parquet.Content:
        """The content of a part; raises DamagedError or ForeignError unless it is as this run wrote it."""
        path, data = self.path / part.name, read_file(self.held / part.name)
        if hashlib.sha256(data).hexdigest() != part.sha256:
            raise DamagedError(f"{path} cannot be read: it is damaged, its bytes are not those that were written")
        content = parquet.open_content(data, path)
        if self.identity is not None:
            self.identity.check(content.identity, path)
        if missing := [name for name in self.required if name not in content.columns]:
            raise DamagedError(f"{path} cannot be read: it has no column {', '.join(missing)}")
        enough = content.averaged or content.num_rows > part.last - part.first
        if content.updates != (part.first, part.last) or not enough:
            raise DamagedError(f"{path} cannot be read: it holds other updates than its name says")
        if self.columns is None:
            self.columns = content.columns
        if content.columns != self.columns:
            raise DamagedError(f"{path} cannot be read: its columns are not those of the other parts")
        return content

    def _present(self) -> list[Part]:
        """The parts; raises DamagedError if one has been deleted since they were listed."""
        for part in self.parts:
            if not is_there(self.held / part.name):
                raise DamagedError(f"{self.path} lacks the rows of updates {part.first} to {part.last}; restore them")
        return self.parts

    def _publish(self, part: Part, content: bytes) -> None:
        """Puts a part into the folder. The first part brings the folder along, so that nobody reads an empty table."""
        refuse_odd(self.held.parent, (), [self.held.name])
        if self.parts or is_there(self.held):
            with replacing(self.held / part.name) as file:
                file.write(content)
            return
        partial = partial_path(self.held)
        try:
            partial.mkdir()
            with replacing(partial / part.name) as file:
                file.write(content)
            partial.rename(self.held)
            flush(self.held.parent)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def _part_of(self, update: int) -> Part | None:
        index = bisect_right(self.parts, update, key=lambda part: part.first) - 1
        return self.parts[index] if index >= 0 and update <= self.parts[index].last else None

    def _refuse_wrong_order(self) -> None:
        """Raises DamagedError for overlapping parts and, in the table of metrics, for gaps between them."""
        expected = 1
        for part in self.parts:
            if part.first < expected:
                raise DamagedError(f"{self.path / part.name} has updates that another part has as well; remove one")
            if part.first > expected and self.path.name == METRICS:
                raise DamagedError(f"{self.path} has no rows of update {expected}; restore the part that has them")
            expected = part.last + 1

    def _refuse_other_columns(self, names: list[str], known: list[str]) -> None:
        if difference := sorted(set(names) ^ set(known)):
            raise CheckpointError(
                f"{self.path} was written by other code, which had or lacked {', '.join(difference)}; continue "
                "with that code or choose a new run_dir"
            )


def list_parts(path: Path, held: Path) -> list[Part]:
    """The parts of a table in order; raises OddFileError for anything else in its folder."""
    if not is_there(held):
        return []
    names = sorted(os.listdir(held))
    refuse_odd(held, names)
    parts = []
    for name in (name for name in names if not is_partial(name)):
        found = PART.fullmatch(name)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise OddFileError(f"{path / name} is not a part of a table; remove it")
        parts.append(Part(int(found[1]), int(found[2]), found[3]))
    return parts
