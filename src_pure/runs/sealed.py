"""Folders that are whole or not at all: written under another name, checked before they are trusted.

    <folder>/  <kind>.json   format, and whatever describes the rest
               sha256.json   the digest of every other file
               ...

A folder is made as .<name>.partial, flushed to disk and renamed, so what has its own name is complete.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from src_pure.errors import CannotWriteError, CheckpointError, DamagedError, one_line

DIGESTS = "sha256.json"


@contextmanager
def sealing(path: Path, kind: str, description: dict[str, Any]) -> Iterator[Path]:
    """A folder to fill, which becomes `path` if the block ends well; else nothing is left of it, with CannotWriteError.

    Its parents are not made: a folder that vanished is not made again.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.mkdir()
        yield partial
        (partial / f"{kind}.json").write_text(json.dumps(description, indent=2) + "\n")
        (partial / DIGESTS).write_text(json.dumps(digests(partial), indent=2) + "\n")
        for item in [*partial.rglob("*"), partial]:
            flush(item)
        partial.rename(path)
        flush(path.parent)
    except Exception as error:  # a full disk is a ValueError from orbax and an OSError from Python
        shutil.rmtree(partial, ignore_errors=True)
        raise CannotWriteError(f"cannot write {path}: {one_line(error)}") from error


def unsealed(path: Path, kind: str, version: int) -> dict[str, Any]:
    """The description of a folder whose files are as they were written; raises DamagedError for any other.

    Raises CheckpointError for a folder of another format than `version`.
    """
    try:
        description = json.loads((path / f"{kind}.json").read_bytes())
        found = description["format"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DamagedError(f"{kind} {path} is damaged: {kind}.json cannot be read") from error
    if found != version:
        raise CheckpointError(
            f"{kind} {path} has format {found!r}, this version reads {version}; use the version that wrote it"
        )
    try:
        whole = json.loads((path / DIGESTS).read_bytes()) == digests(path)
    except (OSError, ValueError) as error:
        raise DamagedError(f"{kind} {path} is damaged: {DIGESTS} or a file cannot be read") from error
    if not whole:
        raise DamagedError(f"{kind} {path} is damaged: its files are not those that were written")
    return description


def digests(path: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder but the list of digests, by name."""
    found = {}
    for item in sorted(path.rglob("*")):
        name = item.relative_to(path).as_posix()
        if item.is_file() and name != DIGESTS:
            with item.open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def flush(path: Path) -> None:
    """What was written to a file or folder survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
