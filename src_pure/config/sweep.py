"""The section `sweep` of a configuration: axes, the keys that differ between points, next to settings of its own.

sweep.algo.learning_rate=[1e-4, 3e-4]   an axis: every value of a list
sweep.algo.gamma=uniform(0.9, 0.99)     an axis: draws from a range
sweep.mode=random                       a setting, see settings.Sweep
"""

from collections.abc import Callable, Sequence
from typing import Any

import yaml

from src_pure.config.files import parse_yaml
from src_pure.config.names import (
    COMPONENTS,
    OF_COMMAND,
    SWEEP,
    dotted,
    harmless,
    known_names,
    unknown_choice,
    unknown_key,
)
from src_pure.config.overrides import Override, is_choice
from src_pure.config.settings import Sweep
from src_pure.config.validation import validate
from src_pure.errors import ConfigError, shown


def is_axis(override: Override) -> bool:
    """Whether an override names an axis of the sweep."""
    top, _, key = override.key.partition(".")
    return top == SWEEP and bool(key) and key not in Sweep.model_fields


def add_axis(config: dict[str, Any], override: Override) -> None:
    """Adds an axis to a configuration, in place; raises ConfigError for an unknown key or for what is not an axis."""
    key, text = override.key.partition(".")[2], override.text
    check_axis(config, key, override.new)
    try:
        values = parse_yaml(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"sweep.{key} must be a list such as [1, 2] or a range, got {shown(text)}") from error
    section = config[SWEEP]
    *parents, name = key.split(".")
    for parent in parents:
        section = section.setdefault(parent, {})
        if not isinstance(section, dict):
            raise ConfigError(f"sweep.{parent} and sweep.{key} exclude each other; list the points in sweep.file")
    if isinstance(section.get(name), dict):
        raise ConfigError(f"sweep.{key} and sweep.{key}.{min(section[name])} exclude each other; list the points in "
                          "sweep.file")  # fmt: skip
    section[name] = values


def check_axis(config: dict[str, Any], key: str, new: bool = False) -> None:
    """Raises ConfigError unless points may differ in a key.

    new: the configuration may lack it. Sections inside a component, such as task.params, are free: they may always.
    """
    if key in ("seed", "num_seeds"):
        raise ConfigError(f"sweep.{key}: every point trains the same seeds; for three of them write num_seeds=3")
    if harmless(key) or key in OF_COMMAND:
        raise ConfigError(f"sweep.{key}: all points would be the same, because {key} does not change what they compute")
    known = [name for name in (*dotted(config), *COMPONENTS) if not (harmless(name) or name.endswith("._target_"))]
    known = [name for name in known if name.split(".")[0] not in ("seed", "num_seeds", *OF_COMMAND)]
    parent = key.rpartition(".")[0]
    free = "." in parent and any(name == parent or name.startswith(f"{parent}.") for name in known)
    if key not in known and not free and not (new and "." in key):
        raise unknown_key(f"{SWEEP}.{key}", [f"{SWEEP}.{name}" for name in [*known, *Sweep.model_fields]])


def axes_of(config: dict[str, Any]) -> dict[str, Any]:
    """The axes of a configuration by dotted key: a list of values, or the text of a range."""
    section = config.get(SWEEP) or {}
    return dotted({name: value for name, value in section.items() if name not in Sweep.model_fields})


def sweep_settings(config: dict[str, Any]) -> Sweep:
    """The settings of the sweep; raises ConfigError for a wrong one."""
    section = config[SWEEP]
    return validate(Sweep, {name: value for name, value in section.items() if name in Sweep.model_fields}, SWEEP)


def is_sweep(config: dict[str, Any]) -> bool:
    """Whether a configuration describes many points; raises ConfigError if its section is not one."""
    if not isinstance(section := config.get(SWEEP) or {}, dict):
        raise ConfigError(f"sweep is a section: set its values as sweep.NAME=VALUE, got {shown(section)}")
    listed = any(section.get(name) is not None for name in ("file", "points"))
    return listed or section.get("mode") == "search" or bool(axes_of(config))


def is_search(config: dict[str, Any]) -> bool:
    """Whether a configuration describes a search; raises ConfigError if its section `sweep` is not one."""
    return is_sweep(config) and config[SWEEP].get("mode") == "search"


def one_point(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration without the keys of a command, such as `sweep`, which do not describe a training."""
    return {name: value for name, value in config.items() if name not in OF_COMMAND}


def resolve_components(config: dict[str, Any], component: Callable[[str, str], dict[str, Any]]) -> None:
    """Replaces the names on axes of components by their sections, in place, so that the configuration is complete.

    component(group, name) -> section.
    """
    for group in COMPONENTS:
        axis = config[SWEEP].get(group)
        if isinstance(axis, list):
            for name in (name for name in axis if not isinstance(name, dict)):
                if name not in known_names(group):
                    raise unknown_choice(group, str(name))
            config[SWEEP][group] = [x if isinstance(x, dict) else component(group, x) for x in axis]


def of_one_point(overrides: Sequence[Override], group: str, name: str) -> list[Override]:
    """The overrides that a command line for one point would have: without the sweep, with one component chosen."""
    others = [x for x in overrides if x.key.partition(".")[0] not in OF_COMMAND]
    return [
        *(x for x in others if not (is_choice(x) and x.key == group)),
        Override(f"{group}={name}", False, group, name),
    ]
