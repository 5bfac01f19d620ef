"""Exported policies: what one run has learned, in a small folder that works without the run folder.

<folder>/  params.msgpack  the parameters by name, serialised by flax
           policy.json     format, identity of the training, run, seed, update, the resolved configuration
           sha256.json     the digests of both
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge
from flax import serialization

from src_pure.bits import in_32_bits
from src_pure.build import Experiment, build
from src_pure.config.settings import Settings
from src_pure.device import bytes_of, check_fits
from src_pure.errors import CannotWriteError, CheckpointError, ConfigError, DamagedError, RemovedError, one_line
from src_pure.runs.arrays import fill_like, named_arrays
from src_pure.runs.atomic import read_whole, write_whole
from src_pure.runs.checkpoint import Checkpoint, latest
from src_pure.runs.columns import main_metric, over_episodes
from src_pure.runs.folder import read_file, refuse_odd
from src_pure.runs.identity import OwnedFile, read_identity
from src_pure.runs.rundir import CHECKPOINTS, FILES, FOLDERS, RunDir
from src_pure.runs.tables import EVALUATION, Table
from src_pure.train import acting_step, policy_step
from src_pure.types import Array, Carry, Key, Params, PolicyOutput

FORMAT = 2  # of the folder described above
KIND, PARAMS = "policy", "params.msgpack"
IN_STATE = "learner.params."  # prefix of the names of parameters in a checkpoint


class PolicyFile(OwnedFile):
    """The content of policy.json."""

    run: Annotated[int, Ge(0)]
    seed: Annotated[int, Ge(0)]
    update: Annotated[int, Ge(0)]
    config: dict[str, Any]


InitializeCarry = Callable[[int], Carry]
Act = Callable[[Key | None, Carry, Array, Array], tuple[Carry, Array]]
Apply = Callable[[Carry, Array, Array], tuple[Carry, PolicyOutput]]


class Trained(NamedTuple):
    """The policies of a run folder."""

    experiment: Experiment
    checkpoint: Checkpoint  # the newest whole one
    params: dict[str, np.ndarray]  # by name, [R, ...]
    problems: list[str]  # one line for each newer but damaged checkpoint

    def params_of_run(self, run: int) -> dict[str, np.ndarray]:
        """The parameters of one run; raises ConfigError for a run that does not exist."""
        position = self._position(run)
        return {name: x[position] for name, x in self.params.items()}

    def experiment_of_run(self, run: int) -> Experiment:
        """The experiment reduced to one run; raises ConfigError for a run that does not exist."""
        return self.experiment.of_lane(self._position(run))

    def _position(self, run: int) -> int:
        """The index of a run on the axis of runs."""
        lanes = self.experiment.lanes
        position = next((position for position, lane in enumerate(lanes) if lane.run == run), None)
        if position is None:
            raise ConfigError(f"run must be one of {lanes[0].run} to {lanes[-1].run}, got {run}")
        return position


def export_policy(trained: Trained, run: int, folder: Path) -> None:
    """Writes the policy of one run; raises FileExistsError if the folder already exists."""
    params, checkpoint = trained.params_of_run(run), trained.checkpoint
    experiment = trained.experiment_of_run(run)
    if os.path.lexists(folder):
        raise already_there(folder)
    description = {"format": FORMAT, **checkpoint.identity._asdict(), "run": run}
    description |= {"seed": experiment.lanes[0].seed, "update": checkpoint.update}
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with write_whole(folder, KIND, description | {"config": experiment.config}) as partial:
            (partial / PARAMS).write_bytes(serialization.msgpack_serialize(params))
    except CannotWriteError as error:
        if folder.exists():  # another process wrote it in the meantime
            raise already_there(folder) from error
        raise


def already_there(folder: Path) -> FileExistsError:
    return FileExistsError(f"{folder} is there already; choose another --out FOLDER or delete it")


def read_trained(path: Path, trust: Sequence[str] = ()) -> Trained:
    """The policies in the newest whole checkpoint of a run folder; changes nothing on disk.

    If a running training deletes that checkpoint, reads the newer one. Raises ConfigError, CheckpointError or OSError
    for a folder without a whole checkpoint.
    """
    if not RunDir.continuable(path):
        raise ConfigError(f"{path} is not a run folder with checkpoints")
    refuse_odd(path, FILES, FOLDERS)
    identity = read_identity(path)
    while True:
        try:
            found, damaged = latest(path / CHECKPOINTS, identity)
            if found is None:
                raise CheckpointError("; ".join([*damaged.values(), f"there is no whole checkpoint in {path}"]))
            experiment = build(found.config, trust)
            arrays = found.arrays_beside_training(params_in_state(experiment))
        except RemovedError:
            continue
        params = {name.removeprefix(IN_STATE): x for name, x in arrays.items()}
        return Trained(experiment, found, params, list(damaged.values()))


def params_in_state(experiment: Experiment) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes [R, ...] and dtypes of the parameters of all runs, by their names in a checkpoint."""
    num_runs = len(experiment.lanes)
    params = {
        f"{IN_STATE}{name}": jax.ShapeDtypeStruct((num_runs, *x.shape), x.dtype)
        for name, x in named_arrays(params_of(experiment)).items()
    }
    check_fits(bytes_of(params), num_runs, "what the checkpoint holds")
    return params


def best_run(path: Path, metric: str | None, settings: Settings) -> tuple[int, str]:
    """(the run whose sampled policy had the largest `metric` in the last evaluation, a line that reports it).

    The default metric is success_rate if the task has it, else episode_return. Skips runs with fewer episodes than the
    smaller of checkpoint.min_episodes and evaluation.num_episodes.
    """
    evaluation = Table(path / EVALUATION, path / EVALUATION, read_identity(path))
    if not evaluation.parts:
        raise ConfigError(f"{path} has no evaluation yet that says which run is best: name one, --run 0")
    rows = evaluation.frame()
    known = [name for name in rows if over_episodes(name)]
    metric = metric or main_metric(known)
    if metric not in known:
        raise ConfigError(f"metric must be one of {', '.join(known)}, got {metric!r}")
    rows = rows[(rows["update"] == rows["update"].max()) & (rows["mode"] == "sampled") & rows[metric].notna()]
    wanted = min(settings.checkpoint.min_episodes, settings.evaluation.num_episodes)
    rows = rows[rows["episodes"] >= wanted]
    if rows.empty:
        raise ConfigError(
            f"no run has a {metric} over {wanted} episodes in the last evaluation of {path}: name one, --run 0"
        )
    best = rows.loc[rows[metric].idxmax()]
    cut_off = f"; {best['unfinished']} of {best['episodes']} episodes were cut off" if best["unfinished"] else ""
    return int(best["run"]), (
        f"run {best['run']} (seed {best['seed']}) is best: {metric} {best[metric]:.3f}, sampled, "
        f"in the evaluation after update {best['update']}{cut_off}"
    )


def read_params(folder: Path) -> tuple[PolicyFile, dict[str, np.ndarray]]:
    """(the description of an exported policy, its parameters by name).

    Raises CheckpointError if the folder is damaged or has another format, FileNotFoundError if it holds no policy.
    """
    if not (folder / f"{KIND}.json").is_file():
        raise FileNotFoundError(f"{folder} is not an exported policy: `python scripts/export.py RUN` writes one")
    description = read_whole(folder, KIND, FORMAT, PolicyFile)
    content = read_file(folder / PARAMS)
    try:
        params = serialization.msgpack_restore(content)
        return description, {name: params[name] for name in params if isinstance(params[name], np.ndarray)}
    except Exception as error:  # msgpack and flax raise many types of errors; all bytes are in memory
        raise DamagedError(f"policy {folder} is damaged: {one_line(error)}") from error


def load_policy(folder: str | Path, trust: Sequence[str] = ()) -> tuple[InitializeCarry, Act]:
    """(initialize_carry, act) of an exported policy; see src_pure.load_policy."""
    experiment, params = load(Path(folder), trust)

    @jax.jit
    def step(params: Params, key: Key | None, carry: Carry, obs: Array, reset: Array) -> tuple[Carry, Array]:
        return decide(experiment, params, key, carry, obs, reset)[:2]

    @in_32_bits
    def act(key: Key | None, carry: Carry, obs: Array, reset: Array) -> tuple[Carry, Array]:
        return step(params, key, *check_inputs(experiment, carry, obs, reset))

    return experiment.policy.initialize_carry, act


def load_actor_critic(folder: str | Path, trust: Sequence[str] = ()) -> tuple[InitializeCarry, Apply]:
    """(initialize_carry, apply) of an exported policy; see src_pure.load_actor_critic."""
    experiment, params = load(Path(folder), trust)

    @jax.jit
    def step(params: Params, carry: Carry, obs: Array, reset: Array) -> tuple[Carry, PolicyOutput]:
        return policy_step(experiment.policy.apply, params, carry, obs, reset)

    @in_32_bits
    def apply(carry: Carry, obs: Array, reset: Array) -> tuple[Carry, PolicyOutput]:
        return step(params, *check_inputs(experiment, carry, obs, reset))

    return experiment.policy.initialize_carry, apply


def load(folder: Path, trust: Sequence[str]) -> tuple[Experiment, Params]:
    """(the experiment, the parameters) of an exported policy."""
    description, arrays = read_params(folder)
    experiment = build(description.config, trust)
    return experiment, with_params(experiment, arrays, folder)


def decide(
    experiment: Experiment, params: Params, key: Key | None, carry: Carry, obs: Array, reset: Array
) -> tuple[Carry, Array, PolicyOutput]:
    """(carry, action, output) for obs [B, ...]; the most likely action if the key is None, else a sampled one.

    Action vectors are clipped to the action space, as in training by VectorEnv.
    """
    carry, action, output = acting_step(key, experiment.policy.apply, params, carry, obs, reset)
    return carry, experiment.env.action_space.clip(action), output


def check_inputs(experiment: Experiment, carry: Carry, obs: Array, reset: Array) -> tuple[Carry, Array, Array]:
    """(carry, obs, reset), the last two as arrays; raises ValueError for shapes or dtypes that do not fit the task."""
    space, obs, reset = experiment.env.observation_space, jnp.asarray(obs), jnp.asarray(reset)
    if (obs.shape[1:], obs.dtype) != (space.shape, space.dtype) or reset.shape != obs.shape[:1] or not len(obs):
        wanted = f"obs {space.dtype} [B, {', '.join(map(str, space.shape))}] and reset [B], B at least 1"
        raise ValueError(f"the policy needs {wanted}, got {obs.dtype} {list(obs.shape)} and {list(reset.shape)}")
    sizes = {len(x) for x in jax.tree.leaves(carry)} - {len(obs)}
    if sizes:
        raise ValueError(f"the policy needs a carry of batch size {len(obs)}, as obs has, got {min(sizes)}")
    return carry, obs, reset


def with_params(experiment: Experiment, arrays: dict[str, np.ndarray], source: Path) -> Params:
    """The parameters of an experiment's policy from arrays by name; raises CheckpointError if they do not fit."""
    try:
        return fill_like(params_of(experiment), arrays)
    except ValueError as error:
        raise CheckpointError(f"{source} was written by another version of its model: {error}") from error


def read_warm_start(folder: Path, like: Params) -> Params:
    """The parameters of an exported policy, to start runs from; like: the parameters that they replace, [R, ...].

    Raises ConfigError if the policy cannot be read, or naming the first parameter that does not fit.
    """
    try:
        _, arrays = read_params(folder)
        return fill_like(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), like), arrays)
    except (CheckpointError, OSError) as error:
        raise ConfigError(f"warm_start: {one_line(error)}") from error
    except ValueError as error:
        raise ConfigError(f"warm_start={folder} is not this configuration's policy: {error}") from error


def params_of(experiment: Experiment) -> Params:
    """Shapes and dtypes of an experiment's parameters, without computing them."""
    policy, space = experiment.policy, experiment.env.observation_space

    def init() -> Params:
        obs, reset = jnp.zeros((1, 1, *space.shape), space.dtype), jnp.ones((1, 1), bool)
        return policy.init(jax.random.key(0), policy.initialize_carry(1), obs, reset)

    return jax.eval_shape(init)
