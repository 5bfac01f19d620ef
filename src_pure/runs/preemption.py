"""Signals that ask a training to stop: it stops at the next boundary, and after a grace period wherever it is."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PREEMPTED = 75  # EX_TEMPFAIL: try again later
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Preempted(Exception):
    """Training stopped because it was asked to; what there was to save is saved."""


@contextmanager
def noticed(grace_seconds: float) -> Iterator[threading.Event]:
    """An event that the first SIGTERM or SIGUSR1 sets; a second one, or the end of the grace period, exits at once.

    Python runs signal handlers between two of its own instructions, so not while the main thread waits for a compiled
    program. A thread of its own reads the numbers that the C handler writes into a pipe. Exiting at once does no harm
    because every file in the run folder is whole at any moment.
    """
    stop = threading.Event()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    seconds = min(grace_seconds, threading.TIMEOUT_MAX)
    end_of_grace = threading.Timer(seconds, _exit, [f"grace_seconds={grace_seconds:g} are over"])
    end_of_grace.daemon = True

    def watch() -> None:
        while number := os.read(reader, 1):
            if number[0] in SIGNALS:
                if stop.is_set():
                    _exit("a second signal")
                stop.set()
                end_of_grace.start()

    before = [signal.signal(number, lambda *_: None) for number in SIGNALS]
    wakeup_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield stop
    finally:
        signal.set_wakeup_fd(wakeup_before)
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)
        os.close(writer)
        thread.join()
        end_of_grace.cancel()
        os.close(reader)


def _exit(reason: str) -> None:
    """Ends the process, whatever its other threads do and whatever locks of Python they hold."""
    with suppress(OSError):
        os.write(2, f"error: stopped at once: {reason}; what was saved before stays\n".encode())
    os._exit(PREEMPTED)
