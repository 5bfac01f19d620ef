"""Stand-in."""

import fcntl
from pathlib import Path

from src_pure.runs.lock import LOCK
from src_pure.runs.rundir import LOG, SUMMARY


def batch_folders(path: Path) -> list[Path]:
    return sorted(p for p in (path / "batches").iterdir()) if (path / "batches").is_dir() else []


def state_of(batch: Path) -> str:
    if (batch / SUMMARY).is_file():
        return "finished"
    try:
        with open(batch / LOCK) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return "running"
    except FileNotFoundError:
        pass
    lines = (batch / LOG).read_text().splitlines() if (batch / LOG).is_file() else []
    if lines and "  error: " in lines[-1]:
        return "failed"
    return "stopped" if lines else "waiting"


def refresh_runs(path: Path) -> None:
    pass
