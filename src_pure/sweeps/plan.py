"""The plan of a command: which runs it trains, in which programs, and how many of them together."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from src_pure.build import build
from src_pure.config.names import COMPONENTS, dotted
from src_pure.config.sweep import one_point, sweep_settings
from src_pure.device import GIB, all_memory
from src_pure.errors import ConfigError, shown
from src_pure.experiment import Experiment, is_lane_key, lane_keys, side_by_side, with_seed, with_values
from src_pure.lanes import Lane
from src_pure.runs.blocks import bytes_of_lane
from src_pure.runs.identity import config_digest
from src_pure.sweeps.points import Values, points

MOST_RUNS = 1_000_000
COPIES = 4  # of the state and one rollout: what a lane of a batch may take of the memory


class Point(NamedTuple):
    """One setting of a sweep."""

    number: int
    values: Values  # by dotted key
    experiment: Experiment  # that trains it alone, with its first seed


@dataclass(frozen=True)
class Group:
    """Points that one program trains: they differ only in what lanes may differ in."""

    points: tuple[Point, ...]
    num_seeds: int
    swept: tuple[str, ...]  # the keys that differ between its points

    @property
    def num_lanes(self) -> int:
        return len(self.points) * self.num_seeds

    def lanes(self) -> Iterator[tuple[Lane, Point]]:
        """Every run of the group with its point; runs are numbered over the whole sweep."""
        for point in self.points:
            first = point.experiment.settings.seed
            values = {key: point.values[key] for key in self.swept}
            for index in range(self.num_seeds):
                yield Lane(point.number * self.num_seeds + index, first + index, values), point


@dataclass(frozen=True)
class Batch:
    """Runs that train together, in one run folder."""

    program: int  # number of its group
    lanes: tuple[Lane, ...]
    points: tuple[Point, ...]  # one for each lane

    def experiment(self) -> Experiment:
        """The Experiment that trains the batch."""
        alone = [with_seed(point.experiment, lane.seed) for lane, point in zip(self.lanes, self.points, strict=True)]
        return side_by_side(alone, self.lanes)


@dataclass(frozen=True)
class Plan:
    """Everything that a sweep trains."""

    groups: tuple[Group, ...]
    batches: tuple[Batch, ...]
    num_points: int
    num_seeds: int

    @property
    def name(self) -> str:
        """<task>-<model>-<algo> of the first point."""
        return self.groups[0].points[0].experiment.name

    @property
    def num_runs(self) -> int:
        return self.num_points * self.num_seeds

    def __str__(self) -> str:
        parts = [
            f"{self.name}: {counted(self.num_points, 'point')} x {counted(self.num_seeds, 'seed')}",
            counted(self.num_runs, "run"),
            counted(len(self.groups), "program"),
            counted(len(self.batches), "batch", "batches"),
        ]
        return "\n".join([", ".join(parts), *(f"  {key}: {cost}" for key, cost in self.keys().items())])

    def keys(self) -> dict[str, str]:
        """What each swept key costs: `side by side` in one program, or `a program each`."""
        first = self.groups[0].points[0]
        together = [set(group.swept) for group in self.groups]
        return {key: "side by side" if key in set.union(*together) else "a program each" for key in first.values}


def counted(number: int, one: str, many: str = "") -> str:
    """The number with its noun."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def tally(states: Iterable[str]) -> str:
    """How many there are of each state, in order of appearance: 3 finished, 1 failed."""
    return ", ".join(f"{number:,} {state}" for state, number in Counter(states).items())


def make_plan(config: dict[str, Any], trust: Sequence[str] = (), available: int | None = None) -> Plan:
    """The plan of a sweep; every point is built and checked. Raises ConfigError that names the first wrong point.

    available: bytes on all devices; None: on those of this process.
    """
    settings = sweep_settings(config)
    base = one_point(config)
    found = [_build(number, values, base, trust) for number, values in enumerate(points(config, trust))]
    num_seeds = found[0].experiment.settings.num_seeds
    if len(found) * num_seeds > MOST_RUNS:
        raise ConfigError(f"a sweep may have {MOST_RUNS:,} runs, this has {len(found):,} points x {num_seeds:,} seeds")
    _refuse_equal(found)
    groups = tuple(_group(members, num_seeds) for members in _grouped(found))
    batches = tuple(
        batch
        for number, group in enumerate(groups)
        for batch in _batches(number, group, _lanes_per_batch(group, settings.lanes_per_batch, available))
    )
    return Plan(groups, batches, len(found), num_seeds)


def _build(number: int, values: Values, base: dict[str, Any], trust: Sequence[str]) -> Point:
    try:
        experiment = build(with_values(base, values), trust)
    except ConfigError as error:
        raise ConfigError(f"point {number} ({described(values)}): {error}") from error
    return Point(number, values, experiment)


def described(values: Values) -> str:
    """The values of a point as one types them; components by their names."""
    return ", ".join(f"{key}={shown_value(key, value)}" for key, value in values.items())


def shown_value(key: str, value: Any) -> Any:
    """The value of a swept key in a table or a message: numbers and text as they are, components by their names."""
    if key in COMPONENTS and isinstance(value, dict):
        return value.get("name", key)
    return value if isinstance(value, int | float | str) else shown(value)


def _refuse_equal(found: Sequence[Point]) -> None:
    """Raises ConfigError if two points are the same training, such as with 0.001 and 1e-3."""
    known: dict[tuple[str, int], Point] = {}
    for point in found:
        config = point.experiment.config
        key = (config_digest(_as_numbers(config)), point.experiment.settings.total_steps)
        if (other := known.setdefault(key, point)) is not point:
            raise ConfigError(
                f"points {other.number} ({described(other.values)}) and {point.number} ({described(point.values)}) are "
                "the same run: leave one out"
            )


def _as_numbers(value: Any) -> Any:
    """The configuration with 1.0 for 1, which train the same."""
    if isinstance(value, dict):
        return {key: _as_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_numbers(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _grouped(found: Sequence[Point]) -> list[list[Point]]:
    """The points by program: those that agree in everything but the numbers of lanes."""
    groups: dict[str, list[Point]] = {}
    for point in found:
        experiment = point.experiment
        keys = lane_keys(experiment)
        fixed = {key: x for key, x in dotted(experiment.config).items() if not is_lane_key(key, keys)}
        numbers = jax.tree.map(
            lambda x: (jnp.shape(x), str(jnp.result_type(x))), (experiment.algo, experiment.env.params)
        )
        groups.setdefault(json.dumps([fixed, str(numbers)], sort_keys=True, default=str), []).append(point)
    return list(groups.values())


def _group(members: Sequence[Point], num_seeds: int) -> Group:
    keys = lane_keys(members[0].experiment)
    return Group(tuple(members), num_seeds, tuple(key for key in members[0].values if is_lane_key(key, keys)))


def _lanes_per_batch(group: Group, wanted: int | None, available: int | None) -> int:
    """The most lanes of a batch; raises ConfigError if more are wanted than memory can hold.

    Besides its state, a lane needs room for the copy that a checkpoint is written from and for its rows.
    """
    available, needed = available or all_memory(), COPIES * bytes_of_lane(group.points[0].experiment)
    most = max(1, available // needed)
    if wanted is not None and min(wanted, group.num_lanes) > most:
        raise ConfigError(
            f"sweep.lanes_per_batch={wanted:,} does not fit into {available / GIB:,.1f} GiB: about "
            f"{needed / 1e6:,.1f} MB for each lane leave room for {most:,}"
        )
    return wanted or most


def _batches(program: int, group: Group, width: int) -> Iterator[Batch]:
    """The runs of a group in as few batches as possible, whose sizes differ by at most one."""
    lanes = list(group.lanes())
    number = math.ceil(len(lanes) / width)
    for index in range(number):
        part = lanes[index * len(lanes) // number : (index + 1) * len(lanes) // number]
        yield Batch(program, tuple(lane for lane, _ in part), tuple(point for _, point in part))
