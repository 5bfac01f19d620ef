"""The points of a sweep: from its axes, all combinations or random draws; or from a table."""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml

from src_pure.config.compose import chosen
from src_pure.config.files import parse_yaml, read_bytes
from src_pure.config.names import COMPONENTS, known_names, unknown_choice
from src_pure.config.settings import Settings, Sweep, is_integer, is_section
from src_pure.config.sweep import axes_of, check_axis, is_sweep, sweep_settings
from src_pure.config.targets import parameters_of, resolve
from src_pure.errors import ConfigError, explain, one_line, shown

Values = dict[str, Any]  # of one point, by dotted key
RANGE = re.compile(r"(\w+)\((.*)\)", re.DOTALL)
MOST_POINTS = 1_000_000
DIGITS = 6  # significant digits of a drawn float, so that people can read and type it


class Range(NamedTuple):
    """What a random sweep draws from."""

    kind: str  # uniform | loguniform | choice
    arguments: tuple[Any, ...]
    integer: bool  # whole numbers, with both bounds

    def value(self, drawn: Any) -> Any:
        """A drawn value as it is used: with few digits."""
        return drawn if self.kind == "choice" or self.integer else rounded(drawn)

    @property
    def values(self) -> tuple[Any, ...] | None:
        """All values; None if there are too many to list."""
        if self.kind == "choice":
            return tuple(dict.fromkeys(self.arguments))
        low, high = self.arguments
        return tuple(range(low, high + 1)) if self.integer and high - low < MOST_POINTS else None

    def draw(self, random: np.random.Generator) -> Any:
        if self.kind == "choice":
            return self.arguments[random.integers(len(self.arguments))]
        low, high = self.arguments
        if self.kind == "uniform":
            return int(random.integers(low, high + 1)) if self.integer else rounded(random.uniform(low, high))
        if not self.integer:
            return rounded(math.exp(random.uniform(math.log(low), math.log(high))))
        # each whole number has the share of the logarithmic scale that rounds to it
        return round(math.exp(random.uniform(math.log(low - 0.5), math.log(high + 0.5))))


def values_of_all(ranges: Mapping[str, Range]) -> list[tuple[Any, ...]] | None:
    """All values of each range; None if their combinations are too many to list."""
    values = [found for each in ranges.values() if (found := each.values) is not None]
    countable = len(values) == len(ranges) and math.prod(map(len, values)) <= MOST_POINTS
    return values if countable else None


def points(config: dict[str, Any], trust: Sequence[str] = ()) -> list[Values]:
    """The points of a configuration's sweep, each by dotted key; a single one without values if it has no sweep."""
    if not is_sweep(config):
        return [{}]
    settings, axes = sweep_settings(config), axes_of(config)
    given = [name for name in ("file", "points") if getattr(settings, name) is not None]
    if len(given) + bool(axes) > 1:
        both = [f"sweep.{name}" for name in (*given, *axes)]
        raise ConfigError(f"{both[0]} and {both[1]} exclude each other: points come from axes or from one table")
    if given:
        return _listed(config, settings)
    if settings.mode == "search":
        raise ConfigError("sweep.mode=search chooses its points while it trains: start the same command in every job")
    if settings.mode == "random":
        return _drawn(axes, settings, {key: is_integer_key(config, key, trust) for key in axes})
    return _combined(axes)


def _combined(axes: Mapping[str, Any]) -> list[Values]:
    """Every combination of the values on the axes; the last axis changes fastest."""
    for key, values in axes.items():
        if isinstance(values, str) and RANGE.fullmatch(values):
            raise ConfigError(
                f"sweep.{key}={values} is a range: set sweep.mode=random and sweep.samples, or list values"
            )
        _check_list(key, values)
    number = math.prod(len(values) for values in axes.values())
    if number > MOST_POINTS:
        raise ConfigError(f"a sweep may have {MOST_POINTS:,} points, these axes have {number:,} combinations")
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def _drawn(axes: Mapping[str, Any], settings: Sweep, integer: Mapping[str, bool]) -> list[Values]:
    """`samples` different random points."""
    if settings.samples is None:
        raise ConfigError("sweep.mode=random needs the number of points: set sweep.samples=100")
    if settings.samples > MOST_POINTS:
        raise ConfigError(f"sweep.samples must be at most {MOST_POINTS:,}, got {settings.samples:,}")
    ranges = {key: parse_range(key, values, integer[key]) for key, values in axes.items()}
    random = np.random.default_rng(settings.random_seed)
    found: dict[str, Values] = {}
    for _ in range(100 * settings.samples):
        if len(found) == settings.samples:
            break
        point = {key: each.draw(random) for key, each in ranges.items()}
        found.setdefault(repr(point), point)
    if len(found) < settings.samples:
        raise ConfigError(f"sweep.samples={settings.samples}, but these axes have only {len(found)} different points")
    return list(found.values())


def parse_range(key: str, text: Any, integer: bool) -> Range:
    """The range on an axis; a list is a choice. Raises ConfigError for what is not a range."""
    if not isinstance(text, str):
        _check_list(key, text)
        return Range("choice", tuple(text), False)
    kinds, match = ("uniform", "loguniform", "choice"), RANGE.fullmatch(text.strip())
    if match is None or match[1] not in kinds:
        close = get_close_matches(match[1], kinds, n=1) if match else []
        hint = f"; did you mean {close[0]}({match[2]})?" if match and close else ""
        wanted = "a list, or uniform(a, b), loguniform(a, b) or choice(a, b, ...)"
        raise ConfigError(f"sweep.{key} must be {wanted}, got {shown(text)}{hint}")
    try:
        arguments = tuple(parse_yaml(f"[{match[2]}]"))
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"sweep.{key}={one_line(text)} cannot be read: {one_line(error)}") from error
    if match[1] == "choice":
        _check_list(key, list(arguments))
        return Range("choice", arguments, False)
    return _bounds(key, match[1], arguments, integer)


def _bounds(key: str, kind: str, arguments: tuple[Any, ...], integer: bool) -> Range:
    """The range between two numbers; raises ConfigError for bounds that are not in order or not possible."""
    text = f"sweep.{key}={kind}({', '.join(map(str, arguments))})"
    numbers = [x for x in arguments if isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x)]
    if len(arguments) != 2 or len(numbers) != 2:
        raise ConfigError(f"{text} must have two numbers, the lowest and the highest value")
    low, high = numbers
    if low >= high:
        hint = f"write {kind}({high}, {low})" if low > high else f"write [{low}]"
        raise ConfigError(f"{text} must have the lower bound first, then a higher one: {hint}")
    if kind == "loguniform" and low <= 0:
        raise ConfigError(f"{text} must have bounds above 0, because it draws logarithms")
    if integer and any(x != int(x) for x in numbers):
        raise ConfigError(f"{text} must have whole bounds, because {key} is a whole number")
    return Range(kind, (int(low), int(high)) if integer else (float(low), float(high)), integer)


def _check_list(key: str, values: Any) -> None:
    if not isinstance(values, list):
        raise ConfigError(f"sweep.{key} must be a list of values, such as [{values}], got {shown(values)}")
    if not values:
        raise ConfigError(f"sweep.{key} must have at least one value, got []")


def rounded(value: float) -> float:
    """The value with as many digits as people can read and type."""
    return float(f"{value:.{DIGITS}g}")


def is_integer_key(config: dict[str, Any], key: str, trust: Sequence[str]) -> bool:
    """Whether a key is declared as a whole number; where nothing is declared, whether its value is one."""
    top, _, name = key.partition(".")
    if top in COMPONENTS:
        annotation = parameters_of(resolve(config[top]["_target_"], top, trust), top).get(name, Any)
    else:
        annotation: Any = Settings
        for part in key.split("."):
            annotation = annotation.model_fields[part].annotation if is_section(annotation) else Any
    if annotation is not Any:
        return is_integer(annotation)
    for part in key.split("."):
        config = config.get(part, {}) if isinstance(config, dict) else {}
    return isinstance(config, int)


def _listed(config: dict[str, Any], settings: Sweep) -> list[Values]:
    """The points of a table; raises ConfigError naming the first wrong one."""
    source = "sweep.points" if settings.file is None else f"sweep.file={settings.file}"
    listed: Any = settings.points if settings.file is None else read_points(Path(settings.file))
    if not (isinstance(listed, list) and listed and all(isinstance(point, dict) and point for point in listed)):
        raise ConfigError(f"{source} must have at least one point, each of dotted keys and values")
    for number, point in enumerate(listed):
        for key in point:
            check_axis(config, str(key))
        if point.keys() != listed[0].keys():
            key = min(point.keys() ^ listed[0].keys())
            raise ConfigError(f"{source}: point {number} must have the keys of the first, {key} is in only one of them")
    return [{key: _component(key, value) for key, value in point.items()} for point in listed]


def _component(key: str, value: Any) -> Any:
    """The value of a key; the name of a component becomes the content of its file."""
    if key not in COMPONENTS or not isinstance(value, str):
        return value
    if value not in known_names(key):
        raise unknown_choice(key, value)
    return chosen([f"{key}={value}"])[key]


def read_points(path: Path) -> list[Values]:
    """The rows of a table; raises ConfigError for a file that is not one, OSError for one that cannot be read."""
    if not path.is_file():
        raise ConfigError(f"sweep.file={path} cannot be read: no such file")
    try:
        if path.suffix == ".yaml":
            return parse_yaml(read_bytes(path).decode())
        if path.suffix not in (".csv", ".parquet"):
            raise ConfigError(f"sweep.file must end in .csv, .parquet or .yaml, got {path}")
        table = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except (ValueError, yaml.YAMLError, pd.errors.ParserError) as error:
        raise (
            error if isinstance(error, ConfigError) else ConfigError(f"sweep.file={path}: {explain(error)}")
        ) from error
    if table.isna().to_numpy().any():
        row, column = np.argwhere(table.isna().to_numpy())[0]
        raise ConfigError(f"sweep.file={path}: row {row + 1} has no value of {table.columns[column]}")
    return table.astype(object).to_dict("records")
