"""Signals that ask a training to stop: it stops at the next boundary, and after a grace period wherever it is."""

import os
import signal
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress

from src_pure.errors import Interrupted, Preempted

# what schedulers send (SIGTERM; SIGUSR1 and SIGUSR2 of Slurm and submitit), a closed terminal, and Ctrl-C
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGINT)
SAME_SIGNAL = 0.2  # seconds: `timeout` sends its signal to the process and to its group


class StopRequest:
    """Whether a signal has asked this process to stop, and which one."""

    def __init__(self):
        self.signal: signal.Signals | None = None  # the first one
        self.training = False  # there is something to save: from here on Ctrl-C waits for the next boundary

    @property
    def error(self) -> type[Preempted]:
        """What a process that the signal stopped ends with."""
        return Interrupted if self.signal == signal.SIGINT else Preempted

    def raise_if_set(self, where: str) -> None:
        """Raises Preempted, which says where training stopped, once a signal has come."""
        if self.signal is not None:
            raise self.error(f"stopped by {self.signal.name} {where}")


@contextmanager
def stop_on_signals(grace_seconds: float) -> Generator[StopRequest]:
    """A StopRequest that the first signal sets; a second one, or the end of the grace period, exits at once.

    Signals that are ignored already, as SIGHUP is under nohup, stay ignored. Ctrl-C before training is the usual
    KeyboardInterrupt. Outside the main thread Python allows no handlers: then a line says that there are none.

    Python runs signal handlers between two of its own instructions, so not while the main thread waits for a compiled
    program. A thread of its own reads the numbers that the C handler writes into a pipe. Exiting at once does no harm
    because every file in the run folder is whole at any moment.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        print("signals do not save this training: it does not run in the main thread", file=sys.stderr)
        yield stop
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    seconds = min(grace_seconds, threading.TIMEOUT_MAX)
    end_of_grace = threading.Timer(seconds, lambda: _exit(stop, f"grace_seconds={grace_seconds:g} are over"))
    end_of_grace.daemon = True

    def watch() -> None:
        since = 0.0
        while number := os.read(reader, 1):
            if number[0] not in before:
                continue
            if stop.signal is None:
                stop.signal, since = signal.Signals(number[0]), time.monotonic()
                end_of_grace.start()
            elif number[0] != stop.signal or stop.signal == signal.SIGINT or time.monotonic() - since > SAME_SIGNAL:
                _exit(stop, "a second signal")

    def handle(number: int, _) -> None:
        if number == signal.SIGINT and not stop.training:
            raise KeyboardInterrupt

    handled = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in handled}
    wakeup_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield stop
    finally:
        signal.set_wakeup_fd(wakeup_before)
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not set from Python
        os.close(writer)
        thread.join()
        end_of_grace.cancel()
        os.close(reader)


def _exit(stop: StopRequest, reason: str) -> None:
    """Ends the process, whatever its other threads do and whatever locks of Python they hold."""
    with suppress(OSError):
        os.write(2, f"error: stopped at once: {reason}; what was saved before stays\n".encode())
    os._exit(stop.error.exit_code)
