"""One process at a time on a run folder."""

import fcntl
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from src_pure.errors import LockedError
from src_pure.runs.folder import Folder, refuse_hard_link, refuse_odd

LOCK = ".lock"


@contextmanager
def locked(folder: Folder) -> Generator[None]:
    """Holds the lock of an open folder; raises LockedError naming the host and process that hold it.

    The kernel gives the lock back when its owner ends, however it ends, so that of a dead owner is free; what the
    file says is for people. On a file system without locks the OSError says so. The lock of another folder that has
    come to have this name is never touched.
    """
    path = folder.held / LOCK
    refuse_odd(folder.held, [LOCK])
    refuse_hard_link(path)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 1000).decode(errors="replace").strip() or "a process that has just started"
            os.close(descriptor)
            raise LockedError(
                f"run_dir={folder.path} is in use by {owner}; wait for it or choose another run_dir"
            ) from None
        if _is_open(path, descriptor):
            break
        os.close(descriptor)  # its owner removed the file between our two calls
    try:
        os.truncate(descriptor, 0)
        os.write(descriptor, f"host {socket.gethostname()}, pid {os.getpid()}\n".encode())
        yield
    finally:
        with suppress(OSError):  # a folder that may not be written any more keeps the file, which no one holds
            if _is_open(path, descriptor):
                path.unlink()
        os.close(descriptor)


def _is_open(path: Path, descriptor: int) -> bool:
    """Whether an open file is still the one that has this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
