"""Folders that others may move, replace or have made: held open while we write, and never a way out while we read."""

import os
import stat
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from src_pure.device import host_memory
from src_pure.errors import MovedError, OddFileError

MAX_ENTRIES = 100_000  # files and folders of one checkpoint; ours have some ten per array


class Folder:
    """A folder held open: `held` is the folder that was opened, also when its name means another one or nothing.

    A context manager that closes it; errors that leave it call the folder by its name. Raises OSError for what cannot
    be opened as a folder.
    """

    def __init__(self, path: Path):
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        held = Path(f"/proc/self/fd/{self._descriptor}")
        self.held = held if held.exists() else path  # there is no /proc on macOS; `check` alone guards there

    def __enter__(self) -> "Folder":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self.close()
        if error is not None:
            self.name_in(error)

    @contextmanager
    def naming(self) -> Generator[None]:
        """Errors that leave the block call the folder by its name."""
        try:
            yield
        except Exception as error:  # raised again, whatever it is
            self.name_in(error)
            raise

    def name_in(self, error: BaseException) -> None:
        """Puts the name of the folder where an error speaks of `held`, or of no file at all."""
        held, name = f"{self.held}/", f"{self.path}/"
        error.args = tuple(x.replace(held, name) if isinstance(x, str) else x for x in error.args)
        if isinstance(error, OSError) and error.errno is not None:  # a full disk names no file
            error.filename = str(error.filename or self.path).replace(held, name)

    def check(self) -> None:
        """Raises MovedError if the name means another folder now, or nothing."""
        try:
            same = os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except (FileNotFoundError, NotADirectoryError):
            same = False
        if not same:
            raise MovedError(f"{self.path} was moved, deleted or replaced meanwhile; nothing more is written")

    def close(self) -> None:
        os.close(self._descriptor)


def is_there(path: Path) -> bool:
    """Whether a name is taken; raises OSError where that cannot be known, which os.path.lexists takes for no."""
    try:
        path.lstat()
        return True
    except FileNotFoundError:
        return False


def read_file(path: Path, most: int | None = None) -> bytes:
    """The bytes of a regular file; `most` of them are allowed, by default half of this machine's memory.

    Raises OddFileError for anything else, and never waits for a pipe or follows a link; OSError if it cannot be read.
    """
    _refuse_all_but(path, stat.S_ISREG, "file")
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):  # replaced since we looked
            raise OddFileError(f"{path} must be a file, found {kind_of(status.st_mode)}; remove it or restore the file")
        most = host_memory() // 2 if most is None else most
        if status.st_size > most:
            raise OddFileError(f"{path} must have at most {most:,} bytes, it has {status.st_size:,}")
        return file.read(most)


def append_line(path: Path, line: str) -> None:
    """A file longer by one line; raises OddFileError for anything but a regular file."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    refuse_odd(path.parent, [path.name])
    refuse_hard_link(path)
    with os.fdopen(os.open(path, flags, 0o644), "a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f"{line}\n")


def refuse_odd(folder: Path, files: Sequence[str], folders: Sequence[str] = ()) -> None:
    """Raises OddFileError where one of these names is there and is not a regular file, or not a real folder."""
    for names, is_wanted, wanted in ((files, stat.S_ISREG, "file"), (folders, stat.S_ISDIR, "folder")):
        for path in (folder / name for name in names):
            with suppress(FileNotFoundError):
                _refuse_all_but(path, is_wanted, wanted)


def refuse_hard_link(path: Path) -> None:
    """Raises OddFileError for a file that is written in place and has another name, which may lie outside."""
    if is_there(path) and path.lstat().st_nlink > 1:
        raise OddFileError(f"{path} must have one name, found hard links to it; put a copy in its place")


def _refuse_all_but(path: Path, is_wanted: Callable[[int], bool], wanted: str) -> None:
    """Raises OddFileError if a path is not what `is_wanted(mode)` says; OSError if it is not there."""
    mode = path.lstat().st_mode
    if not is_wanted(mode):
        raise OddFileError(f"{path} must be a {wanted}, found {kind_of(mode)}; remove it or restore the {wanted}")


def kind_of(mode: int) -> str:
    """What a file mode stands for, in words."""
    kinds = ((stat.S_ISLNK, "a symbolic link"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISDIR, "a folder"),
             (stat.S_ISREG, "a file"), (stat.S_ISSOCK, "a socket"))  # fmt: skip
    return next((name for is_kind, name in kinds if is_kind(mode)), "a device")


def files_below(folder: Path) -> list[Path]:
    """Every file below a folder, sorted; raises OddFileError if anything in it is neither a file nor a folder.

    So it does for more of them than a checkpoint has, or more bytes than this machine's memory holds.
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
