"""What a user sees when something is wrong: one line on standard error and an exit code, never a traceback.

An exception that a user can mend has an `exit_code`.
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
LONGEST_LINE = 10_000  # characters of an error: a list of differences may be long
SHORT = reprlib.Repr()  # its arguments are new in Python 3.12
SHORT.maxlevel, SHORT.maxdict, SHORT.maxlist, SHORT.maxtuple = 3, 8, 16, 16
SHORT.maxstring, SHORT.maxlong, SHORT.maxother = 120, 40, 120
# what the system says of a path that was not meant; anything else, such as a full disk, is the machine's state
WRONG_PATH = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)
WRONG_NAME = {errno.ELOOP, errno.ENAMETOOLONG}


class ConfigError(ValueError):
    """Wrong input, said in one line: what was wanted, what was found, what to change."""

    exit_code = WRONG_INPUT

    def __init__(self, message: object):
        super().__init__(one_line(message, LONGEST_LINE))


class CheckpointError(RuntimeError):
    """A checkpoint, a policy taken out of one, or a table that cannot be written or used."""

    exit_code = WRONG_INPUT


class CannotWriteError(CheckpointError):
    """A checkpoint or a policy that could not be put on disk."""

    exit_code = CANNOT_WRITE


class DamagedError(CheckpointError):
    """A checkpoint, a policy or a table whose content was read and is not what was written."""


class RemovedError(CheckpointError):
    """A checkpoint that its training removed while another process read it: there is a newer one."""


class OddFileError(CheckpointError):
    """Something that this project never makes lies where it keeps a file or folder: a link, a pipe, a device."""


class ForeignError(CheckpointError):
    """A file in a run folder that belongs to another run."""


class MovedError(OSError):
    """The run folder was moved, deleted or replaced since it was opened."""

    exit_code = CANNOT_WRITE


class LockedError(RuntimeError):
    """Another process works on the run folder."""

    exit_code = 5


class NumericalError(RuntimeError):
    """The loss, parameters, observations or rewards of runs are not finite any more."""

    exit_code = 3


class DeviceError(RuntimeError):
    """The device, or the compiler for it, failed."""

    exit_code = 6


class Preempted(Exception):
    """Training stopped because a signal asked it to; what there was to save is saved."""

    exit_code = 75  # EX_TEMPFAIL: try again later


class Interrupted(Preempted):
    """The signal was Ctrl-C."""

    exit_code = INTERRUPTED


class Main(Protocol):
    """A program: its exit code for a command line, None: that of the process."""

    def __call__(self, command_line: Sequence[str] | None = None) -> int: ...


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are ConfigErrors."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see --help")


def between(kind: type[Kind], low: float, high: float) -> Callable[[str], Kind]:
    """The type of an argument that is a number from low to high, both included."""

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
    """main(command_line) whose errors are one line and an exit code; what has no exit code is a bug, and stays one.

    A reader of standard output that stops reading, such as `head`, ends it quietly.
    """

    @wraps(main)
    def run(command_line: Sequence[str] | None = None) -> int:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a path may have letters that the terminal has not
        try:
            try:
                code = main(command_line)
            except SystemExit as end:  # of --help
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
    """The exit code that an error stands for; None for a bug."""
    if isinstance(error, OSError):
        wrong = isinstance(error, WRONG_PATH) or error.errno in WRONG_NAME
        return getattr(error, "exit_code", WRONG_INPUT if wrong else CANNOT_WRITE)
    if isinstance(error, MemoryError):
        return CANNOT_WRITE
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return getattr(error, "exit_code", None)


def explain(error: BaseException) -> str:
    """What an error says, in words that stand alone."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, MemoryError):
        return f"out of memory: {error}" if str(error) else "out of memory"
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def stop(code: int, message: object) -> int:
    """The exit code, explained in one line as far as anybody reads it."""
    with suppress(OSError):
        print(f"error: {one_line(message, LONGEST_LINE)}", file=sys.stderr)
    return code


def one_line(message: object, limit: int = 300) -> str:
    """The message in one line of printable characters, its middle left out where it is too long."""
    text = " ".join(str(message).split())
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shortened(text, limit)


def shortened(text: str, limit: int) -> str:
    """The text, its middle left out where it is longer than the limit."""
    return text if len(text) <= limit else f"{text[: limit // 2]} ... {text[-limit // 2 :]}"


def shown(value: Any) -> str:
    """The value as Python writes it, cut off where it is long or deep."""
    return SHORT.repr(value)


@contextmanager
def naming(what: str) -> Generator[None]:
    """Whatever the block raises becomes a ConfigError that says where; for code that a configuration names."""
    try:
        yield
    except ConfigError:
        raise
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{what}: {error}") from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{what}: {type(error).__name__}: {error}") from error


def _flushed(code: Any) -> int:
    """The exit code, once all that was printed is on its way."""
    try:
        print(end="", flush=True)
        return code
    except BrokenPipeError:
        raise
    except OSError as error:
        _silence()
        return stop(CANNOT_WRITE, f"standard output cannot be written: {error}")


def _silence() -> None:
    """What Python still writes to standard output when it ends goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
