"""Evaluation: the policy plays with separate environments and keys; the training state is only read."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from src_pure.bits import in_32_bits
from src_pure.envs.base import EnvParams, VecEnv, with_params
from src_pure.models.policy import Policy
from src_pure.train import acting_step, episode_sums
from src_pure.types import Actor, Array, Key, Metrics, Params, Timestep


def make_evaluate(env: VecEnv, policy: Policy, max_steps: int) -> Callable[..., Metrics]:
    """evaluate(key, params, greedy) -> metrics: each environment plays one episode, so long ones count like short ones.

    greedy: take the likeliest action instead of a sampled one; may be traced. A last argument, `task`, holds the
    numbers of the environment; None: those that `env` was built with.
    The metrics are those of training (`episodes`, `sum/<name>`) and `unfinished`, the number of episodes cut off after
    max_steps. Those count with their statistics so far, but as unsuccessful.
    """

    @in_32_bits
    def evaluate(key: Key, params: Params, greedy: Array | bool, task: EnvParams | None = None) -> Metrics:
        own_env = with_params(env, task)
        key_reset, key_run = jax.random.split(key)
        env_state, timestep = own_env.reset(key_reset)
        actor = Actor(env_state, timestep, policy.initialize_carry(env.num_envs))

        def going_on(loop):
            _, playing, _, time = loop
            return (time < max_steps) & jnp.any(playing)

        def step(loop):
            actor, playing, episodes, time = loop
            key_action, key_env = jax.random.split(jax.random.fold_in(key_run, time))
            obs, reset = actor.timestep.obs, actor.timestep.reset
            carry, action, _ = acting_step(key_action, policy.apply, params, actor.carry, obs, reset, greedy)
            env_state, timestep = own_env.step(key_env, actor.env_state, action)
            first_end = timestep._replace(finished=timestep.finished & playing)
            episodes = jax.tree.map(jnp.add, episodes, episode_sums(first_end))
            return Actor(env_state, timestep, carry), playing & ~timestep.finished, episodes, time + 1

        nothing = jax.tree.map(jnp.zeros_like, episode_sums(timestep))
        start = (actor, jnp.ones(env.num_envs, bool), nothing, jnp.int32(0))
        actor, playing, episodes, _ = lax.while_loop(going_on, step, start)
        episodes = jax.tree.map(jnp.add, episodes, episode_sums(cut_off(actor.timestep, playing)))
        return episodes | {"unfinished": jnp.sum(playing)}

    return evaluate


def cut_off(timestep: Timestep, playing: Array) -> Timestep:
    """The timestep, but every episode still playing ([B]) ends here without success."""
    failed = {name: jnp.zeros_like(x) for name, x in timestep.info.items() if name == "success"}
    return timestep._replace(finished=playing, info=timestep.info | failed)
