"""Signals that stop a training: at the next boundary, or at once when the grace period is over."""

import os
import signal
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress

from src_pure.errors import Interrupted, Preempted

# from schedulers (SIGTERM; SIGUSR1 and SIGUSR2 by Slurm and submitit), a closed terminal (SIGHUP), Ctrl-C (SIGINT)
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGINT)
SAME_SIGNAL = 0.2  # seconds; a repeat within them is the same request: `timeout` signals the process and its group


class StopRequest:
    """Whether a signal has asked this process to stop, and which one."""

    def __init__(self):
        self.signal: signal.Signals | None = None  # the first one
        self.training = False  # once there is something to save, Ctrl-C waits for the next boundary

    @property
    def error(self) -> type[Preempted]:
        """The type of error that ends a process stopped by this signal."""
        return Interrupted if self.signal == signal.SIGINT else Preempted

    def raise_if_set(self, where: str) -> None:
        """Raises Preempted, naming where training stopped, if a signal has arrived."""
        if self.signal is not None:
            raise self.error(f"stopped by {self.signal.name} {where}")


@contextmanager
def stop_on_signals(grace_seconds: float) -> Generator[StopRequest]:
    """A StopRequest that the first signal sets; a second signal, or the end of the grace period, exits at once.

    Signals that are already ignored, such as SIGHUP under nohup, stay ignored. Ctrl-C before training raises
    KeyboardInterrupt as usual. Outside the main thread, where Python allows no handlers, a warning is printed instead.

    Python runs signal handlers between bytecode instructions, which never happens while the main thread waits for a
    compiled program. A separate thread therefore reads the signal numbers, which the C handler writes into a pipe.
    Exiting at once is safe because every file in the run folder is whole at any moment.
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
    """Ends the process at once, regardless of other threads and the locks they hold."""
    with suppress(OSError):
        os.write(2, f"error: stopped at once: {reason}; what was saved before stays\n".encode())
    os._exit(stop.error.exit_code)
