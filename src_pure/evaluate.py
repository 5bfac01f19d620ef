"""Evaluation: the policy plays with separate environments and keys; the training state is only read."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from src_pure.bits import in_32_bits
from src_pure.distributions import Distribution
from src_pure.envs.base import EnvParams, VecEnv, with_params
from src_pure.models.policy import Policy
from src_pure.train import acting_step, episode_sums
from src_pure.types import Actor, Array, Carry, Key, Metrics, Params, Timestep

FEW = 8  # once only one episode of so many is still being played, the network acts in these alone

Act = Callable[[Key, Actor], tuple[Carry, Array]]


class Played(NamedTuple):
    """How far an evaluation has come."""

    actor: Actor
    playing: Array  # [B] bool
    episodes: Metrics  # sums over those that ended or were cut off, and `unfinished`, how many were cut off
    time: Array  # [] int32


def make_evaluate(env: VecEnv, policy: Policy, max_steps: int) -> Callable[..., Metrics]:
    """evaluate(key, params, greedy) -> metrics: each environment plays one episode, so long ones count like short ones.

    greedy: take the likeliest action instead of a sampled one; may be traced. A last argument, `task`, holds the
    numbers of the environment; None: those that `env` was built with.
    The metrics are those of training (`episodes`, `sum/<name>`) and `unfinished`, the number of episodes cut off after
    max_steps. Those count with their statistics so far, but as unsuccessful.
    """

    def play(key: Key, env: VecEnv, act: Act, played: Played, most: int) -> Played:
        """How far it has come once at most `most` episodes are being played; none are after max_steps."""

        def going_on(played: Played) -> Array:
            return (played.time < max_steps) & (jnp.sum(played.playing) > most)

        def step(played: Played) -> Played:
            actor, playing, episodes, time = played
            key_action, key_env = jax.random.split(jax.random.fold_in(key, time))
            with jax.named_scope("acting"):
                carry, action = act(key_action, actor)
            with jax.named_scope("environment"):
                env_state, timestep = env.step(key_env, actor.env_state, action)
            first_end = timestep._replace(finished=timestep.finished & playing)
            episodes = added(episodes, first_end, 0)
            return Played(Actor(env_state, timestep, carry), playing & ~timestep.finished, episodes, time + 1)

        played = lax.while_loop(going_on, step, played)
        cut = played.playing & (played.time >= max_steps)
        episodes = added(played.episodes, cut_off(played.actor.timestep, cut), jnp.sum(cut))
        return played._replace(playing=played.playing & ~cut, episodes=episodes)

    @in_32_bits
    def evaluate(key: Key, params: Params, greedy: Array | bool, task: EnvParams | None = None) -> Metrics:
        own_env = with_params(env, task)
        key_reset, key_run = jax.random.split(key)
        with jax.named_scope("environment"):
            env_state, timestep = own_env.reset(key_reset)
        actor = Actor(env_state, timestep, policy.initialize_carry(env.num_envs))
        nothing = jax.tree.map(jnp.zeros_like, episode_sums(timestep) | {"unfinished": jnp.int32(0)})
        played = Played(actor, jnp.ones(env.num_envs, bool), nothing, jnp.int32(0))

        def act(key: Key, actor: Actor) -> tuple[Carry, Array]:
            obs, reset = actor.timestep.obs, actor.timestep.reset
            return acting_step(key, policy.apply, params, actor.carry, obs, reset, greedy)[:2]

        few = env.num_envs // FEW
        played = play(key_run, own_env, act, played, few)
        if few == 0:
            return played.episodes
        index = jnp.nonzero(played.playing, size=few, fill_value=env.num_envs)[0]  # num_envs: no environment

        def act_in_few(key: Key, actor: Actor) -> tuple[Carry, Array]:
            """As `act`, but only the carries of these environments are there, and the other actions mean nothing.

            Actions are sampled for all environments, so that these get the numbers that they would get with `act`.
            """
            obs, reset = actor.timestep.obs[index], actor.timestep.reset[index]
            spread = partial(spread_over, index, env.num_envs)
            return acting_step(key, policy.apply, params, actor.carry, obs, reset, greedy, spread)[:2]

        few_carries = jax.tree.map(lambda x: x[index], played.actor.carry)
        played = played._replace(actor=played.actor._replace(carry=few_carries))
        return play(key_run, own_env, act_in_few, played, 0).episodes

    return evaluate


def spread_over(index: Array, number: int, distribution: Distribution) -> Distribution:
    """The distribution of `number` environments, with that of the given ones, [N, ...], at index [N], 0 elsewhere."""
    return jax.tree.map(
        lambda x: jnp.zeros((number, *x.shape[1:]), x.dtype).at[index].set(x, mode="drop"), distribution
    )


def added(episodes: Metrics, timestep: Timestep, unfinished: Array | int) -> Metrics:
    """The sums, with the episodes that finished at a timestep; unfinished: how many of them were cut off."""
    return jax.tree.map(jnp.add, episodes, episode_sums(timestep) | {"unfinished": jnp.int32(unfinished)})


def cut_off(timestep: Timestep, playing: Array) -> Timestep:
    """The timestep, but every episode still playing ([B]) ends here without success."""
    failed = {name: jnp.zeros_like(x) for name, x in timestep.info.items() if name == "success"}
    return timestep._replace(finished=playing, info=timestep.info | failed)
