"""The bytes of one part of a table: its rows, and the identity of their run in the metadata of the schema.

A footer may declare any number of rows, so its claim is checked against the size of the file before reading.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from src_pure.errors import DamagedError, one_line
from src_pure.runs.identity import Identity

NUMBERS, WORDS = {pa.int64(), pa.float64()}, {pa.string(), pa.large_string()}
COMPRESSIONS = ("SNAPPY", "UNCOMPRESSED")
FIRST = "first_update"  # the key in the metadata
MAX_CELLS_PER_BYTE = 64  # generous: metrics barely compress and need several bytes per cell


class Content(NamedTuple):
    """The content of a file, of which only the footer has been read."""

    path: Path
    file: pq.ParquetFile
    num_rows: int
    updates: tuple[int, int] | None  # the first and last that the rows cover; None if the file does not declare them
    averaged: bool  # whether rows are means over several updates
    columns: list[str]
    identity: Identity | None  # None if the file does not name its run

    def rows(self, columns: Sequence[str]) -> pa.Table:
        """The rows with these columns; raises DamagedError if they cannot be read."""
        with _naming(self.path):
            rows = self.file.read(list(columns))
        if "mode" in columns:
            rows = rows.set_column(rows.column_names.index("mode"), "mode", rows["mode"].cast(pa.string()))
        return rows


def encode(rows: pa.Table, identity: Identity | None, first: int | None = None) -> bytes:
    """The rows as the content of a parquet file; first: where rows are means, the first update that they cover."""
    sink = pa.BufferOutputStream()
    metadata = identity._asdict() if identity else {}
    if first is not None:
        metadata[FIRST] = str(first)
    pq.write_table(rows.replace_schema_metadata(metadata or None), sink)
    return sink.getvalue().to_pybytes()


def open_content(content: bytes, path: Path) -> Content:
    """The content with its footer read; raises DamagedError if this project cannot have written it."""
    with _naming(path):
        file = pq.ParquetFile(pa.BufferReader(content))
        schema = file.schema_arrow
        _check_declared(file.metadata, schema, len(content))
        if "mode" in schema.names:  # without a dictionary, every row could repeat a long word in memory
            file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=["mode"])
        updates, identity = _updates(file.metadata, schema), _identity(schema.metadata)
        first = (schema.metadata or {}).get(FIRST.encode())
        if updates and first is not None:
            updates = (min(updates[0], int(first)), updates[1])
        return Content(path, file, file.metadata.num_rows, updates, first is not None, schema.names, identity)


@contextmanager
def _naming(path: Path) -> Generator[None]:
    """Turns errors of pyarrow in the block into a DamagedError that names the file."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # pyarrow raises many types of errors; none is from the disk: all is in memory
        raise DamagedError(f"{path} cannot be read: {one_line(error)}") from error


def _check_declared(metadata: pq.FileMetaData, schema: pa.Schema, num_bytes: int) -> None:
    """Raises ValueError for declared columns or sizes that this project cannot have written."""
    cells = metadata.num_rows * metadata.num_columns
    if cells > MAX_CELLS_PER_BYTE * num_bytes:
        raise ValueError(f"it declares {cells:,} values in {num_bytes:,} bytes")
    for field in schema:
        if field.type not in (WORDS if field.name == "mode" else NUMBERS):
            raise ValueError(f"its column {one_line(field.name, 60)} is of type {one_line(field.type, 60)}")
    groups = (metadata.row_group(group) for group in range(metadata.num_row_groups))
    if any(group.column(i).compression not in COMPRESSIONS for group in groups for i in range(group.num_columns)):
        raise ValueError("it is compressed in another way than snappy")


def _updates(metadata: pq.FileMetaData, schema: pa.Schema) -> tuple[int, int] | None:
    """The smallest and largest value of the column `update`; None if the file does not declare them."""
    if "update" not in schema.names:
        return None
    column = schema.names.index("update")
    found = [metadata.row_group(group).column(column).statistics for group in range(metadata.num_row_groups)]
    if not found or any(statistics is None or not statistics.has_min_max for statistics in found):
        return None
    return min(statistics.min for statistics in found), max(statistics.max for statistics in found)


def _identity(metadata: dict[bytes, bytes] | None) -> Identity | None:
    found = [(metadata or {}).get(name.encode()) for name in Identity._fields]
    values = [value.decode(errors="replace") for value in found if value is not None]
    return Identity(*values) if len(values) == len(found) else None
