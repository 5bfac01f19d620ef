"""The only reader of the configuration: YAML and overrides -> typed objects, or an error that names what to change."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax

from src_pure.algos.base import Algorithm
from src_pure.config.compose import compose
from src_pure.config.names import COMPONENTS, known_names
from src_pure.config.settings import Observation, Settings
from src_pure.config.sweep import is_sweep, one_point
from src_pure.config.targets import instantiate
from src_pure.config.validation import check_name, check_plain, validate
from src_pure.device import check_device
from src_pure.envs import optional
from src_pure.envs.base import Environment
from src_pure.envs.history import WithHistory
from src_pure.envs.spaces import Box, Discrete, Space
from src_pure.envs.vector import VectorEnv
from src_pure.errors import ConfigError, naming, shown
from src_pure.experiment import LANES, Experiment, lanes_of, side_by_side, with_seed, with_values
from src_pure.lanes import SeedLanes
from src_pure.models.policy import Policy

__all__ = ["ConfigError", "Experiment", "build", "compose"]

ENDLESS = 10_000  # evaluation cuts off episodes here if the task sets no limit


def build(config: dict[str, Any], trust: Sequence[str] = ()) -> Experiment:
    """The objects of a resolved configuration; raises ConfigError before anything is compiled.

    Classes come from src_pure and the packages in `trust`; no other code is imported or run.
    """
    if not isinstance(config, dict):
        raise ConfigError(f"a configuration must be keys and values, got {shown(config)}")
    check_plain(config)
    check_device()
    if is_sweep(config):
        raise ConfigError("a sweep is many experiments: src_pure.sweeps.plan makes them")
    config = one_point(config)
    if LANES in config:
        return _build_lanes(config, trust)
    for name in COMPONENTS:
        if not isinstance(config.get(name), dict) or "_target_" not in config[name]:
            wanted = f"one of {', '.join(known_names(name))}, as a section with its _target_"
            raise ConfigError(f"{name} must be {wanted}, got {shown(config.get(name))}")
    settings = validate(Settings, {key: value for key, value in config.items() if key not in COMPONENTS}, "")
    _check_sizes(settings)
    task = _build_task(config["task"], settings.observation, trust)
    env, evaluation_env = _build_envs(task, settings)
    policy = _build_policy(config, task, trust)
    given = settings.model_dump(exclude_unset=True)  # converted, so that the file holds 8 even if 8.0 was typed
    config = {key: given.get(key, value) for key, value in config.items()}
    return Experiment(
        name="-".join(check_name(config[name].get("name", name), f"{name}.name") for name in ("task", "model", "algo")),
        settings=settings,
        env=env,
        evaluation_env=evaluation_env,
        evaluation_steps=settings.evaluation.max_steps or _longest_episode(task),
        policy=policy,
        algo=_build_algo(config["algo"], settings, policy, trust),
        lanes=SeedLanes(range(settings.seed, settings.seed + settings.num_seeds)),
        config=config | {"run_dir": None, "resume": "auto", "resume_anyway": False},  # so that it can run elsewhere
    )


def _build_lanes(config: dict[str, Any], trust: Sequence[str]) -> Experiment:
    """The Experiment of a configuration with lanes; lanes that differ only in their seeds share all objects."""
    lanes = lanes_of(config)
    base = {name: value for name, value in config.items() if name != LANES} | {"num_seeds": 1}
    built: dict[str, Experiment] = {}
    for lane in lanes:
        if (values := repr(sorted(lane.values.items()))) not in built:
            built[values] = build(with_values(base, lane.values), trust)
    alone = [with_seed(built[repr(sorted(lane.values.items()))], lane.seed) for lane in lanes]
    return side_by_side(alone, lanes)


def _build_task(component: dict[str, Any], observation: Observation, trust: Sequence[str]) -> Environment:
    """The environment of a task, with the last action and reward in its observation if asked for."""
    task = instantiate(component, "task", trust)
    if observation.last_action or observation.last_reward:
        task = WithHistory(task, **observation.model_dump())
    with naming("task"):
        params = task.default_params
        space = task.action_space(params)
        task.observation_space(params)
    if not (isinstance(space, Discrete) or (isinstance(space, Box) and len(space.shape) == 1)):
        raise ConfigError(f"task must have actions that are Discrete, or a Box of one dimension, got {space}")
    return task


def _build_envs(task: Environment, settings: Settings) -> tuple[VectorEnv, VectorEnv]:
    """The environments of training and of evaluation."""
    params, vector = task.default_params, settings.vector
    ratio = vector.reset_ratio or optional.reset_ratio(task)
    env = VectorEnv(task, params, settings.num_envs, vector.truncation, ratio, vector.resets)
    # In evaluation each environment plays one episode, so a second world, if costly to make, is never made.
    resets = "pool" if ratio > 1 else "on_demand"
    return env, VectorEnv(task, params, settings.evaluation.num_episodes, reset_ratio=ratio, resets=resets)


def _build_policy(config: dict[str, Any], task: Environment, trust: Sequence[str]) -> Policy:
    params = task.default_params
    encoder = instantiate(config["encoder"], "encoder", trust)
    _check_encoder(encoder, task.observation_space(params))
    return instantiate(
        config["policy"],
        "policy",
        trust,
        encoder=encoder,
        memory=instantiate(config["model"], "model", trust),
        num_actions=task.action_space(params).flat.shape[0],
        continuous=isinstance(task.action_space(params), Box),
    )


def _build_algo(component: dict[str, Any], settings: Settings, policy: Policy, trust: Sequence[str]) -> Algorithm:
    algo = instantiate(component, "algo", trust)
    with naming("algo"):
        algo = replace(algo, num_steps=settings.num_steps, num_updates=settings.num_updates)
    try:
        algo.check(settings.num_envs, policy.distribution)
    except ValueError as error:
        raise ConfigError(error) from error
    return algo


def _longest_episode(task: Environment) -> int:
    """Steps after which every episode has ended; ENDLESS if the environment declares no limit."""
    steps = optional.longest_episode(task, task.default_params)
    return ENDLESS if steps is None else min(steps, 2**31 - 1)  # the counter has 32 bits


def _check_encoder(encoder: nn.Module, space: Space) -> None:
    """Raises ConfigError if the encoder does not fit the observations; only traces, computes nothing."""
    obs = jax.ShapeDtypeStruct((1, 1, *space.shape), space.dtype)
    with naming("encoder"):
        jax.eval_shape(lambda obs: encoder.init(jax.random.key(0), obs), obs)


def _check_sizes(settings: Settings) -> None:
    """Raises ConfigError for sizes that contradict each other."""
    if settings.num_updates < 1:
        raise ConfigError(
            f"total_steps must be at least num_envs * num_steps = {settings.steps_per_update:,}, "
            f"got {settings.total_steps:,}"
        )
    if settings.num_updates >= 2**31:
        raise ConfigError(
            f"total_steps must be below 2**31 updates of num_envs * num_steps = {settings.steps_per_update:,}, got "
            f"{settings.total_steps:,}"
        )
    if settings.seed + settings.num_seeds > 2**31:
        raise ConfigError(f"seed + num_seeds must be at most 2**31, got {settings.seed:,} and {settings.num_seeds:,}")
