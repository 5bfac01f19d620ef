"""The names of groups, files and keys, and the errors for unknown ones."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from src_pure.errors import ConfigError

PACKAGE = Path(__file__).resolve().parents[1]
# a wheel holds the configurations inside the package, a checkout next to it
CONFIG_DIR = next(path for path in (PACKAGE / "configs", PACKAGE.parent / "configs") if path.is_dir())
CONFIG_FILE = CONFIG_DIR / "config.yaml"
COMPONENTS = ("task", "model", "encoder", "policy", "algo")  # groups whose YAML names a class by _target_
SWEEP, PLAN, DEVICE = OF_COMMAND = "sweep", "plan", "device"  # keys that concern a command, not one training
DERIVED = {  # keys that follow from other keys and cannot be set directly
    "algo.num_steps": "num_steps",
    "algo.num_updates": "total_steps",
    "policy.encoder": "encoder",
    "policy.memory": "model",
    "policy.num_actions": "task",
    "policy.continuous": "task",
}

# keys that may change when a run is continued, because they do not affect its numbers
HARMLESS = {"run_dir", "resume", "resume_anyway", "log_seconds", "grace_seconds", "tensorboard"}
HARMLESS_SECTIONS = {"wandb", "checkpoint", "metrics"}


def known_names(group: str) -> list[str]:
    """Names of the YAML files in a group."""
    return sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))


def experiment_groups() -> list[str]:
    """Names of the groups of published experiments."""
    return sorted(path.name for path in CONFIG_DIR.iterdir() if path.is_dir() and path.name not in COMPONENTS)


def dotted(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of a nested configuration, by dotted key."""
    leaves = {}
    for name, value in config.items():
        leaves |= dotted(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return leaves


def unknown_key(key: str, known: Iterable[str]) -> ConfigError:
    """The error for an unknown key; it suggests the closest known key and lists those of the same section."""
    if key in DERIVED:
        return ConfigError(f"{key} follows from {DERIVED[key]}: set that")
    if key == "defaults":
        return ConfigError("defaults: a configuration file must be resolved, such as the config.yaml of a run")
    known = list(known)
    same_last_part = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    closest = same_last_part[:1] or difflib.get_close_matches(key[:100], known, n=1, cutoff=0.5)
    hint = f"; did you mean {closest[0]}?" if closest else ""
    section = key.rpartition(".")[0]
    known = [name for name in known if name.rpartition(".")[0] == section] or {name.split(".")[0] for name in known}
    return ConfigError(f"unknown key {key[:100]}{hint} (known: {', '.join(sorted(known))})")


def unknown_choice(group: str, name: str) -> ConfigError:
    """The error for a name that does not exist in a group."""
    known = known_names(group.lstrip("+"))
    closest = difflib.get_close_matches(name[:100], known, n=1)
    hint = f"; did you mean {group}={closest[0]}?" if closest else ""
    return ConfigError(f"{group} must be one of {', '.join(known)}, got {name[:100]!r}{hint}")


def harmless(name: str) -> bool:
    """Whether a dotted key leaves the numbers of a training unchanged."""
    return name in HARMLESS or name.partition(".")[0] in HARMLESS_SECTIONS or name.endswith(".name")
