"""Parquet files that notice damage in any of their bytes and say whose they are.

    PAR1  pages  MARK  SHA-256 of all bytes before and behind mark and digest  footer  its length  PAR1

Parquet itself has checksums of pages and none of the footer, in which names and places of the columns are. Readers go
by those places, so what stands between the last page and the footer is nothing to them.

A footer may declare any number of rows, so what it declares is compared with the size of the file before it is read.
"""

import hashlib
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from src_pure.errors import DamagedError, one_line
from src_pure.runs.folder import read_file
from src_pure.runs.identity import Identity

MARK = b"SHA-256:"
LENGTH = len(MARK) + hashlib.sha256().digest_size
NUMBERS, WORDS = {pa.int64(), pa.float64()}, {pa.string(), pa.large_string()}
MAX_CELLS_PER_BYTE = 64  # metrics barely compress: a table has some bytes for each of its cells


def write(table: pa.Table, file: BinaryIO, identity: Identity) -> None:
    """The table as a parquet file with its digest and the identity of its run."""
    table = table.replace_schema_metadata(identity._asdict())
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, write_page_checksum=True)
    content = sink.getvalue().to_pybytes()
    footer = _footer(content)
    file.write(content[:footer])
    file.write(MARK + hashlib.sha256(content).digest())
    file.write(content[footer:])


def read(path: Path) -> tuple[pa.Table, Identity | None]:
    """(the table that was written, whose it is); DamagedError for a file that is not what was written.

    The identity is None for a table without a digest, such as one that another program wrote.
    """
    content = memoryview(read_file(path))  # of which parts are not copies
    footer = _footer(content)
    mark = bytes(content[max(0, footer - LENGTH) : footer])
    if mark.startswith(MARK):
        digest = hashlib.sha256(content[: footer - LENGTH])
        digest.update(content[footer:])
        if mark != MARK + digest.digest():
            raise DamagedError(f"{path} cannot be read: it is damaged, its bytes are not those that were written")
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        _check_declared(file, len(content))
        words = [name for name in file.schema_arrow.names if name == "mode"]  # else each row may repeat a long one
        table = pq.read_table(pa.BufferReader(content), read_dictionary=words, page_checksum_verification=True)
    except MemoryError:
        raise
    except Exception as error:  # pyarrow raises many kinds; all that it reads is in memory
        raise DamagedError(f"{path} cannot be read: {one_line(error)}") from error
    if "mode" in table.column_names:
        table = table.set_column(table.column_names.index("mode"), "mode", table["mode"].cast(pa.string()))
    return table, _identity(table.schema.metadata) if mark.startswith(MARK) else None


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


def _identity(metadata: dict[bytes, bytes] | None) -> Identity | None:
    found = [(metadata or {}).get(name.encode()) for name in Identity._fields]
    return None if None in found else Identity(*(value.decode(errors="replace") for value in found))


def _footer(content: bytes | memoryview) -> int:
    """Where the footer begins, by what the end of the file says; 0 for what cannot be."""
    return max(0, len(content) - 8 - int.from_bytes(content[-8:-4], "little"))
