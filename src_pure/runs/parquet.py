"""Parquet files that notice damage in any of their bytes.

    PAR1  pages  MARK  SHA-256 of all bytes before and behind mark and digest  footer  its length  PAR1

Parquet itself has checksums of pages and none of the footer, in which names and places of the columns are. Readers go
by those places, so what stands between the last page and the footer is nothing to them.
"""

import hashlib
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from src_pure.runs.sealed import DamagedError, one_line

MARK = b"SHA-256:"
LENGTH = len(MARK) + hashlib.sha256().digest_size


def write(table: pa.Table, file: BinaryIO) -> None:
    """The table as a parquet file with its digest."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, write_page_checksum=True)
    content = sink.getvalue().to_pybytes()
    footer = _footer(content)
    file.write(content[:footer])
    file.write(MARK + hashlib.sha256(content).digest())
    file.write(content[footer:])


def read(path: Path) -> pa.Table:
    """The table that was written, or DamagedError; one of older versions has checksums of its pages at the most."""
    content = path.read_bytes()
    footer = _footer(content)
    mark = content[max(0, footer - LENGTH) : footer]
    if mark.startswith(MARK):
        digest = hashlib.sha256(content[: footer - LENGTH])
        digest.update(content[footer:])
        if mark != MARK + digest.digest():
            raise DamagedError(f"{path} cannot be read: it is damaged, its bytes are not those that were written")
    try:
        return pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
    except (OSError, ValueError, pa.ArrowException) as error:  # of the bytes, which are in memory
        raise DamagedError(f"{path} cannot be read: {one_line(error)}") from error


def _footer(content: bytes) -> int:
    """Where the footer begins, by what the end of the file says; 0 for what cannot be."""
    return max(0, len(content) - 8 - int.from_bytes(content[-8:-4], "little"))
