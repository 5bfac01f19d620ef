"""Files and folders that exist whole or not at all: written under a temporary name, verified before they are used.

    <folder>/  <kind>.json   the format number and a description of the other files
               sha256.json   the digest of every other file
               ...

A file or folder is called .<name>.<random>.partial until it is on disk. Anything under its final name is therefore
complete, and two processes that write the same name never write into the same file.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import pydantic

from src_pure.errors import CannotWriteError, CheckpointError, DamagedError, one_line
from src_pure.runs.folder import files_below, read_file

DIGESTS = "sha256.json"
MAX_JSON = 2**26  # bytes


class Description(pydantic.BaseModel):
    """The content of a JSON file of this project; subclasses define the fields."""

    model_config = pydantic.ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


AnyDescription = TypeVar("AnyDescription", bound=Description)


@contextmanager
def replacing(path: Path) -> Generator[BinaryIO]:
    """A file to write. It replaces `path` if the block succeeds; otherwise `path` stays unchanged."""
    partial = partial_path(path)
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        flush(path.parent)
    except OSError as error:
        if error.filename is not None and os.fspath(error.filename) == str(partial):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def write_whole(path: Path, kind: str, description: dict[str, Any]) -> Generator[Path]:
    """A folder to fill. It becomes `path` if the block succeeds; otherwise it is deleted and CannotWriteError raised.

    Parents are not created, so a folder that was deleted in the meantime does not come back.
    """
    partial = partial_path(path)
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
        reason = one_line(error).replace(str(partial), str(path))
        raise CannotWriteError(f"cannot write {path}: {reason}") from error


def read_whole(path: Path, kind: str, version: int, fields: type[AnyDescription]) -> AnyDescription:
    """The description of a folder; raises DamagedError unless all of its files are as they were written.

    Raises CheckpointError if the format is not `version`, OSError if a file cannot be read.
    """
    try:
        description = read_description(path, kind, version, fields)
        whole = read_json(path / DIGESTS) == digests(path)
    except (DamagedError, FileNotFoundError) as error:
        raise DamagedError(f"{kind} {path} is damaged: {error}") from error
    if not whole:
        raise DamagedError(f"{kind} {path} is damaged: its files are not those that were written")
    return description


def read_description(path: Path, kind: str, version: int, fields: type[AnyDescription]) -> AnyDescription:
    """The content of a folder's <kind>.json, even if other files are damaged; raises the errors of `read_whole`."""
    found = read_json(path / f"{kind}.json")
    if isinstance(found, dict) and found.get("format", version) != version:
        other = one_line(repr(found["format"]), 60)
        raise CheckpointError(f"{kind} {path} has format {other}, this version reads {version}; use the version that "
                              "wrote it")  # fmt: skip
    return validated(found, fields, path / f"{kind}.json")


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises DamagedError if it is missing or invalid, OSError if it cannot be read."""
    try:
        return json.loads(read_file(path, MAX_JSON))
    except FileNotFoundError as error:
        raise DamagedError(f"{path} is missing") from error
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} cannot be read: {one_line(error)}") from error


def validated(value: Any, fields: type[AnyDescription], path: Path) -> AnyDescription:
    """The value of a JSON file as a Description; raises DamagedError naming the first invalid field."""
    try:
        return fields.model_validate(value)
    except pydantic.ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = one_line(".".join(map(str, first["loc"])) or "it", 60)
        raise DamagedError(f"{path} cannot be read: {place}: {first['msg']}") from None


def digests(path: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder except sha256.json, by name; raises OddFileError for links and pipes."""
    found = {}
    for item in files_below(path):
        name = item.relative_to(path).as_posix()
        if name != DIGESTS:
            with item.open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def flush(path: Path) -> None:
    """Forces a file or folder to disk, so that it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def partial_path(path: Path) -> Path:
    """A new temporary name next to `path`."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


def is_partial(name: str) -> bool:
    """Whether a name marks something temporary: still being written, or left by a process that was killed."""
    return name.startswith(".") and name.endswith(".partial")


def partials_of(path: Path) -> list[Path]:
    """Temporary files and folders for `path`: still being written, or left by a process that was killed."""
    return [*path.parent.glob(f".{path.name}.*.partial")]
