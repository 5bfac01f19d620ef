"""The swept keys of a sweep: their values as numbers, words or bins, and the text that shows them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from src_pure.errors import shortened
from src_pure.results.reading import RUN_COLUMNS, SEARCH_COLUMNS

MOST_LEVELS = 8  # a numeric key with more values is divided into bins
POINTS_PER_BIN = 5


class Groups(NamedTuple):
    """Points divided by the value of a key."""

    index: np.ndarray  # [P] the group of each point
    centers: np.ndarray  # [K] where the group lies on the key's axis
    labels: list[str]  # [K]


@dataclass(frozen=True)
class Key:
    """A swept key and its distinct values in order."""

    name: str  # dotted
    label: str  # shorter, unique among the keys of the sweep
    levels: tuple[Any, ...]
    numeric: bool
    log: bool  # whether the values are spread more evenly on a logarithmic axis
    binned: bool  # whether points are grouped by bins instead of levels: many numbers that are not those of a grid

    def on_axis(self, values: Sequence[Any]) -> np.ndarray:
        """Where values lie on the key's axis, [P]: the number itself, or the position among the levels."""
        if self.numeric:
            return np.array([float(value) for value in values])
        return np.array([self.levels.index(plain(value)) for value in values], float)

    def unit(self, values: Sequence[Any]) -> np.ndarray:
        """The same, scaled to 0..1, logarithmically if the key is."""
        scale = np.log if self.log else np.asarray
        places, ends = scale(self.on_axis(values)), scale(self.on_axis([self.levels[0], self.levels[-1]]))
        return (places - ends[0]) / (ends[1] - ends[0])

    def groups(self, values: Sequence[Any]) -> Groups:
        """Points by level, or in bins with about equally many points."""
        places = self.on_axis(values)
        if not self.binned:
            index = np.array([self.levels.index(plain(value)) for value in values])
            used, index = np.unique(index, return_inverse=True)
            levels = [self.levels[i] for i in used]
            return Groups(index, self.on_axis(levels), [tick(level) for level in levels])
        bins = int(np.clip(len(places) // POINTS_PER_BIN, 2, MOST_LEVELS))
        edges = np.quantile(places, np.linspace(0, 1, bins + 1)[1:-1])
        _, index = np.unique(np.searchsorted(edges, places, side="right"), return_inverse=True)
        members = [places[index == group] for group in np.unique(index)]
        labels = [f"{text(group.min())} to {text(group.max())}" for group in members]
        return Groups(index, np.array([np.median(group) for group in members]), labels)


def keys_of(runs: pd.DataFrame) -> list[Key]:
    """The swept keys that have more than one value, from the columns of runs.parquet."""
    names = [name for name in runs if name not in (*RUN_COLUMNS, *SEARCH_COLUMNS)]
    levels = {name: list(dict.fromkeys(map(plain, runs[name]))) for name in names}
    levels = {name: values for name, values in levels.items() if len(values) > 1}
    grid = math.prod(map(len, levels.values())) == len(runs[list(levels)].drop_duplicates())
    labels = short_names(list(levels))
    return [make_key(name, label, levels[name], grid) for name, label in zip(levels, labels, strict=True)]


def make_key(name: str, label: str, levels: list[Any], grid: bool) -> Key:
    """The key with its levels in order: numbers by size, anything else in order of appearance."""
    numeric = all(isinstance(level, int | float) and not isinstance(level, bool) for level in levels)
    if numeric:
        levels = sorted(levels)
    log = numeric and is_log_spaced(np.array(levels, float))
    return Key(name, label, tuple(levels), numeric, log, numeric and not grid and len(levels) > MOST_LEVELS)


def is_log_spaced(levels: np.ndarray) -> bool:
    """Whether sorted distinct numbers spread over a factor of 4 or more, more evenly by their logarithms."""
    if len(levels) < 3 or levels[0] <= 0 or levels[-1] < 4 * levels[0]:
        return False

    def unevenness(places: np.ndarray) -> float:
        """The largest distance from the straight line between both ends."""
        places = (places - places[0]) / (places[-1] - places[0])
        return float(np.abs(places - np.linspace(0, 1, len(places))).max())

    return unevenness(np.log(levels)) < unevenness(levels)


def short_names(names: Sequence[str]) -> list[str]:
    """The last part of each dotted name, with as many parts before it as tell the names apart."""
    short = []
    for name in names:
        parts = name.split(".")
        size = 1
        while any(other != name and other.split(".")[-size:] == parts[-size:] for other in names):
            size += 1
        short.append(".".join(parts[-size:]))
    return short


def plain(value: Any) -> Any:
    """A value of a table as a plain Python value; missing ones are None, lists are text."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return None
    return value if isinstance(value, bool | int | float | str) else str(value)


def text(value: Any) -> str:
    """A value as YAML and people write it, short: 3e-4, 1,024, true, null."""
    value = plain(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer() and 10 <= abs(value) < 1e6):
        return f"{int(value):,}"
    if not isinstance(value, float):
        return str(value)
    short = f"{value:.3g}"
    if "e" not in short and 0 < abs(value) < 1e-2:
        short = f"{value:.2e}"
    mantissa, e, exponent = short.partition("e")
    if not e:
        return short
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}e{int(exponent)}"


def tick(value: Any) -> str:
    """The value at a tick of an axis; long words lose their middle."""
    return shortened(text(value), 12)
