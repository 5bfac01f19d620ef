"""The only reader of the configuration: composed YAML -> typed objects, or an error that says what to change."""

import difflib
import inspect
import pkgutil
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_type_hints

import hydra
import pydantic
from omegaconf import OmegaConf

from src_pure.algos.base import Algorithm
from src_pure.envs.spaces import Discrete
from src_pure.envs.vector import Truncation, VectorEnv
from src_pure.models.policy import ActorCritic
from src_pure.types import NonNegativeInt, PositiveFloat, PositiveInt

CONFIG_DIR = Path(__file__).resolve().parent.parent / "configs"
CONFIG_FILE = CONFIG_DIR / "config.yaml"
COMPONENTS = ("task", "model", "encoder", "algo")  # groups whose YAML names a class by _target_
MAX_SEED = 2**32


class ConfigError(ValueError):
    """Wrong input, said in one line: what was wanted, what was found, what to change."""


class Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Head(Section):
    head_size: PositiveInt
    head_activation: Literal["tanh", "relu"]


class Evaluation(Section):
    num_episodes: PositiveInt
    interval: NonNegativeInt
    max_steps: PositiveInt


class Wandb(Section):
    mode: Literal["disabled", "offline", "online"]
    project: str
    group: str | None
    name: str | None


class Settings(Section):
    """All of the configuration but the components; every key is explained in configs/config.yaml."""

    num_envs: PositiveInt
    num_steps: PositiveInt
    total_steps: PositiveInt
    seed: NonNegativeInt
    num_seeds: PositiveInt
    policy: Head
    evaluation: Evaluation
    log_seconds: PositiveFloat
    wandb: Wandb
    tensorboard: bool
    run_dir: str | None

    @property
    def steps_per_update(self) -> int:
        return self.num_envs * self.num_steps

    @property
    def num_updates(self) -> int:
        return self.total_steps // self.steps_per_update

    @property
    def seeds(self) -> range:
        return range(self.seed, self.seed + self.num_seeds)


@dataclass(frozen=True)
class Experiment:
    """Everything that a configuration says, as objects."""

    name: str  # <task>-<model>-<algo>
    settings: Settings
    env: VectorEnv
    evaluation_env: VectorEnv
    policy: ActorCritic
    algo: Algorithm
    config_yaml: str  # resolved; alone it reproduces the run


def compose(overrides: Sequence[str], config_file: Path = CONFIG_FILE) -> dict[str, Any]:
    """The resolved configuration for command-line overrides of a file; raises ConfigError."""
    if not config_file.is_file():
        raise ConfigError(f"no configuration file {config_file}")
    try:
        with hydra.initialize_config_dir(str(config_file.resolve().parent), version_base="1.3"):
            config = hydra.compose(config_file.name, overrides=list(overrides))
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except Exception as error:  # Hydra and OmegaConf raise many kinds; all they read here is the user's input
        raise ConfigError(_explain(str(error), overrides)) from error


def build(config: dict[str, Any]) -> Experiment:
    """The objects of a resolved configuration; raises ConfigError before anything is compiled."""
    components = {name: config.get(name) for name in COMPONENTS}
    for name, component in components.items():
        if not isinstance(component, dict) or "_target_" not in component:
            raise ConfigError(f"{name} must be one of {', '.join(known_names(name))}, got {component!r}")
    settings = _validate(Settings, {key: value for key, value in config.items() if key not in COMPONENTS}, "")
    _check_settings(settings)
    truncation = _check(components["algo"].get("truncation"), Truncation, "algo.truncation")

    task = instantiate(components["task"], "task", "step_env")
    algo = instantiate(
        {key: value for key, value in components["algo"].items() if key != "truncation"}, "algo", "update"
    )
    algo = replace(algo, num_updates=settings.num_updates)
    num_minibatches = getattr(algo, "num_minibatches", 1)
    if settings.num_envs % num_minibatches:
        raise ConfigError(
            f"num_envs must be a multiple of algo.num_minibatches, got {settings.num_envs} and {num_minibatches}"
        )
    params = task.default_params
    action_space = task.action_space(params)
    if not isinstance(action_space, Discrete):
        raise ConfigError(f"task must have discrete actions, got {action_space}")
    policy = ActorCritic(
        encoder=instantiate(components["encoder"], "encoder", "__call__"),
        memory=instantiate(components["model"], "model", "initialize_carry"),
        num_actions=action_space.n,
        **settings.policy.model_dump(),
    )
    return Experiment(
        name="-".join(str(components[name].get("name", name)) for name in ("task", "model", "algo")),
        settings=settings,
        env=VectorEnv(task, params, settings.num_envs, truncation),
        evaluation_env=VectorEnv(task, params, settings.evaluation.num_episodes),
        policy=policy,
        algo=algo,
        config_yaml=OmegaConf.to_yaml(config),
    )


def instantiate(component: dict[str, Any], path: str, method: str) -> Any:
    """The object that a component's _target_ and values describe, each value checked against its annotation."""
    values = {key: value for key, value in component.items() if key not in ("_target_", "name")}
    name = component["_target_"]
    try:
        target = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigError(f"{path}._target_ cannot be imported: {name!r} ({_one_line(error)})") from error
    if not (isinstance(target, type) and hasattr(target, method)):
        raise ConfigError(f"{path}._target_ must be a class with {method}(), got {name!r}")
    parameters = [key for key in inspect.signature(target).parameters if key not in ("parent", "name")]
    annotations = get_type_hints(target, include_extras=True)
    for key in values:
        if key not in parameters:
            raise ConfigError(_unknown_key(f"{path}.{key}", [f"{path}.{known}" for known in parameters]))
    try:
        return target(**{key: _check(value, annotations[key], f"{path}.{key}") for key, value in values.items()})
    except ConfigError:
        raise
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: {_one_line(error)}") from error


def _check_settings(settings: Settings) -> None:
    if settings.num_updates < 1:
        raise ConfigError(
            f"total_steps must be at least num_envs * num_steps = {settings.steps_per_update:,}, "
            f"got {settings.total_steps:,}"
        )
    if settings.seeds.stop > MAX_SEED:
        raise ConfigError(f"seed + num_seeds must be at most {MAX_SEED:,}, got {settings.seeds.stop:,}")


def _check(value: Any, annotation: Any, path: str) -> Any:
    return _validate(annotation, value, path)


def _validate(annotation: Any, value: Any, path: str) -> Any:
    """value as the annotated type; raises ConfigError naming the first key that is wrong."""
    try:
        return pydantic.TypeAdapter(annotation).validate_python(value)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in (path, *first["loc"]) if part != "")
        if first["type"] == "extra_forbidden":
            known = [*_keys(annotation), *COMPONENTS]
            raise ConfigError(_unknown_key(key, known)) from None
        if first["type"] == "missing":
            raise ConfigError(f"{key} is missing; leave it at its default instead of deleting it") from None
        wanted = first["msg"].removeprefix("Input should be ")
        raise ConfigError(f"{key} must be {wanted}, got {first['input']!r}") from None


def _keys(section: type[Section], prefix: str = "") -> list[str]:
    """All dotted keys of a section."""
    keys = []
    for name, field in section.model_fields.items():
        nested = isinstance(field.annotation, type) and issubclass(field.annotation, Section)
        keys += _keys(field.annotation, f"{prefix}{name}.") if nested else [prefix + name]
    return keys


def _unknown_key(key: str, known: Sequence[str]) -> str:
    """The message for a key that is not there: the closest known one, and those of the same section."""
    closest = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"; did you mean {closest[0]}?" if closest else ""
    section = key.rpartition(".")[0]
    known = [name for name in known if name.rpartition(".")[0] == section] or {name.split(".")[0] for name in known}
    return f"unknown key {key}{hint} (known: {', '.join(sorted(known))})"


def known_names(group: str) -> list[str]:
    """Names of the YAML files of a group."""
    return sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))


def _explain(message: str, overrides: Sequence[str]) -> str:
    """What Hydra or OmegaConf complained of, as one line that says what to change."""
    if match := re.search(r"Could not override '([^']+)'", message):
        return _explain_key(match[1])
    if match := re.search(r"Could not find '([^'/]+)/([^']+)'", message):
        group, name = match.groups()
        closest = difflib.get_close_matches(name, known_names(group), n=1)
        hint = f"; did you mean {closest[0]}?" if closest else ""
        return f"unknown {group}={name}{hint} (known: {', '.join(known_names(group))})"
    given = f" (given: {' '.join(overrides)})" if overrides else ""
    return _one_line(message) + given


def _explain_key(key: str) -> str:
    config = compose([])
    groups = [path.name for path in CONFIG_DIR.iterdir() if path.is_dir() and path.name not in config]
    if key in groups:
        return f"{key} is a group of experiments: write +{key}=NAME with one of {', '.join(known_names(key))}"
    return _unknown_key(key, [*dotted(config), *(f"+{group}" for group in groups)])


def dotted(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of a nested configuration by their dotted keys."""
    leaves = {}
    for name, value in config.items():
        leaves |= dotted(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return leaves


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
