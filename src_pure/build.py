"""The only reader of the configuration: composed YAML -> typed objects, or an error that says what to change."""

import difflib
import inspect
import pkgutil
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import flax.linen as nn
import hydra
import jax
import pydantic
from annotated_types import Gt, Lt, MinLen
from omegaconf import OmegaConf

from src_pure.algos.base import Algorithm
from src_pure.envs.base import Environment
from src_pure.envs.history import WithHistory
from src_pure.envs.spaces import Box, Discrete
from src_pure.envs.vector import Resets, Truncation, VectorEnv
from src_pure.errors import ConfigError
from src_pure.models.policy import ActorCritic
from src_pure.types import NonNegativeInt, PositiveFloat, PositiveInt

CONFIG_DIR = Path(__file__).resolve().parent.parent / "configs"
CONFIG_FILE = CONFIG_DIR / "config.yaml"
BATCHING = ("reset_ratio", "resets")  # keys of a task that are not its environment's but VectorEnv's
ENDLESS = 10_000  # steps after which evaluation cuts off an episode that may never end
COMPONENTS = ("task", "model", "encoder", "algo")  # groups whose YAML names a class by _target_


DERIVED = {"algo.num_steps": "num_steps", "algo.num_updates": "total_steps"}  # set from these, never by themselves


class Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def refuse_bool_as_number(cls, value: Any, info: pydantic.ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[info.field_name].annotation is not bool:
            raise ValueError("Input should be a number")
        return value


class Observation(Section):
    last_action: bool
    last_reward: bool


class Head(Section):
    head_size: PositiveInt | None
    head_activation: Literal["tanh", "relu"]


class Evaluation(Section):
    num_episodes: PositiveInt
    interval: NonNegativeInt
    max_steps: PositiveInt | None


class Checkpointing(Section):
    minutes: PositiveFloat | None = 1.0
    updates: PositiveInt | None = None
    keep: PositiveInt = 2
    metric: str | None = "episode_return"
    min_episodes: PositiveInt = 100


class Wandb(Section):
    mode: Literal["disabled", "offline", "online"]
    project: str
    group: str | None
    name: str | None


class Settings(Section):
    """All of the configuration but the components; every key is explained in configs/config.yaml."""

    num_envs: PositiveInt
    num_steps: PositiveInt
    total_steps: Annotated[int, Gt(0), Lt(2**63)]
    seed: NonNegativeInt
    num_seeds: PositiveInt
    observation: Observation = Observation(last_action=False, last_reward=False)  # missing in older run folders
    policy: Head
    evaluation: Evaluation
    log_seconds: PositiveFloat | None
    wandb: Wandb
    tensorboard: bool
    run_dir: Annotated[str, MinLen(1)] | None
    # defaults of configs/config.yaml, for config.yaml files written before there were these keys
    warm_start: Annotated[str, MinLen(1)] | None = None
    resume: Literal["auto", "must", "never"] = "auto"
    resume_anyway: bool = False
    checkpoint: Checkpointing = Checkpointing()
    grace_seconds: PositiveFloat = 30.0

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
    evaluation_steps: int  # after which an episode is cut off
    policy: ActorCritic
    algo: Algorithm
    config: dict[str, Any]  # resolved; alone it reproduces the run

    @property
    def config_yaml(self) -> str:
        return OmegaConf.to_yaml(self.config)


def compose(overrides: Sequence[str], config_file: Path = CONFIG_FILE) -> dict[str, Any]:
    """The resolved configuration for command-line overrides of a file; raises ConfigError."""
    _check_overrides(overrides, config_file)
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
    _check_sizes(settings)
    truncation = _validate(Truncation, components["algo"].get("truncation", "terminate"), "algo.truncation")

    reset_ratio = _validate(PositiveInt, components["task"].get("reset_ratio", 1), "task.reset_ratio")
    resets = _validate(Resets, components["task"].get("resets", "on_demand"), "task.resets")
    task = _build_task(components["task"], settings.observation)
    algo = {key: value for key, value in components["algo"].items() if key != "truncation"}
    algo = instantiate(algo, "algo", "update")
    algo = replace(algo, num_steps=settings.num_steps, num_updates=settings.num_updates)
    try:
        algo.check(settings.num_envs)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    params = task.default_params
    encoder = instantiate(components["encoder"], "encoder", "__call__")
    _check_encoder(encoder, task.observation_space(params))
    policy = ActorCritic(
        encoder=encoder,
        memory=instantiate(components["model"], "model", "initialize_carry"),
        num_actions=task.action_space(params).flat.shape[0],
        continuous=isinstance(task.action_space(params), Box),
        **settings.policy.model_dump(),
    )
    return Experiment(
        name="-".join(str(components[name].get("name", name)) for name in ("task", "model", "algo")),
        settings=settings,
        env=VectorEnv(task, params, settings.num_envs, truncation, reset_ratio, resets),
        # one episode of each is looked at: where worlds take long to make, none is made for a second one
        evaluation_env=VectorEnv(
            task,
            params,
            settings.evaluation.num_episodes,
            reset_ratio=reset_ratio,
            resets="pool" if reset_ratio > 1 else "on_demand",
        ),
        evaluation_steps=settings.evaluation.max_steps or _longest_episode(task),
        policy=policy,
        algo=algo,
        config=config | {"run_dir": None, "resume": "auto", "resume_anyway": False},  # to be repeated elsewhere
    )


def instantiate(component: dict[str, Any], path: str, method: str) -> Any:
    """What a component's _target_ makes of its values, each checked against its annotation.

    The target is a class that has `method`, or a function whose result has it.
    """
    values = {key: value for key, value in component.items() if key not in ("_target_", "name")}
    name = component["_target_"]
    try:
        target = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigError(f"{path}._target_ cannot be imported: {name!r} ({_one_line(error)})") from error
    if not (inspect.isfunction(target) or (isinstance(target, type) and hasattr(target, method))):
        raise ConfigError(f"{path}._target_ must be a class with {method}(), or a function, got {name!r}")
    parameters = [key for key in inspect.signature(target).parameters if key not in ("parent", "name")]
    parameters = [key for key in parameters if f"{path}.{key}" not in DERIVED]
    annotations = get_type_hints(target, include_extras=True)
    if isinstance(target, type):
        annotations |= get_type_hints(target.__init__, include_extras=True)
    for key in values:
        if key not in parameters:
            raise ConfigError(_unknown_key(f"{path}.{key}", [f"{path}.{known}" for known in parameters]))
    try:
        return target(
            **{key: _validate(annotations.get(key, Any), value, f"{path}.{key}") for key, value in values.items()}
        )
    except ConfigError:
        raise
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: {_one_line(error)}") from error


def _check_overrides(overrides: Sequence[str], config_file: Path) -> None:
    """Raises ConfigError for what Hydra would accept and this project does not mean."""
    if not config_file.is_file():
        raise ConfigError(f"no configuration file {config_file}")
    if config_file.suffix != ".yaml":
        raise ConfigError(f"--config must be a .yaml file, got {config_file}")
    for override in overrides:
        key, _, value = override.partition("=")
        if key.startswith("~"):
            raise ConfigError(f"{override}: nothing can be deleted from a configuration, only set to another value")
        if key.lstrip("+").partition(".")[0] == "hydra":
            raise ConfigError(f"{override}: Hydra's own settings have no meaning here")
        if config_file != CONFIG_FILE and (key in COMPONENTS or (CONFIG_DIR / key.lstrip("+")).is_dir()):
            raise ConfigError(f"{override}: a resolved configuration has no groups; override single values of it")
        if key.lstrip("+") in COMPONENTS and key.startswith("+"):
            raise ConfigError(f"{override}: {key[1:]} is always there, so write {override[1:]}")
        if key in COMPONENTS and value not in known_names(key):
            raise ConfigError(_unknown_choice(key, value))
        if key.startswith("+") and (CONFIG_DIR / key[1:]).is_dir() and value not in known_names(key[1:]):
            raise ConfigError(_unknown_choice(key, value))


def _unknown_choice(group: str, name: str) -> str:
    known = known_names(group.lstrip("+"))
    closest = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {closest[0]}?" if closest else ""
    return f"{group} must be one of {', '.join(known)}, got {name!r}{hint}"


def _build_task(component: dict[str, Any], observation: Observation) -> Environment:
    """The environment of a task with the observations asked for."""
    component = {key: value for key, value in component.items() if key not in BATCHING}
    task = instantiate(component, "task", "step_env")
    space = task.action_space(task.default_params)
    if not (isinstance(space, Discrete) or (isinstance(space, Box) and len(space.shape) == 1)):
        raise ConfigError(f"task must have actions that are Discrete, or a Box of one dimension, got {space}")
    if observation.last_action or observation.last_reward:
        return WithHistory(task, **observation.model_dump())
    return task


def _longest_episode(task: Environment) -> int:
    """Steps after which every episode has ended, as far as the environment says so."""
    task = task.env if isinstance(task, WithHistory) else task
    return task.longest_episode(task.default_params) if hasattr(task, "longest_episode") else ENDLESS


def _check_encoder(encoder: nn.Module, space: Box) -> None:
    """Raises ConfigError for an encoder that does not fit the observations; nothing is computed."""
    obs = jax.ShapeDtypeStruct((1, 1, *space.shape), space.dtype)
    try:
        jax.eval_shape(lambda obs: encoder.init(jax.random.key(0), obs), obs)
    except ValueError as error:
        raise ConfigError(f"encoder: {_one_line(error)}") from error


def _check_sizes(settings: Settings) -> None:
    """Raises ConfigError for settings that do not fit each other."""
    if settings.num_updates < 1:
        raise ConfigError(
            f"total_steps must be at least num_envs * num_steps = {settings.steps_per_update:,}, "
            f"got {settings.total_steps:,}"
        )


def _validate(annotation: Any, value: Any, path: str) -> Any:
    """value as the annotated type; raises ConfigError naming the first key that is wrong."""
    try:
        typed = pydantic.TypeAdapter(annotation).validate_python(value)
        if isinstance(value, bool) and not isinstance(typed, bool):
            raise ConfigError(f"{path} must be a number, got {value!r}")
        return typed
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in (path, *first["loc"]) if part != "")
        if first["type"] == "extra_forbidden":
            known = [*_keys(annotation), *COMPONENTS, *(f"+{group}" for group in _experiment_groups())]
            raise ConfigError(_unknown_key(key, known)) from None
        if first["type"] == "missing":
            raise ConfigError(f"{key} is missing; leave it at its default instead of deleting it") from None
        if first["type"] == "model_type":
            raise ConfigError(f"{key} is a section: set its values as {key}.NAME=VALUE, got {value[key]!r}") from None
        message = first["msg"].removeprefix("Value error, ")
        wanted = (
            f" must be {message.removeprefix('Input should be ')}" if "Input should be" in message else f": {message}"
        )
        raise ConfigError(f"{key}{wanted}, got {first['input']!r}") from None


def _keys(section: type[Section], prefix: str = "") -> list[str]:
    """All dotted keys of a section."""
    keys = []
    for name, field in section.model_fields.items():
        nested = isinstance(field.annotation, type) and issubclass(field.annotation, Section)
        keys += _keys(field.annotation, f"{prefix}{name}.") if nested else [prefix + name]
    return keys


def _unknown_key(key: str, known: Sequence[str]) -> str:
    """The message for a key that is not there: the closest known one, and those of the same section."""
    if key in DERIVED:
        return f"{key} follows from {DERIVED[key]}: set that"
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
        return _explain_key(match[1], overrides)
    if match := re.search(r"Ambiguous value for argument '([^=]+)=([^']*)'", message):
        return f"{match[1]} must be one value, got {match[2]}; a list is written [{match[2]}]"
    given = f" (given: {' '.join(overrides)})" if overrides else ""
    return _one_line(message.partition("Config search path")[0].partition("See https")[0]) + given


def _explain_key(key: str, overrides: Sequence[str]) -> str:
    """The message for a key that the chosen groups do not have."""
    groups = _experiment_groups()
    if key in groups:
        return f"{key} is a group of experiments: write +{key}=NAME with one of {', '.join(known_names(key))}"
    choices = [text for text in overrides if (CONFIG_DIR / text.partition("=")[0].lstrip("+")).is_dir()]
    known = [name for name in dotted(compose(choices)) if not name.endswith(("._target_", ".name"))]
    return _unknown_key(key, [*known, *COMPONENTS, *(f"+{group}" for group in groups)])


def _experiment_groups() -> list[str]:
    return sorted(path.name for path in CONFIG_DIR.iterdir() if path.is_dir() and path.name not in COMPONENTS)


def dotted(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of a nested configuration by their dotted keys."""
    leaves = {}
    for name, value in config.items():
        leaves |= dotted(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return leaves


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
