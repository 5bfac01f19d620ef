"""Folders that others may move, replace or prepare: writes stay in the opened folder, reads follow no links."""

import os
import stat
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from src_pure.device import host_memory
from src_pure.errors import MovedError, OddFileError

MAX_ENTRIES = 100_000  # files and folders in one checkpoint; a real one has about ten per array


class Folder:
    """A folder held open: `held` leads to the opened folder even after its path is moved, replaced or deleted.

    As a context manager it closes the folder at the end, and errors that leave the block show the folder's path.
    Raises OSError for a path that cannot be opened as a folder.
    """

    def __init__(self, path: Path):
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        held = Path(f"/proc/self/fd/{self._descriptor}")
        self.held = held if held.exists() else path  # macOS has no /proc; there only `check` protects

    def __enter__(self) -> "Folder":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self.close()
        if error is not None:
            self.name_in(error)

    @contextmanager
    def naming(self) -> Generator[None]:
        """Errors that leave the block show the folder's path."""
        try:
            yield
        except Exception as error:  # any error: it is raised again
            self.name_in(error)
            raise

    def name_in(self, error: BaseException) -> None:
        """Replaces `held` in an error by the folder's path, and adds that path to an OSError without a file name."""
        held, name = f"{self.held}/", f"{self.path}/"
        error.args = tuple(x.replace(held, name) if isinstance(x, str) else x for x in error.args)
        if isinstance(error, OSError) and error.errno is not None:  # a full disk names no file
            error.filename = str(error.filename or self.path).replace(held, name)

    def check(self) -> None:
        """Raises MovedError if the path now leads to another folder or to nothing."""
        try:
            same = os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except (FileNotFoundError, NotADirectoryError):
            same = False
        if not same:
            raise MovedError(f"{self.path} was moved, deleted or replaced meanwhile; nothing more is written")

    def close(self) -> None:
        os.close(self._descriptor)


def is_there(path: Path) -> bool:
    """Whether a path exists; raises OSError if that cannot be determined, where os.path.lexists returns False."""
    try:
        path.lstat()
        return True
    except FileNotFoundError:
        return False


def read_file(path: Path, most: int | None = None) -> bytes:
    """The bytes of a regular file, at most `most`; by default half of this machine's memory.

    Raises OddFileError for a larger file and anything but a regular file, without waiting for a pipe or following a
    link; OSError if it cannot be read.
    """
    _refuse_all_but(path, stat.S_ISREG, "file")
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):  # replaced since the check above
            raise OddFileError(f"{path} must be a file, found {kind_of(status.st_mode)}; remove it or restore the file")
        most = host_memory() // 2 if most is None else most
        if status.st_size > most:
            raise OddFileError(f"{path} must have at most {most:,} bytes, it has {status.st_size:,}")
        return file.read(most)


def append_line(path: Path, line: str) -> None:
    """Appends one line to a file; raises OddFileError for anything but a regular file."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    refuse_odd(path.parent, [path.name])
    refuse_hard_link(path)
    with os.fdopen(os.open(path, flags, 0o644), "a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f"{line}\n")


def refuse_odd(folder: Path, files: Sequence[str], folders: Sequence[str] = ()) -> None:
    """Raises OddFileError if one of these names exists but is not a regular file or a real folder, as wanted.

    Symbolic links are refused in both lists.
    """
    for names, is_wanted, wanted in ((files, stat.S_ISREG, "file"), (folders, stat.S_ISDIR, "folder")):
        for path in (folder / name for name in names):
            with suppress(FileNotFoundError):
                _refuse_all_but(path, is_wanted, wanted)


def refuse_hard_link(path: Path) -> None:
    """Raises OddFileError for a file with hard links: writing it in place could change a file outside the folder."""
    if is_there(path) and path.lstat().st_nlink > 1:
        raise OddFileError(f"{path} must have one name, found hard links to it; put a copy in its place")


def _refuse_all_but(path: Path, is_wanted: Callable[[int], bool], wanted: str) -> None:
    """Raises OddFileError if is_wanted(mode) is false for a path; OSError if it does not exist."""
    mode = path.lstat().st_mode
    if not is_wanted(mode):
        raise OddFileError(f"{path} must be a {wanted}, found {kind_of(mode)}; remove it or restore the {wanted}")


def kind_of(mode: int) -> str:
    """The kind of file that a mode stands for, in words."""
    kinds = ((stat.S_ISLNK, "a symbolic link"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISDIR, "a folder"),
             (stat.S_ISREG, "a file"), (stat.S_ISSOCK, "a socket"))  # fmt: skip
    return next((name for is_kind, name in kinds if is_kind(mode)), "a device")


def files_below(folder: Path) -> list[Path]:
    """Every file below a folder, sorted; raises OddFileError if anything in it is neither a file nor a folder.

    Also raises it for more than MAX_ENTRIES entries, or more bytes than this machine's memory holds.
    """
    files, total = [], 0
    for number, (path, status) in enumerate(_entries(folder)):
        if number == MAX_ENTRIES:
            raise OddFileError(f"{folder} must have at most {MAX_ENTRIES:,} files and folders, it has more")
        if stat.S_ISREG(status.st_mode):
            files.append(path)
            total += status.st_size
        elif not stat.S_ISDIR(status.st_mode):
            raise OddFileError(f"{path} must be a file or folder, found {kind_of(status.st_mode)}; remove it")
    if total > host_memory():
        raise OddFileError(f"{folder} must fit in memory, {host_memory():,} bytes, it has {total:,}")
    return sorted(files)


def _entries(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(Path(entry.path))
                yield Path(entry.path), status
