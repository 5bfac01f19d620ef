"""Training as one program: a loop over updates, vmapped over runs; an update acts, then learns from its rollout."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict
from jax import lax

from src_pure.algos.base import Algorithm, Apply
from src_pure.bits import in_32_bits
from src_pure.distributions import Distribution
from src_pure.envs.base import EnvParams, VecEnv, with_params
from src_pure.models.policy import Policy
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


def make_train(env: VecEnv, policy: Policy) -> tuple[InitFn, UpdateFn]:
    """(init, update) of one run: init(key, algo) -> state, update(state, algo) -> (state, metrics of one update).

    Both take the numbers of the environment as a last argument, `task`; None: those that `env` was built with.

    The metrics are scalars: `episodes`, the number that ended during the rollout; `sum/<name>`, the sum of each
    statistic over those episodes; what the algorithm reports; the norm of the new parameters; how many observations and
    rewards are not finite; and the mean of each intermediate that the model sows on the observations after the rollout.
    """
    apply = policy.apply

    @in_32_bits
    def init(key: Key, algo: Algorithm, task: EnvParams | None = None) -> TrainState:
        key_params, key_env, key_run = jax.random.split(key, 3)
        env_state, timestep = with_params(env, task).reset(key_env)
        carry = policy.initialize_carry(env.num_envs)
        params = policy.init(key_params, carry, timestep.obs[None], timestep.reset[None])
        learner = algo.init(params, partial(example_of_rollout, env, policy, algo))
        return TrainState(learner, Actor(env_state, timestep, carry), key_run, jnp.int32(0))

    @in_32_bits
    def update(state: TrainState, algo: Algorithm, task: EnvParams | None = None) -> tuple[TrainState, Metrics]:
        own_env = with_params(env, task)
        key, key_rollout, key_learn, key_refresh = jax.random.split(state.key, 4)
        params, start = state.learner.params, state.actor
        with jax.named_scope("environment"):  # scopes name parts of the program for profilers and scripts/preview.py
            start = start._replace(env_state=own_env.refresh(key_refresh, start.env_state))
        explore = partial(algo.explore, update=state.update)
        actor, trajectory, episodes = rollout(key_rollout, own_env, apply, params, start, algo.num_steps, explore)
        obs, reset = actor.timestep.obs[None], actor.timestep.reset[None]
        with jax.named_scope("learning"):
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
    """The number of observations and rewards with NaN or infinity; last_obs: the observations after the rollout."""

    def count(x: Array, num_axes: int) -> Array:
        return jnp.sum(~jnp.isfinite(x).all(axis=tuple(range(num_axes, x.ndim))))

    return count(trajectory.obs, 2) + count(last_obs, 1) + count(trajectory.reward, 2)


def sown_means(sown: dict[str, Any]) -> Metrics:
    """The mean of each intermediate that the model sowed, by name."""
    arrays = flatten_dict(sown.get("intermediates", {}))
    return {path[-1]: jnp.mean(jnp.stack(values)) for path, values in arrays.items()}


def policy_step(apply: Apply, params: Params, carry: Carry, obs: Array, reset: Array) -> tuple[Carry, PolicyOutput]:
    """(carry, output without a time axis) for one observation of each environment: obs [B, ...], reset [B]."""
    carry, output = apply(params, carry, obs[None], reset[None])
    return carry, jax.tree.map(lambda x: x[0], output)


def acting_step(
    key: Key | None,
    apply: Apply,
    params: Params,
    carry: Carry,
    obs: Array,
    reset: Array,
    greedy: Array | bool = False,
    explore: Callable[[Distribution], Distribution] | None = None,
) -> tuple[Carry, Array, PolicyOutput]:
    """(carry, action, output) for one observation of each environment: obs [B, ...], reset [B].

    Without a key, or if greedy (which may be traced), the action is the likeliest one; otherwise it is sampled.
    `explore`, if given, first replaces the distribution over actions, in `output` too.
    """
    carry, output = policy_step(apply, params, carry, obs, reset)
    if explore is not None:
        output = output._replace(logits=explore(output.actions))
    if key is None:
        return carry, output.actions.mode(), output
    sampled = output.actions.sample(key)
    return carry, sampled if greedy is False else jnp.where(greedy, output.actions.mode(), sampled), output


def rollout(
    key: Key,
    env: VecEnv,
    apply: Apply,
    params: Params,
    actor: Actor,
    num_steps: int,
    explore: Callable[[Distribution], Distribution] | None = None,
) -> tuple[Actor, Trajectory, Metrics]:
    """(actor, trajectory [T, B], sums over the episodes that ended) after num_steps actions drawn by `acting_step`."""

    def step(loop, key):
        actor, episodes = loop
        key_action, key_env = jax.random.split(key)
        obs, reset = actor.timestep.obs, actor.timestep.reset
        with jax.named_scope("acting"):
            carry, action, output = acting_step(key_action, apply, params, actor.carry, obs, reset, explore=explore)
        with jax.named_scope("environment"):
            env_state, timestep = env.step(key_env, actor.env_state, action)
        transition = Trajectory(
            obs=obs,
            reset=reset,
            action=action,
            log_prob=output.actions.log_prob(action),
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


def example_of_rollout(env: VecEnv, policy: Policy, algo: Algorithm) -> tuple[Carry, Trajectory]:
    """(carry [B, ...], trajectory [T, B, ...]) of one update, as shapes and dtypes."""

    def once(key: Key) -> tuple[Carry, Trajectory]:
        env_state, timestep = env.reset(key)
        carry = policy.initialize_carry(env.num_envs)
        params = policy.init(key, carry, timestep.obs[None], timestep.reset[None])
        actor = Actor(env_state, timestep, carry)
        return carry, rollout(key, env, policy.apply, params, actor, algo.num_steps)[1]

    return jax.eval_shape(once, jax.random.key(0))


def episode_sums(timestep: Timestep) -> Metrics:
    """Scalars: `episodes`, the number that ended with this step, and `sum/<name>` of each of their statistics."""
    sums = {f"sum/{name}": jnp.sum(jnp.where(timestep.finished, x, 0.0)) for name, x in timestep.info.items()}
    return {"episodes": jnp.sum(timestep.finished), **sums}


def init_runs(init: InitFn, keys: Key, algo: Algorithm, task: EnvParams | None = None) -> TrainState:
    """One TrainState with leaves [R, ...]; keys [R], leaves of algo and task [R, ...].

    Runs are initialised one after another, not vmapped: speed does not matter here, and vmapped QR factorisations can
    deadlock on CPU.
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

    Leaves of state, algo and task are [R, ...]. num_updates may be traced, so that one compiled program runs segments
    of any length. A run whose loss, parameters, observations or rewards stop being finite keeps its parameters from
    then on; state.update [R] counts the updates that each run completed. All other floats of its learner become NaN, so
    that it cannot resume learning; keeping the whole old state instead would cost memory.
    """

    def update_while_finite(state: TrainState, algo: Algorithm, task: EnvParams | None) -> tuple[TrainState, Metrics]:
        new_state, metrics = update(state, algo, task)
        finite = (
            jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["param_norm"]) & (metrics["nonfinite_inputs"] == 0)
        )
        params, *rest = new_state.learner
        params = jax.tree.map(lambda new, old: jnp.where(finite, new, old), params, state.learner.params)
        rest = jax.tree.map(lambda x: jnp.where(finite, x, jnp.nan) if _is_float(x) else x, rest)
        done = jnp.where(finite, new_state.update, state.update)
        return new_state._replace(learner=Learner(params, *rest), update=done), metrics

    step = jax.jit(jax.vmap(update_while_finite))  # jit, so that eval_shape and the loop share one trace
    shapes = jax.eval_shape(step, state, algo, task)[1]
    metrics = jax.tree.map(lambda x: jnp.zeros((max_updates, *x.shape), x.dtype), shapes)

    def body(i: Array, loop: tuple[TrainState, Any]):
        state, metrics = loop
        state, row = step(state, algo, task)
        return state, jax.tree.map(lambda table, x: lax.dynamic_update_index_in_dim(table, x, i, 0), metrics, row)

    return lax.fori_loop(0, num_updates, body, (state, metrics))


def _is_float(x: Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)
