"""The errors of this project. A user sees one line on standard error and an exit code, never a traceback.

An exception that a user can act on has an `exit_code`.
"""

import argparse
import errno
import io
import os
import reprlib
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from typing import Any, NoReturn, Protocol, TypeVar

Kind = TypeVar("Kind", int, float)
WRONG_INPUT, CANNOT_WRITE, INTERRUPTED = 2, 4, 130
LONGEST_LINE = 10_000  # characters of an error message: it may list many differences
SHORT = reprlib.Repr()  # set below, because Repr takes arguments only since Python 3.12
SHORT.maxlevel, SHORT.maxdict, SHORT.maxlist, SHORT.maxtuple = 3, 8, 16, 16
SHORT.maxstring, SHORT.maxlong, SHORT.maxother = 120, 40, 120
# errors of a mistyped path: wrong input; any other OSError, such as a full disk, is a fault of the machine
WRONG_PATH = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)
WRONG_NAME = {errno.ELOOP, errno.ENAMETOOLONG}


class ConfigError(ValueError):
    """Wrong input; the message is one line: what was wanted, what was found, what to change."""

    exit_code = WRONG_INPUT

    def __init__(self, message: object):
        super().__init__(one_line(message, LONGEST_LINE))


class CheckpointError(RuntimeError):
    """A checkpoint, an exported policy or a table cannot be written or used."""

    exit_code = WRONG_INPUT


class CannotWriteError(CheckpointError):
    """A checkpoint or a policy could not be written to disk."""

    exit_code = CANNOT_WRITE


class DamagedError(CheckpointError):
    """A checkpoint, a policy or a table was read, but its content is not what was written."""


class RemovedError(CheckpointError):
    """The training removed a checkpoint while another process read it; a newer one exists."""


class OddFileError(CheckpointError):
    """A link, pipe or device lies where this project keeps a file or folder."""


class ForeignError(CheckpointError):
    """A file in the run folder belongs to another run."""


class MovedError(OSError):
    """The run folder was moved, deleted or replaced since it was opened."""

    exit_code = CANNOT_WRITE


class LockedError(RuntimeError):
    """Another process is using the run folder."""

    exit_code = 5


class NumericalError(RuntimeError):
    """The loss, parameters, observations or rewards of some runs are no longer finite."""

    exit_code = 3


class DeviceError(RuntimeError):
    """The device, or the compiler for it, failed."""

    exit_code = 6


class Preempted(Exception):
    """A signal stopped the training; its state, if any, is saved."""

    exit_code = 75  # EX_TEMPFAIL: try again later


class Interrupted(Preempted):
    """The signal was Ctrl-C."""

    exit_code = INTERRUPTED


class Main(Protocol):
    """A program: takes a command line (None: that of the process) and returns its exit code."""

    def __call__(self, command_line: Sequence[str] | None = None) -> int: ...


class Parser(argparse.ArgumentParser):
    """A parser that raises ConfigError instead of exiting."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see --help")


def between(kind: type[Kind], low: float, high: float) -> Callable[[str], Kind]:
    """An argument type for argparse: a number from low to high, both included."""

    def convert(text: str) -> Kind:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            name = "whole number" if kind is int else "number"
            raise argparse.ArgumentTypeError(f"must be a {name} from {low:,} to {high:,}, got {shortened(text, 40)!r}")
        return value

    return convert


def guarded(main: Callable[[Sequence[str] | None], int]) -> Main:
    """main(command_line), but an error becomes one line and an exit code; an error without one is a bug and is raised.

    If the reader of standard output stops early, as `head` does, the program ends quietly.
    """

    @wraps(main)
    def run(command_line: Sequence[str] | None = None) -> int:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # the terminal may not encode every path
        try:
            try:
                code = main(command_line)
            except SystemExit as end:  # raised by --help
                code = end.code
            return _flushed(code or 0)
        except BrokenPipeError:
            _silence()
            return 0
        except (Exception, KeyboardInterrupt) as error:
            code = exit_code(error)
            if code is None:
                raise
            return stop(code, explain(error))

    return run


def exit_code(error: BaseException) -> int | None:
    """The exit code for an error; None for a bug."""
    if isinstance(error, OSError):
        wrong = isinstance(error, WRONG_PATH) or error.errno in WRONG_NAME
        return getattr(error, "exit_code", WRONG_INPUT if wrong else CANNOT_WRITE)
    if isinstance(error, MemoryError):
        return CANNOT_WRITE
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return getattr(error, "exit_code", None)


def explain(error: BaseException) -> str:
    """The message of an error, complete enough to stand alone."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, MemoryError):
        return f"out of memory: {error}" if str(error) else "out of memory"
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def stop(code: int, message: object) -> int:
    """The exit code, after printing the message in one line; a closed standard error is ignored."""
    with suppress(OSError):
        print(f"error: {one_line(message, LONGEST_LINE)}", file=sys.stderr)
    return code


def one_line(message: object, limit: int = 300) -> str:
    """The message as one line of printable characters; a long one loses its middle."""
    text = " ".join(str(message).split())
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shortened(text, limit)


def shortened(text: str, limit: int) -> str:
    """The text; if it is longer than the limit, without its middle."""
    return text if len(text) <= limit else f"{text[: limit // 2]} ... {text[-limit // 2 :]}"


def shown(value: Any) -> str:
    """The repr of a value, abbreviated where it is long or deep."""
    return SHORT.repr(value)


@contextmanager
def naming(what: str) -> Generator[None]:
    """Turns whatever the block raises into a ConfigError that starts with `what`; wraps code from a configuration."""
    try:
        yield
    except ConfigError:
        raise
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{what}: {error}") from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{what}: {type(error).__name__}: {error}") from error


def _flushed(code: Any) -> int:
    """The exit code, after standard output is flushed."""
    try:
        print(end="", flush=True)
        return code
    except BrokenPipeError:
        raise
    except OSError as error:
        _silence()
        return stop(CANNOT_WRITE, f"standard output cannot be written: {error}")


def _silence() -> None:
    """Discards what Python would still write to standard output as it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
