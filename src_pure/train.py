"""Training as one program: a loop over updates of a vmap over runs; an update acts, then learns from what it saw."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict
from jax import lax

from src_pure.algos.base import Algorithm, Apply
from src_pure.envs.base import EnvParams, VecEnv, with_params
from src_pure.models.policy import ActorCritic
from src_pure.ops import distribution
from src_pure.ops.precision import in_32_bits
from src_pure.types import (
    Actor,
    Array,
    Carry,
    Key,
    Learner,
    Metrics,
    Params,
    PolicyOutput,
    Timestep,
    TrainState,
    Trajectory,
)

InitFn = Callable[..., TrainState]  # (key, algo, task=None)
UpdateFn = Callable[..., tuple[TrainState, Metrics]]  # (state, algo, task=None)


def make_train(env: VecEnv, policy: ActorCritic) -> tuple[InitFn, UpdateFn]:
    """(init, update) of one run: init(key, algo) -> state, update(state, algo) -> (state, metrics of one update).

    Both take the numbers of the environment as a last argument, `task`; None: those that `env` was built with.

    The metrics are scalars: `episodes` that ended during the rollout, for each statistic of those episodes its sum
    under `sum/<name>`, what the algorithm reports, the norm of the new parameters, how many observations and rewards
    were no numbers, and the mean of what the model sows as intermediates on the observations behind the rollout.
    """
    apply = policy.apply

    @in_32_bits
    def init(key: Key, algo: Algorithm, task: EnvParams | None = None) -> TrainState:
        key_params, key_env, key_run = jax.random.split(key, 3)
        env_state, timestep = with_params(env, task).reset(key_env)
        carry = policy.initialize_carry(env.num_envs)
        params = policy.init(key_params, carry, timestep.obs[None], timestep.reset[None])
        learner = Learner(params, algo.optimizer().init(params))
        return TrainState(learner, Actor(env_state, timestep, carry), key_run, jnp.int32(0))

    @in_32_bits
    def update(state: TrainState, algo: Algorithm, task: EnvParams | None = None) -> tuple[TrainState, Metrics]:
        own_env = with_params(env, task)
        key, key_rollout, key_learn, key_refresh = jax.random.split(state.key, 4)
        params, start = state.learner.params, state.actor
        start = start._replace(env_state=own_env.refresh(key_refresh, start.env_state))
        actor, trajectory, episodes = rollout(key_rollout, own_env, apply, params, start, algo.num_steps)
        obs, reset = actor.timestep.obs[None], actor.timestep.reset[None]
        (_, output), sown = apply(params, actor.carry, obs, reset, mutable="intermediates")
        learner, losses = algo.update(key_learn, state.learner, apply, start.carry, trajectory, output.value[0])
        health = {
            "param_norm": optax.tree.norm(learner.params),
            "nonfinite_inputs": nonfinite_inputs(trajectory, actor.timestep.obs),
        }
        metrics = episodes | losses | health | sown_means(sown)
        return TrainState(learner, actor, key, state.update + 1), metrics

    return init, update


def nonfinite_inputs(trajectory: Trajectory, last_obs: Array) -> Array:
    """How many observations, with those behind the rollout, [B, ...], and rewards are NaN or infinite."""

    def count(x: Array, num_axes: int) -> Array:
        return jnp.sum(~jnp.isfinite(x).all(axis=tuple(range(num_axes, x.ndim))))

    return count(trajectory.obs, 2) + count(last_obs, 1) + count(trajectory.reward, 2)


def sown_means(sown: dict[str, Any]) -> Metrics:
    """The mean of each array that the model sowed as an intermediate, by its name."""
    arrays = flatten_dict(sown.get("intermediates", {}))
    return {path[-1]: jnp.mean(jnp.stack(values)) for path, values in arrays.items()}


def policy_step(apply: Apply, params: Params, carry: Carry, obs: Array, reset: Array) -> tuple[Carry, PolicyOutput]:
    """(carry, output without the axis of time) for one observation of each environment: obs [B, ...], reset [B]."""
    carry, output = apply(params, carry, obs[None], reset[None])
    return carry, jax.tree.map(lambda x: x[0], output)


def rollout(
    key: Key, env: VecEnv, apply: Apply, params: Params, actor: Actor, num_steps: int
) -> tuple[Actor, Trajectory, Metrics]:
    """(actor, trajectory [T, B], sums over the episodes that ended) after num_steps sampled actions."""

    def step(loop, key):
        actor, episodes = loop
        key_action, key_env = jax.random.split(key)
        carry, output = policy_step(apply, params, actor.carry, actor.timestep.obs, actor.timestep.reset)
        action = distribution.sample(key_action, output.logits)
        env_state, timestep = env.step(key_env, actor.env_state, action)
        transition = Trajectory(
            obs=actor.timestep.obs,
            reset=actor.timestep.reset,
            action=action,
            log_prob=distribution.log_prob(output.logits, action),
            value=output.value,
            reward=timestep.reward,
            terminated=timestep.terminated,
            truncated=timestep.truncated,
            ignored=timestep.ignored,
        )
        episodes = jax.tree.map(jnp.add, episodes, episode_sums(timestep))
        return (Actor(env_state, timestep, carry), episodes), transition

    nothing = jax.tree.map(jnp.zeros_like, episode_sums(actor.timestep))
    (actor, episodes), trajectory = lax.scan(step, (actor, nothing), jax.random.split(key, num_steps))
    return actor, trajectory, episodes


def episode_sums(timestep: Timestep) -> Metrics:
    """`episodes` that ended with this step, and `sum/<name>` of each of their statistics: scalars."""
    sums = {f"sum/{name}": jnp.sum(jnp.where(timestep.finished, x, 0.0)) for name, x in timestep.info.items()}
    return {"episodes": jnp.sum(timestep.finished), **sums}


def runs_of(algo: Algorithm, num_runs: int) -> Algorithm:
    """The same setting for every run: each number as [R]."""
    return jax.tree.map(lambda x: jnp.full(num_runs, x, jnp.float32), algo)


def init_runs(init: InitFn, keys: Key, algo: Algorithm, task: EnvParams | None = None) -> TrainState:
    """One TrainState whose leaves have an axis of runs in front; keys [R], leaves of algo and task [R].

    Run after run, not vmapped: initialisation is not the hot path, and vmapped QR factorisations can deadlock on CPU.
    """
    return lax.map(lambda x: init(*x), (keys, algo, task))


@in_32_bits
def run_updates(
    update: UpdateFn,
    state: TrainState,
    algo: Algorithm,
    num_updates: Array,
    max_updates: int,
    task: EnvParams | None = None,
) -> tuple[TrainState, Metrics]:
    """(state, metrics [max_updates, R]) after num_updates updates of every run; rows from num_updates on are zero.

    Leaves of state, algo and task have an axis of runs in front. num_updates may be traced, so that segments of any
    length are calls of one compiled program. A run whose loss, parameters, observations or rewards stop being finite
    keeps its parameters from then on: state.update [R] says how far each came. Its optimiser's state is NaN, so that it
    does not begin to learn again; keeping all of the old state would cost memory.
    """

    def update_while_finite(state: TrainState, algo: Algorithm, task: EnvParams | None) -> tuple[TrainState, Metrics]:
        new_state, metrics = update(state, algo, task)
        finite = (
            jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["param_norm"]) & (metrics["nonfinite_inputs"] == 0)
        )
        params, opt_state = new_state.learner
        params = jax.tree.map(lambda new, old: jnp.where(finite, new, old), params, state.learner.params)
        opt_state = jax.tree.map(lambda x: jnp.where(finite, x, jnp.nan) if _is_float(x) else x, opt_state)
        done = jnp.where(finite, new_state.update, state.update)
        return new_state._replace(learner=Learner(params, opt_state), update=done), metrics

    step = jax.jit(jax.vmap(update_while_finite))  # traced once, though its shapes are asked for first
    shapes = jax.eval_shape(step, state, algo, task)[1]
    metrics = jax.tree.map(lambda x: jnp.zeros((max_updates, *x.shape), x.dtype), shapes)

    def body(i: Array, loop: tuple[TrainState, Any]):
        state, metrics = loop
        state, row = step(state, algo, task)
        return state, jax.tree.map(lambda table, x: lax.dynamic_update_index_in_dim(table, x, i, 0), metrics, row)

    return lax.fori_loop(0, num_updates, body, (state, metrics))


def _is_float(x: Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)
