"""YAML as plain values. Safe for untrusted files: no objects, aliases or includes, and bounded time and memory."""

import os
import re
from pathlib import Path
from typing import Any

import yaml

from src_pure.config.validation import MAX_DEPTH
from src_pure.errors import ConfigError

MAX_BYTES = 4_000_000  # a configuration has 3,000, and about 100 more for each lane
# written in C where PyYAML was built with it: seven times as fast
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class Writer(DUMPER):
    """Quotes text that `parse_yaml` or another reader of YAML would take for a number, a bool or null."""


# YAML 1.2, unlike PyYAML: on and yes are text, 1e-3 is a number
SCALARS = {
    "null": (r"~|null|Null|NULL|", lambda text: None),
    "bool": (r"true|True|TRUE|false|False|FALSE", lambda text: text.lower() == "true"),
    "int": (r"[-+]?[0-9]+(_[0-9]+)*", int),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(_[0-9]+)*(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.?(inf|Inf|INF)|\.?(nan|NaN|NAN)",
        lambda text: float(re.sub(r"\.(?=[inIN])", "", text)),
    ),
}
PATTERNS = [(re.compile(rf"({pattern})\Z"), convert) for pattern, convert in SCALARS.values()]
for name, (pattern, _) in SCALARS.items():
    Writer.add_implicit_resolver(f"tag:yaml.org,2002:{name}", re.compile(rf"({pattern})\Z"), None)


class Values:
    """Makes plain values from the events of a YAML document; rejects anchors, aliases, tags and deep nesting."""

    def __init__(self, text: str):
        self.events = yaml.parse(text, Loader=LOADER)
        self.depth = 0

    def document(self) -> Any:
        """The value of the only document; None if there is none."""
        next(self.events)
        value = None
        if isinstance(event := next(self.events), yaml.DocumentStartEvent):
            value = self.value(next(self.events))
            next(self.events)
            event = next(self.events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise yaml.MarkedYAMLError(problem="a file has one document", problem_mark=event.start_mark)
        return value

    def value(self, event: Any) -> Any:
        """The value that begins with an event: None, bool, int, float, str, or lists and dictionaries of them."""
        if getattr(event, "anchor", None) is not None or getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(problem="anchors, aliases and tags are not read", problem_mark=event.start_mark)
        if isinstance(event, yaml.ScalarEvent):
            return scalar(event)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_DEPTH} levels", problem_mark=event.start_mark)
        value = self.mapping() if isinstance(event, yaml.MappingStartEvent) else self.sequence()
        self.depth -= 1
        return value

    def mapping(self) -> dict[str, Any]:
        values = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self.value(event)
            if not isinstance(event, yaml.ScalarEvent) or key != event.value:
                raise yaml.MarkedYAMLError(problem="a key must be text", problem_mark=event.start_mark)
            if key in values:
                raise yaml.MarkedYAMLError(problem=f"{key} is there twice", problem_mark=event.start_mark)
            values[key] = self.value(next(self.events))
        return values

    def sequence(self) -> list[Any]:
        values = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            values.append(self.value(event))
        return values


def scalar(event: yaml.ScalarEvent) -> Any:
    """The value of a scalar; quoted text stays text."""
    if event.implicit[0]:
        for pattern, convert in PATTERNS:
            if pattern.match(event.value):
                return convert(event.value)
    return event.value


def parse_yaml(text: str) -> Any:
    """The plain value of a YAML document; raises yaml.YAMLError or ValueError."""
    return Values(text).document()


def to_yaml(config: dict[str, Any]) -> str:
    """YAML text that parse_yaml turns back into the same configuration."""
    return yaml.dump(config, Dumper=Writer, sort_keys=False, allow_unicode=True)


def read_config_file(path: Path) -> dict[str, Any]:
    """The resolved configuration in a file, not yet validated; raises ConfigError, or OSError if reading fails."""
    content = read_bytes(path)
    try:
        config = parse_yaml(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text") from error
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigError(f"{path} cannot be read: {line}{error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{path} must hold a configuration's keys and values, such as the config.yaml of a run")
    return config


def read_bytes(path: Path) -> bytes:
    """The content of a regular file of at most MAX_BYTES; never opens a device and never waits on a pipe."""
    if not path.is_file():
        raise ConfigError(f"{path} cannot be read: no such file")
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path} cannot be read: it must have at most {MAX_BYTES:,} bytes")
    return content
