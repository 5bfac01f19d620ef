"""Tables of numbers that should not grow: JSON files of previews and benchmarks."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from src_pure.errors import ConfigError
from src_pure.runs.atomic import replacing

TOLERANCE = 0.05
IGNORED = ("compile_seconds", "lanes", "lanes_per_block", "env_steps")  # noise, and what was asked for
MORE_IS_BETTER = ("per_second",)  # endings of names


class Change(NamedTuple):
    """One number of two tables."""

    name: str  # dotted
    old: float
    new: float

    @property
    def ratio(self) -> float:
        return self.new / self.old if self.old else float("inf") if self.new else 1.0

    @property
    def is_worse(self) -> bool:
        """Whether it grew, or for a speed shrank, by more than the tolerance."""
        if self.name.endswith(MORE_IS_BETTER):
            return self.new * (1 + TOLERANCE) < self.old
        return self.new > self.old * (1 + TOLERANCE)


def read_table(path: Path) -> dict[str, Any]:
    """The table of a file; raises ConfigError if it is not one."""
    try:
        table = json.loads(path.read_text())
    except ValueError as error:
        raise ConfigError(f"{path} must be JSON: {error}") from error
    if not isinstance(table, dict):
        raise ConfigError(f"{path} must hold names and numbers, got a {type(table).__name__}")
    return table


def write_table(path: Path, table: Mapping[str, Any]) -> None:
    """Replaces the file by a table in which equal tables are equal text."""
    with replacing(path) as file:
        file.write((json.dumps(table, indent=1, sort_keys=True) + os.linesep).encode())


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """The numbers that both tables have, by name."""
    before, after = dict(_numbers(old)), dict(_numbers(new))
    return [Change(name, before[name], after[name]) for name in sorted(before.keys() & after.keys())]


def _numbers(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{name}: ")
        elif isinstance(value, int | float) and not isinstance(value, bool) and key not in IGNORED:
            yield name, float(value)
