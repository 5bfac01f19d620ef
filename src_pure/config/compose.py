"""Composes a configuration from YAML files, the project's or a run's, and command-line overrides."""

import os
from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from omegaconf import OmegaConf

from src_pure.config.files import read_config_file
from src_pure.config.names import CONFIG_DIR, CONFIG_FILE, OF_COMMAND, SWEEP
from src_pure.config.overrides import Override, apply, choices, is_choice, parse
from src_pure.config.sweep import (
    add_axis,
    axes_of,
    check_axis,
    is_axis,
    is_sweep,
    of_one_point,
    resolve_components,
)
from src_pure.errors import ConfigError, one_line


def compose(overrides: Sequence[str], config_file: Path = CONFIG_FILE) -> dict[str, Any]:
    """The configuration of a file with command-line overrides applied, as plain values.

    Only the project's own configuration has groups. Any other file must be resolved: it cannot refer to other files.

    Raises ConfigError, or OSError for a file that cannot be read.
    """
    parsed = [parse(text) for text in overrides]
    if os.path.realpath(config_file) == str(CONFIG_FILE):
        return composed(parsed)
    if config_file.suffix != ".yaml":
        raise ConfigError(f"--config must be a .yaml file, got {config_file}")
    if groups := [override.given for override in parsed if is_choice(override)]:
        raise ConfigError(f"{groups[0]}: a resolved configuration has no groups; override single values of it")
    return with_overrides(with_command(read_config_file(config_file)), parsed)


def with_command(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the settings of a command at their defaults where it does not have them."""
    own = chosen([])
    defaults = {name: own[name] for name in OF_COMMAND}
    if isinstance(config.get(SWEEP), dict):
        config = config | {SWEEP: defaults[SWEEP] | config[SWEEP]}
    return config | {name: value for name, value in defaults.items() if name not in config}


def composed(overrides: Sequence[Override]) -> dict[str, Any]:
    """The project's own configuration with these overrides."""
    config = with_overrides(chosen(choices(overrides)), overrides)
    if is_sweep(config):
        resolve_components(config, lambda group, name: composed(of_one_point(overrides, group, name))[group])
    return config


def with_overrides(config: dict[str, Any], overrides: Sequence[Override]) -> dict[str, Any]:
    """The configuration, changed in place by all overrides that do not choose a file."""
    for key in axes_of(config) if is_sweep(config) else ():
        check_axis(config, key)
    for override in overrides:
        if is_axis(override):
            add_axis(config, override)
        elif not is_choice(override):
            apply(config, override)
    return config


def chosen(groups: Sequence[str]) -> dict[str, Any]:
    """The project's own configuration with these group choices; the files of a choice are read once per process."""
    return deepcopy(_chosen(tuple(groups)))


@cache
def _chosen(groups: tuple[str, ...]) -> dict[str, Any]:
    try:
        with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            config: Any = OmegaConf.to_container(hydra.compose(CONFIG_FILE.name, list(groups)), resolve=True)
            return config
    except Exception as error:  # Hydra and OmegaConf raise many kinds, all about files in CONFIG_DIR
        raise ConfigError(f"{CONFIG_DIR}: {one_line(error).partition(' Config search path')[0]}") from error
