"""Policies on their own: what one run of a training has learned, in a small folder that can be used anywhere.

<folder>/  params.msgpack  the parameters by their names, in flax's serialisation
           policy.json     format, run, seed, update, the resolved configuration
           sha256.json     the digests of both
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization

from src_pure.build import ConfigError, Experiment, build
from src_pure.ops import distribution
from src_pure.runs.checkpoint import Checkpoint, RemovedError, filled, latest
from src_pure.runs.rundir import ParquetTable, RunDir, main_metric, over_episodes
from src_pure.runs.sealed import CheckpointError, one_line, sealing, unsealed
from src_pure.train import policy_step
from src_pure.types import Array, Carry, Key, Params

FORMAT = 1  # of the folder described above
KIND, PARAMS = "policy", "params.msgpack"
IN_STATE = "learner.params."  # what names of parameters begin with in a checkpoint

InitializeCarry = Callable[[int], Carry]
Act = Callable[[Key | None, Carry, Array, Array], tuple[Carry, Array]]


def export_policy(
    checkpoint: Checkpoint, arrays: dict[str, np.ndarray], run: int, folder: Path, trust: Sequence[str] = ()
) -> None:
    """Writes the policy of one run of a checkpoint's arrays; raises FileExistsError for a folder that is there."""
    params = params_of_run(checkpoint, arrays, run)
    if folder.exists():
        raise FileExistsError(f"{folder} is there already; choose another out=FOLDER or delete it")
    seed = build(checkpoint.config, trust).settings.seeds[run]
    description = {"format": FORMAT, "run": run, "seed": seed, "update": checkpoint.update}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"cannot write {folder}: {error.strerror}") from error
    with sealing(folder, KIND, description | {"config": checkpoint.config}) as partial:
        (partial / PARAMS).write_bytes(serialization.msgpack_serialize(params))


def params_of_run(checkpoint: Checkpoint, arrays: dict[str, np.ndarray], run: int) -> dict[str, np.ndarray]:
    """The parameters of one run of a checkpoint's arrays by name; raises ConfigError for a run that is none of it."""
    num_seeds = checkpoint.config["num_seeds"]
    if run not in range(num_seeds):
        raise ConfigError(f"run must be one of 0 to {num_seeds - 1}, got {run}")
    return {name.removeprefix(IN_STATE): x[run] for name, x in arrays.items() if name.startswith(IN_STATE)}


def newest_checkpoint(path: Path) -> tuple[Checkpoint, dict[str, np.ndarray], list[str]]:
    """(the newest whole checkpoint of a run folder, its arrays, a line for each damaged one behind it).

    Nothing is touched. A training may remove the checkpoint meanwhile: then there is a newer one.
    """
    if not RunDir.continuable(path):
        raise ConfigError(f"{path} is no run folder with checkpoints")
    while True:
        try:
            found, damaged = latest(path / "checkpoints")
            if found is None:
                raise CheckpointError("; ".join([*damaged.values(), f"there is no whole checkpoint in {path}"]))
            return found, found.arrays_beside_training(), list(damaged.values())
        except RemovedError:
            continue


def best_run(path: Path, metric: str | None) -> tuple[int, str]:
    """(the run whose sampled policy had the largest `metric` in the last evaluation, a line that says so).

    Without a metric it is success_rate, where the task has it, else episode_return.
    """
    evaluation = ParquetTable(path / "evaluation.parquet").rows
    if evaluation is None:
        raise ConfigError(f"{path} has no evaluation yet that says which run is best: name one, run=0")
    rows = evaluation.to_pandas()
    known = [name for name in rows if over_episodes(name)]
    metric = metric or main_metric(known)
    if metric not in known:
        raise ConfigError(f"metric must be one of {', '.join(known)}, got {metric!r}")
    rows = rows[(rows["update"] == rows["update"].max()) & (rows["mode"] == "sampled") & rows[metric].notna()]
    if rows.empty:
        raise ConfigError(f"no run has a {metric} in the last evaluation of {path}: name one, run=0")
    best = rows.loc[rows[metric].idxmax()]
    return int(best["run"]), (
        f"run {best['run']} (seed {best['seed']}) is best: {metric} {best[metric]:.3f}, sampled, "
        f"in the evaluation after update {best['update']}"
    )


def read_params(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(the description of an exported policy, its parameters by name).

    Raises CheckpointError for a folder that is damaged or of another format, FileNotFoundError where there is none.
    """
    if not (folder / f"{KIND}.json").is_file():
        raise FileNotFoundError(f"{folder} is no exported policy: `python scripts/export.py RUN` writes one")
    description = unsealed(folder, KIND, FORMAT)
    return description, serialization.msgpack_restore((folder / PARAMS).read_bytes())


def load_policy(folder: str | Path, trust: Sequence[str] = ()) -> tuple[InitializeCarry, Act]:
    """(initialize_carry, act) of an exported policy; see src_pure.load_policy."""
    folder = Path(folder)
    description, arrays = read_params(folder)
    experiment = build(description["config"], trust)
    params = with_params(experiment, arrays, folder)
    policy, space = experiment.policy, experiment.env.observation_space

    @jax.jit
    def step(params: Params, key: Key | None, carry: Carry, obs: Array, reset: Array) -> tuple[Carry, Array]:
        carry, output = policy_step(policy.apply, params, carry, obs, reset)
        return carry, distribution.mode(output.logits) if key is None else distribution.sample(key, output.logits)

    def act(key: Key | None, carry: Carry, obs: Array, reset: Array) -> tuple[Carry, Array]:
        obs, reset = jnp.asarray(obs), jnp.asarray(reset)
        if (obs.shape[1:], obs.dtype) != (space.shape, space.dtype) or reset.shape != obs.shape[:1]:
            wanted = f"obs {space.dtype} [B, {', '.join(map(str, space.shape))}] and reset [B]"
            raise ValueError(f"act needs {wanted}, got {obs.dtype} {list(obs.shape)} and {list(reset.shape)}")
        return step(params, key, carry, obs, reset)

    return policy.initialize_carry, act


def with_params(experiment: Experiment, arrays: dict[str, np.ndarray], source: Path) -> Params:
    """The parameters of an experiment's policy from arrays by name; raises CheckpointError for another policy's."""
    try:
        return filled(params_of(experiment), arrays)
    except ValueError as error:
        raise CheckpointError(f"{source} was written by another version of its model: {error}") from error


def warm_start(folder: Path, like: Params) -> Params:
    """The parameters of an exported policy for runs that start from them; like [R, ...]: those that they replace.

    Raises ConfigError naming the first one that another policy has.
    """
    try:
        _, arrays = read_params(folder)
        return filled(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), like), arrays)
    except (CheckpointError, OSError) as error:
        raise ConfigError(f"warm_start: {one_line(error)}") from error
    except ValueError as error:
        raise ConfigError(f"warm_start={folder} is not this configuration's policy: {error}") from error


def params_of(experiment: Experiment) -> Params:
    """Shapes and dtypes of an experiment's parameters; nothing is computed."""
    policy, space = experiment.policy, experiment.env.observation_space

    def init() -> Params:
        obs, reset = jnp.zeros((1, 1, *space.shape), space.dtype), jnp.ones((1, 1), bool)
        return policy.init(jax.random.key(0), policy.initialize_carry(1), obs, reset)

    return jax.eval_shape(init)
