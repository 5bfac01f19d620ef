"""YAML as plain values. Safe for untrusted files: no objects, aliases or includes, and bounded time and memory."""

import os
import re
from pathlib import Path
from typing import Any

import yaml

from src_pure.config.validation import MAX_DEPTH
from src_pure.errors import ConfigError

MAX_BYTES = 100_000  # thirty times the size of a configuration


class Reader(yaml.SafeLoader):
    """Composes the nodes of a document; rejects anchors, aliases, tags and deep nesting."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 the name is PyYAML's; filled below
    depth = 0

    def compose_node(self, parent, index):
        event = self.peek_event()
        if event.anchor is not None or getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(problem="anchors, aliases and tags are not read", problem_mark=event.start_mark)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_DEPTH} levels", problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class Writer(yaml.SafeDumper):
    """Quotes text that Reader would read as a number, a bool or null."""


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
for name, (pattern, _) in SCALARS.items():
    for kind in (Reader, Writer):
        kind.add_implicit_resolver(f"tag:yaml.org,2002:{name}", re.compile(rf"({pattern})\Z"), None)


def plain(node: yaml.Node | None) -> Any:
    """The value of a node: None, bool, int, float, str, or lists and dictionaries of them."""
    if isinstance(node, yaml.MappingNode):
        values = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or plain(key) != key.value:
                raise yaml.MarkedYAMLError(problem="a key must be text", problem_mark=key.start_mark)
            if key.value in values:
                raise yaml.MarkedYAMLError(problem=f"{key.value} is there twice", problem_mark=key.start_mark)
            values[key.value] = plain(value)
        return values
    if isinstance(node, yaml.SequenceNode):
        return [plain(item) for item in node.value]
    if node is None:
        return None
    _, convert = SCALARS.get(node.tag.rpartition(":")[2], ("", str))
    return convert(node.value)


def parse_yaml(text: str) -> Any:
    """The plain value of a YAML document; raises yaml.YAMLError or ValueError."""
    return plain(yaml.compose(text, Loader=Reader))


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
