"""A training as objects; several that differ only in numbers can be joined into one program."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax

from src_pure.algos.base import Algorithm
from src_pure.config.files import to_yaml
from src_pure.config.names import dotted
from src_pure.config.settings import Settings
from src_pure.config.validation import validate
from src_pure.envs import optional
from src_pure.envs.vector import VectorEnv
from src_pure.errors import ConfigError, shown
from src_pure.lanes import Lane, Numbers, SeedLanes, repeat, stack
from src_pure.models.policy import Policy
from src_pure.types import NonNegativeInt

LANES = "lanes"  # the configuration's key for the seed and the numbers of each lane


@dataclass(frozen=True)
class Experiment:
    """Everything that a configuration describes, as objects."""

    name: str  # <task>-<model>-<algo>
    settings: Settings
    env: VectorEnv
    evaluation_env: VectorEnv
    evaluation_steps: int  # evaluation cuts off an episode after this many
    policy: Policy
    algo: Algorithm
    lanes: Sequence[Lane]
    config: dict[str, Any]  # resolved; sufficient to reproduce the run
    alone: tuple["Experiment", ...] = ()  # one for each lane; empty: the lanes differ only in their seeds

    @property
    def config_yaml(self) -> str:
        return to_yaml(self.config)

    def numbers(self) -> Numbers:
        """The numbers of all lanes, leaves [R, ...]."""
        if not self.alone:
            return repeat(Numbers(self.algo, None), len(self.lanes))
        same_task = not any(key.startswith("task.") for key in self.lanes[0].values)
        return stack([Numbers(each.algo, None if same_task else each.env.params) for each in self.alone])

    def of_lane(self, position: int) -> "Experiment":
        """The Experiment that trains one lane on its own."""
        return replace(self.alone[position] if self.alone else self, lanes=(self.lanes[position],))


def side_by_side(experiments: Sequence[Experiment], lanes: Sequence[Lane] | None = None) -> Experiment:
    """One Experiment that trains the given ones, of one lane each, in one program.

    They may differ in their seeds, in numbers of the algorithm and in `numbers` of the task. lanes: their numbers as
    runs, seeds and values; by default runs 0, 1, ... and the values that differ. Raises ConfigError, naming the key, if
    the experiments differ in anything else.
    """
    first = experiments[0]
    configs = [dotted(experiment.config) for experiment in experiments]
    names = [name for name in sorted({name for config in configs for name in config}) if varies(name, configs)]
    for name in {*names, *(lanes[0].values if lanes else ())}:
        check_varies_by_lane(name, first, configs)
    if any(len(experiment.lanes) != 1 for experiment in experiments):
        raise ConfigError("lanes must have one seed each: set num_seeds=1")
    if lanes is None:
        names = [name for name in names if name != "seed"]
        lanes = tuple(
            Lane(run, experiment.lanes[0].seed, {name: config[name] for name in names})
            for run, (experiment, config) in enumerate(zip(experiments, configs, strict=True))
        )
    return replace(
        first,
        evaluation_steps=max(experiment.evaluation_steps for experiment in experiments),
        lanes=lanes,
        config=first.config | {LANES: [{"run": lane.run, "seed": lane.seed, **lane.values} for lane in lanes]},
        alone=tuple(experiments),
    )


def lanes_of(config: dict[str, Any]) -> tuple[Lane, ...]:
    """The lanes that a configuration lists; raises ConfigError for a list that is not one of lanes."""
    entries = config[LANES]
    if not (isinstance(entries, list) and entries and all(isinstance(entry, dict) for entry in entries)):
        raise ConfigError(f"{LANES} must be a list with the seed and the numbers of each lane, got {shown(entries)}")
    lanes = []
    for position, entry in enumerate(entries):
        values = {name: value for name, value in entry.items() if name not in ("run", "seed")}
        run = validate(NonNegativeInt, entry.get("run", position), f"{LANES}.run")
        lanes.append(
            Lane(run, validate(NonNegativeInt, entry.get("seed", config.get("seed")), f"{LANES}.seed"), values)
        )
    for lane in lanes:
        if lane.values.keys() != lanes[0].values.keys():
            name = min(lane.values.keys() ^ lanes[0].values.keys())
            raise ConfigError(f"{name} must be given for every lane, or for none")
    if len({lane.run for lane in lanes}) < len(lanes):
        raise ConfigError(f"{LANES}.run must be another number for each lane")
    return tuple(lanes)


def with_seed(experiment: Experiment, seed: int) -> Experiment:
    """The experiment with one lane, of this seed."""
    return replace(
        experiment,
        settings=experiment.settings.model_copy(update={"seed": seed, "num_seeds": 1}),
        lanes=SeedLanes([seed]),
        config=experiment.config | {"seed": seed, "num_seeds": 1},
    )


def with_values(config: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with these values for dotted keys."""
    for key, value in values.items():
        section, _, name = key.partition(".")
        if name:
            value = with_values(config[section] if isinstance(config.get(section), dict) else {}, {name: value})
        config = config | {section: value}
    return config


def varies(name: str, configs: Sequence[dict[str, Any]]) -> bool:
    """Whether a dotted key differs between the configurations, or some of them lack it."""
    return any(name not in config or config[name] != configs[0].get(name) for config in configs)


def lane_keys(experiment: Experiment) -> list[str]:
    """The keys in which lanes of one program may differ: numbers of the algorithm and of the task."""
    leaves = {path[0].name for path, _ in jax.tree_util.tree_leaves_with_path(experiment.algo)}
    numbers = optional.numbers(experiment.env.env)
    return [*sorted(f"algo.{name}" for name in leaves), *sorted(f"task.{name}" for name in numbers)]


def is_lane_key(name: str, keys: Sequence[str]) -> bool:
    """Whether a dotted key is one of these lane keys, or lies inside one, as in task.params.max_torque."""
    return ".".join(name.split(".")[:2]) in keys


def check_varies_by_lane(name: str, experiment: Experiment, configs: Sequence[dict[str, Any]]) -> None:
    """Raises ConfigError if the lanes of one program cannot differ in this key."""
    known = lane_keys(experiment)
    if name != "seed" and not is_lane_key(name, known):
        values = " and ".join(sorted({repr(config.get(name)) for config in configs}))
        raise ConfigError(f"lanes of one program may differ in {', '.join(['seed', *known])}; {name} is {values}")
    if any(name not in config for config in configs):
        raise ConfigError(f"{name} must be given for every lane, or for none")
