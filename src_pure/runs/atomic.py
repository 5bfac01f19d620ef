"""Files and folders that are whole or not at all: written under another name, checked before they are trusted.

    <folder>/  <kind>.json   format, and whatever describes the rest
               sha256.json   the digest of every other file
               ...

Until it is on disk, a file or folder is called .<name>.<random>.partial. So whatever has its own name is complete, and
two processes that write the same name do not write into one file.
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
    """What a JSON file of ours holds; a subclass names the fields."""

    model_config = pydantic.ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


AnyDescription = TypeVar("AnyDescription", bound=Description)


@contextmanager
def replacing(path: Path) -> Generator[BinaryIO]:
    """A file to write, which takes the place of `path` if the block ends well; else `path` stays as it was."""
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
    """A folder to fill, which becomes `path` if the block ends well; else nothing is left of it, with CannotWriteError.

    Its parents are not made: a folder that vanished is not made again.
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
    """The description of a folder whose files are as they were written; raises DamagedError for any other.

    Raises CheckpointError for a folder of another format than `version`, OSError if a file cannot be read.
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
    """What <kind>.json of a folder says, whether or not its other files are whole; raises as `read_whole` does."""
    found = read_json(path / f"{kind}.json")
    if isinstance(found, dict) and found.get("format", version) != version:
        other = one_line(repr(found["format"]), 60)
        raise CheckpointError(f"{kind} {path} has format {other}, this version reads {version}; use the version that "
                              "wrote it")  # fmt: skip
    return validated(found, fields, path / f"{kind}.json")


def read_json(path: Path) -> Any:
    """What a JSON file says; raises DamagedError if it is missing or says nothing, OSError if it cannot be read."""
    try:
        return json.loads(read_file(path, MAX_JSON))
    except FileNotFoundError as error:
        raise DamagedError(f"{path} is missing") from error
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} cannot be read: {one_line(error)}") from error


def validated(value: Any, fields: type[AnyDescription], path: Path) -> AnyDescription:
    """The value of a JSON file as a Description; raises DamagedError naming the first field that is wrong."""
    try:
        return fields.model_validate(value)
    except pydantic.ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = one_line(".".join(map(str, first["loc"])) or "it", 60)
        raise DamagedError(f"{path} cannot be read: {place}: {first['msg']}") from None


def digests(path: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder but the list of digests, by name; raises OddFileError for links and pipes."""
    found = {}
    for item in files_below(path):
        name = item.relative_to(path).as_posix()
        if name != DIGESTS:
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


def partial_path(path: Path) -> Path:
    """A new name next to `path`, for what will replace it."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


def is_partial(name: str) -> bool:
    """Whether this is the name of something that is being written, or was when its writer was killed."""
    return name.startswith(".") and name.endswith(".partial")


def partials_of(path: Path) -> list[Path]:
    """What is being written as `path`, or was when its writer was killed."""
    return [*path.parent.glob(f".{path.name}.*.partial")]
