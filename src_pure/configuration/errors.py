"""Wrong input, said in one line that any terminal can show."""

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LONGEST_LINE = 10_000  # characters: a list of differences may be long

SHORT = reprlib.Repr(maxlevel=3, maxdict=8, maxlist=16, maxtuple=16, maxstring=120, maxlong=40, maxother=120)


class ConfigError(ValueError):
    """Wrong input, said in one line: what was wanted, what was found, what to change."""

    def __init__(self, message: object):
        super().__init__(one_line(message))


def one_line(message: object) -> str:
    """The message without line breaks; characters that would control a terminal are written as their codes."""
    line = " ".join(str(message).split())
    line = line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}..."
    return "".join(x if x.isprintable() else ascii(x)[1:-1] for x in line)


def shown(value: Any) -> str:
    """The value as Python writes it, cut off where it is long or deep."""
    return SHORT.repr(value)


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Whatever the block raises becomes a ConfigError that says where; for code that a configuration names."""
    try:
        yield
    except ConfigError:
        raise
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{what}: {error}") from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{what}: {type(error).__name__}: {error}") from error
