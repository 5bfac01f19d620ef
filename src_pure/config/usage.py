"""What --help prints: every option of a configuration, with its value and its meaning."""

import re
from pathlib import Path
from typing import Any

from src_pure.config.names import COMPONENTS, CONFIG_DIR, CONFIG_FILE, dotted, experiment_groups, known_names
from src_pure.errors import one_line

HEADER = """\
python trainer_pure.py [--config FILE] [--trust PACKAGE] [+GROUP=EXPERIMENT] [GROUP=NAME] [KEY=VALUE] ...
FILE is a configuration to start from, such as the config.yaml of an earlier run. Classes that it or an argument names
must be this project's own, or lie in a PACKAGE that you trust; --trust may be repeated

published experiments
{experiments}
groups
{groups}
options, with the values that this command line gives them
{options}"""


def usage(config: dict[str, Any]) -> str:
    """The help text for a composed configuration; explanations are the comments of the YAML files."""
    experiments = [f"  +{group}={' | '.join(known_names(group))}" for group in experiment_groups()]
    groups = [f"  {group}={' | '.join(known_names(group))}" for group in COMPONENTS]
    comments = _comments(CONFIG_FILE)
    for group in COMPONENTS:
        comments |= {f"{group}.{key}": text for key, text in _group_comments(group, config[group]).items()}
    options = [_option(key, value, comments.get(key, "")) for key, value in dotted(config).items()]
    return HEADER.format(experiments="\n".join(experiments), groups="\n".join(groups), options="\n".join(options))


def _option(key: str, value: Any, comment: str) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return f"  {key}={one_line(text)}".ljust(44) + (f"  {comment}" if comment else "")


def _group_comments(group: str, component: dict[str, Any]) -> dict[str, str]:
    """The comments of the group's file for the same class; an experiment changes values, not their meaning."""
    for path in sorted((CONFIG_DIR / group).glob("*.yaml")):
        if f"_target_: {component['_target_']}\n" in path.read_text():
            return _comments(path)
    return {}


def _comments(path: Path) -> dict[str, str]:
    """The comment after each key of a YAML file, by dotted key."""
    comments, parents = {}, []
    for line in path.read_text().splitlines():
        match = re.match(r"( *)(\w+):[^#]*(?:# *(.*))?$", line)
        if match:
            depth = len(match[1]) // 2
            parents = [*parents[:depth], match[2]]
            comments[".".join(parents)] = match[3] or ""
    return comments
