"""Command-line overrides: their grammar, and what each one changes in a configuration.

GROUP=NAME        chooses a component by its YAML file; groups: task, model, encoder, policy, algo
+GROUP=NAME       chooses a published experiment
KEY=VALUE         sets a dotted key. A text key takes everything after the first =, without one pair of enclosing
                  quotes; a bare null is null. Others take a plain YAML value: 3, 1e-3, true, null, [1, 2], {a: 1}
+KEY=VALUE        the same, also for a key that the configuration lacks
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import yaml

from src_pure.config.files import parse_yaml
from src_pure.config.names import (
    COMPONENTS,
    dotted,
    experiment_groups,
    known_names,
    unknown_choice,
    unknown_key,
)
from src_pure.config.settings import is_text
from src_pure.config.validation import MAX_DEPTH
from src_pure.errors import ConfigError, shown


class Override(NamedTuple):
    given: str  # as it was typed
    new: bool  # begins with +: the key may be missing from the configuration
    key: str
    text: str  # everything after the first =


def parse(given: str) -> Override:
    """The parts of an argument; raises ConfigError if it has no meaning."""
    name, equals, text = given.partition("=")
    name = name.strip()
    key, start = name.lstrip("+"), given[:100]
    if name.startswith("~"):
        raise ConfigError(f"{start}: nothing can be deleted from a configuration, only set to another value")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"an argument must be KEY=VALUE, got {start!r}; see --help")
    if key == "trust":
        raise ConfigError(f"trust is an option of the command line: write --{start.lstrip('+')}")
    if key.partition(".")[0] == "hydra":
        raise ConfigError(f"{start}: Hydra's own settings have no meaning here")
    return Override(given, name != key, key, text)


def is_choice(override: Override) -> bool:
    """Whether the override chooses a whole YAML file rather than setting a value."""
    return override.key in COMPONENTS or override.key in experiment_groups()


def choices(overrides: Sequence[Override]) -> list[str]:
    """The group choices among the overrides, in Hydra's syntax; the last one wins if a component is named twice."""
    chosen = {}
    for override in filter(is_choice, overrides):
        key, text, component = override.key, override.text, override.key in COMPONENTS
        if text not in known_names(key):
            raise unknown_choice(key if component else f"+{key}", text)
        if component and override.new:
            raise ConfigError(f"{override.given}: {key} always exists, so write {key}={text}")
        if not component and not override.new:
            raise ConfigError(f"{key} is a group of experiments: write +{override.given}")
        chosen[key if component else override.given] = f"{key}={text}" if component else f"+{key}={text}"
    experiments = [choice for choice in chosen.values() if choice.startswith("+")]
    if len(experiments) > 1:
        raise ConfigError(f"a training has one experiment: leave out {' and '.join(experiments[1:])}")
    return list(chosen.values())


def apply(config: dict[str, Any], override: Override) -> None:
    """Sets a value in a configuration, in place; raises ConfigError for an unknown key."""
    *parents, name = override.key.split(".")
    if len(parents) > MAX_DEPTH:
        raise unknown_key(override.key, known_keys(config))
    section, path = config, ""
    for parent in parents:
        path += f"{parent}."
        inner = section.get(parent)
        if inner is None and override.new and not is_text(path[:-1]):
            inner = section[parent] = {}
        if inner is None and parent in section and not is_text(path[:-1]):
            raise ConfigError(f"{override.key} does not exist yet: write +{override.given[:100]}")
        if inner is None and parent not in section:
            raise unknown_key(override.key, known_keys(config))
        if not isinstance(inner, dict):
            raise ConfigError(f"{path[:-1]} is a single value, so {override.key} cannot be set")
        section = inner
    if name not in section and not override.new:
        raise unknown_key(override.key, known_keys(config))
    section[name] = merged(config, section.get(name), value_of(override, section.get(name)), override)


def merged(config: dict[str, Any], old: Any, value: Any, override: Override, key: str = "") -> Any:
    """The new value; if both are dictionaries, the old one updated with the entries of the new one."""
    if not (isinstance(old, dict) and isinstance(value, dict)):
        return value
    for name in value:
        if name not in old and not override.new:
            raise unknown_key(f"{key or override.key}.{name}", known_keys(config))
    changed = {
        name: merged(config, old.get(name), item, override, f"{key or override.key}.{name}")
        for name, item in value.items()
    }
    return old | changed


def value_of(override: Override, old: Any) -> Any:
    """The value of an override's text; `old` is the value that it replaces."""
    key, text = override.key, override.text
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    if is_text(key):
        return text[1:-1] if quoted else None if text == "null" else text
    try:
        value = parse_yaml(text)
        if isinstance(value, dict) and any(":" in name and item is None for name, item in value.items()):
            value = parse_yaml(re.sub(r"""("[^"]*"|'[^']*')|:(?=\S)""", lambda part: part[1] or ": ", text))  # {a:1}
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(
            f"{key} must be a value such as 3, 1e-3, true, null, [1, 2] or {{a: 1}}, got {shown(text)}"
        ) from error
    if not quoted:
        _check_one_value(override, value, old)
    return value


def _check_one_value(override: Override, value: Any, old: Any) -> None:
    """Raises ConfigError for several values, such as 1,2 or range(3) in Hydra sweeps, and for a decimal comma, 0,1."""
    key, name, text = override.key, override.given.partition("=")[0].strip(), override.text[:100]
    call = re.fullmatch(r"\w*\((.*)\)", text)
    several = isinstance(value, str) and ("," in text or call)
    if key == "seed" and isinstance(value, str | list):
        raise ConfigError(f"seed must be one value, got {text}; {_several_seeds(text)}")
    if isinstance(old, list) and several:
        inner = call[1] if call else text
        raise ConfigError(f"{key} must be a list, got {text}: write {name}=[{inner}]")
    if several and isinstance(old, float) and re.fullmatch(r"-?\d+,\d+", text):
        raise ConfigError(
            f"{key} must be one value, got {text}; with a decimal point write {name}={text.replace(',', '.')}"
        )
    if several or (isinstance(value, list) and isinstance(old, int | float)):
        if isinstance(value, list) and len(value) == 1:
            raise ConfigError(f"{key} must be one value, got {text}: write {name}={value[0]}")
        values = (str(value)[1:-1] if isinstance(value, list) else call[1] if call else text).replace(" ", "")
        raise ConfigError(
            f"{key} must be one value, got {text}; for several settings write sweep.{key}=[{values or old}]"
        )


def _several_seeds(text: str) -> str:
    """The advice for a text that seems to name several seeds."""
    numbers = [int(number) for number in re.findall(r"\d{1,9}", text)]
    seeds = range(*numbers) if text.startswith("range(") and 1 <= len(numbers) <= 2 else numbers
    if len(seeds) > 1 and all(after - before == 1 for before, after in pairwise(seeds[:100])):
        return f"for these seeds write seed={seeds[0]} num_seeds={len(seeds)}"
    return "the seeds of a command follow each other: for 0, 1 and 2 write seed=0 num_seeds=3"


def known_keys(config: dict[str, Any]) -> list[str]:
    hidden = [f"{group}.{name}" for group in COMPONENTS for name in ("_target_", "name")]
    keys = [name for name in dotted(config) if name not in hidden]
    return [*keys, *COMPONENTS, *(f"+{group}" for group in experiment_groups())]
