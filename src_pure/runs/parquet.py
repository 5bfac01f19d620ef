"""The bytes of one part of a table: rows, and in the metadata of their schema the run they belong to.

A footer may declare any number of rows, so what it declares is compared with the size of the file before it is read.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from src_pure.errors import DamagedError, one_line
from src_pure.runs.identity import Identity

NUMBERS, WORDS = {pa.int64(), pa.float64()}, {pa.string(), pa.large_string()}
MAX_CELLS_PER_BYTE = 64  # metrics barely compress: a table has some bytes for each of its cells


class Footer(NamedTuple):
    """What a file declares."""

    num_rows: int
    updates: tuple[int, int] | None  # the first and the last
    columns: list[str]
    identity: Identity | None  # None where the file does not say which run it belongs to


def encode(rows: pa.Table, identity: Identity | None) -> bytes:
    """The rows as the content of a parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(rows.replace_schema_metadata(identity._asdict() if identity else None), sink)
    return sink.getvalue().to_pybytes()


def read_footer(content: bytes, path: Path) -> Footer:
    """What the content of a file declares; raises DamagedError for a table that cannot be ours."""
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        _check_declared(file, len(content))
        schema = file.schema_arrow
        return Footer(file.metadata.num_rows, _updates(file), schema.names, _identity(schema.metadata))
    except MemoryError:
        raise
    except Exception as error:  # pyarrow raises many kinds; all that it reads is in memory
        raise DamagedError(f"{path} cannot be read: {one_line(error)}") from error


def decode(content: bytes, path: Path, columns: Sequence[str]) -> pa.Table:
    """These columns of the rows; `read_footer` has accepted the content. Raises DamagedError for what is no table."""
    words = [name for name in columns if name == "mode"]  # else each row may repeat a long one
    try:
        rows = pq.read_table(pa.BufferReader(content), columns=list(columns), read_dictionary=words)
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise DamagedError(f"{path} cannot be read: {one_line(error)}") from error
    if words:
        rows = rows.set_column(rows.column_names.index("mode"), "mode", rows["mode"].cast(pa.string()))
    return rows


def _check_declared(file: pq.ParquetFile, num_bytes: int) -> None:
    """Raises ValueError for a table that cannot be ours: by its columns, or by what it would need in memory."""
    metadata = file.metadata
    cells = metadata.num_rows * metadata.num_columns
    if cells > MAX_CELLS_PER_BYTE * num_bytes:
        raise ValueError(f"it declares {cells:,} values in {num_bytes:,} bytes")
    for field in file.schema_arrow:
        if field.type not in (WORDS if field.name == "mode" else NUMBERS):
            raise ValueError(f"its column {one_line(field.name, 60)} is of type {one_line(field.type, 60)}")
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            if metadata.row_group(group).column(column).compression not in ("SNAPPY", "UNCOMPRESSED"):
                raise ValueError("it is compressed in another way than snappy")


def _updates(file: pq.ParquetFile) -> tuple[int, int] | None:
    """The smallest and the largest value of the column `update`; None where the file does not say."""
    if "update" not in file.schema_arrow.names:
        return None
    column = file.schema_arrow.names.index("update")
    groups = [file.metadata.row_group(group).column(column) for group in range(file.metadata.num_row_groups)]
    ranges = [group.statistics for group in groups if group.is_stats_set and group.statistics.has_min_max]
    if not ranges or len(ranges) < len(groups):
        return None
    return min(found.min for found in ranges), max(found.max for found in ranges)


def _identity(metadata: dict[bytes, bytes] | None) -> Identity | None:
    found = [(metadata or {}).get(name.encode()) for name in Identity._fields]
    return None if None in found else Identity(*(value.decode(errors="replace") for value in found))
