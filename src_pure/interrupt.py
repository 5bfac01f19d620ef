"""Importing this module makes Ctrl-C one line from then on, also while the rest of a script is imported."""

import sys
from types import TracebackType

from src_pure.errors import INTERRUPTED, explained, stop


def _show(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.exit(stop(INTERRUPTED, explained(error)))
    sys.__excepthook__(kind, error, traceback)


sys.excepthook = _show
