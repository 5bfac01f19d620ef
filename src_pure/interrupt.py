"""Import this first: if Ctrl-C or a wrong jax setting then ends a script during its imports, it prints one line.

The signal handler exits instead of raising: in a callback of jax nothing could catch an exception.
"""

import os
import signal
import sys
import threading
from types import FrameType, TracebackType

from src_pure.errors import INTERRUPTED, WRONG_INPUT, one_line, stop


def _interrupt(number: int, frame: FrameType | None) -> None:
    os.write(2, b"error: interrupted\n")
    os._exit(INTERRUPTED)


def _show(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, Exception):
        variables = ", ".join(sorted(name for name in os.environ if name.startswith("JAX_")))
        hint = f"; look at the environment variables {variables}" if variables else ""
        stop(WRONG_INPUT, f"the program cannot start: {one_line(error)}{hint}")
        os._exit(WRONG_INPUT)
    sys.__excepthook__(kind, error, traceback)


def imported(exception: bool = True) -> None:
    """Ends the special treatment of errors; without `exception`, Ctrl-C still ends the process at once."""
    sys.excepthook = sys.__excepthook__
    if exception and signal.getsignal(signal.SIGINT) is _interrupt:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if (
    threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, _interrupt)
sys.excepthook = _show
