"""A lock that lets only one process at a time use a run folder."""

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

    The kernel releases the lock however its owner ends, so a dead process never blocks a folder; the text in the file
    is for people. Raises OSError on a file system without locks. If another folder has taken this path, its lock is
    never touched.
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
        os.close(descriptor)  # its owner deleted the file between the two calls above
    try:
        os.truncate(descriptor, 0)
        os.write(descriptor, f"host {socket.gethostname()}, pid {os.getpid()}\n".encode())
        yield
    finally:
        with suppress(OSError):  # a folder that became read-only keeps the file, unlocked
            if _is_open(path, descriptor):
                path.unlink()
        os.close(descriptor)


def _is_open(path: Path, descriptor: int) -> bool:
    """Whether the path still leads to this open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
