"""The usual way to train many runs in jax, the baseline of bench_lanes.py: `vmap` over a whole training.

Written after purejaxrl: a wrapper resets the environment, infos of every step are returned, minibatches are shuffled
environments. Nothing of src_pure is used. Task, model and PPO are those of the benchmark: T-Maze v2, a GRU of 64 units,
two heads with a hidden layer of 128.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState

CORRIDOR, TIME_LIMIT, NUM_ENVS, NUM_STEPS, EPOCHS, MINIBATCHES, UNITS, HEAD = 20, 1000, 8, 128, 4, 8, 64, 128
GAMMA, LAMBDA, CLIP, VALUE, ENTROPY = 0.99, 0.95, 0.2, 0.5, 0.01


class EnvState(NamedTuple):
    cue: jax.Array
    position: jax.Array
    time: jax.Array
    episode_return: jax.Array


def observe(state: EnvState, distractors: jax.Array) -> jax.Array:
    """[16]: cue on the first step, Gray code of the position, distractors."""
    cue = jnp.where(state.time == 0, jnp.stack([state.cue, 1 - state.cue]), 0)
    gray = state.position ^ (state.position >> 1)
    return jnp.concatenate([cue, (gray >> jnp.arange(8)) & 1, distractors]).astype(jnp.float32)


def reset(key: jax.Array) -> tuple[jax.Array, EnvState]:
    cue = jax.random.bernoulli(key).astype(jnp.int32)
    state = EnvState(cue, jnp.int32(0), jnp.int32(0), jnp.float32(0))
    return observe(state, jnp.zeros(6)), state


def step(key: jax.Array, state: EnvState, action: jax.Array) -> tuple:
    """(obs, state, reward, done, info) of a step; a new episode begins where one ended."""
    key_step, key_reset = jax.random.split(key)
    at_junction = state.position == CORRIDOR - 1
    turned = at_junction & (action < 2)
    success = turned & (action == state.cue)
    reward = jnp.where(turned, jnp.where(success, 4.0, -1.0), -0.1)
    move = jnp.where(action == 3, 1, 0) - jnp.where(action == 2, 1, 0)
    position = jnp.where(at_junction, state.position, jnp.clip(state.position + move, 0, CORRIDOR - 1))
    new = EnvState(state.cue, position, state.time + 1, state.episode_return + reward)
    done = turned | (new.time >= TIME_LIMIT)
    obs = observe(new, jax.random.bernoulli(key_step, shape=(6,)))
    obs, next_state = jax.tree.map(partial(jnp.where, done), reset(key_reset), (obs, new))
    info = {
        "returned_episode": done,
        "returned_episode_returns": new.episode_return,
        "returned_episode_lengths": new.time,
        "success": success,
    }
    return obs, next_state, reward, done, info


SPLIT: Any = {"params": False}


class ScannedGRU(nn.Module):
    @partial(nn.scan, variable_broadcast="params", in_axes=0, out_axes=0, split_rngs=SPLIT)
    @nn.compact
    def __call__(self, carry, x):
        inputs, resets = x
        carry = jnp.where(resets[:, None], 0.0, carry)
        return nn.GRUCell(UNITS)(carry, inputs)


class ActorCritic(nn.Module):
    @nn.compact
    def __call__(self, carry, x):
        carry, features = ScannedGRU()(carry, x)
        logits = nn.Dense(4)(nn.tanh(nn.Dense(HEAD)(features)))
        value = nn.Dense(1)(nn.tanh(nn.Dense(HEAD)(features)))
        return carry, logits, value[..., 0]


def forward(params: Any, carry: jax.Array, obs: jax.Array, done: jax.Array) -> Any:
    """(carry, logits [T, B, 4], value [T, B]) of a sequence."""
    return ActorCritic().apply(params, carry, (obs, done))


class Transition(NamedTuple):
    done: jax.Array
    action: jax.Array
    value: jax.Array
    reward: jax.Array
    log_prob: jax.Array
    obs: jax.Array
    info: dict[str, jax.Array]


def train(runner_state: tuple, num_updates: int) -> tuple[tuple, dict[str, jax.Array]]:
    """(runner_state, infos [U, T, B]) of one run; to be vmapped over runs."""
    return jax.lax.scan(update, runner_state, None, num_updates)


def begin(key: jax.Array) -> tuple:
    """The runner_state before the first update."""
    network = ActorCritic()
    key, key_params, key_env = jax.random.split(key, 3)
    obs, env_state = jax.vmap(reset)(jax.random.split(key_env, NUM_ENVS))
    carry, done = jnp.zeros((NUM_ENVS, UNITS)), jnp.zeros(NUM_ENVS, bool)
    params = network.init(key_params, carry, (obs[None], done[None]))
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(2.5e-4, eps=1e-5))
    state = TrainState.create(apply_fn=network.apply, params=params, tx=optimizer)
    return state, env_state, obs, done, carry, key


def update(runner_state: tuple, _) -> tuple[tuple, dict[str, jax.Array]]:
    state, carry_before = runner_state[0], runner_state[4]
    runner_state, transitions = jax.lax.scan(act, runner_state, None, NUM_STEPS)
    _, env_state, obs, done, carry, key = runner_state
    _, _, last_value = forward(state.params, carry, obs[None], done[None])
    advantages, targets = gae(transitions, last_value[0], done)
    (state, *_, key), _ = jax.lax.scan(
        epoch, (state, carry_before, transitions, advantages, targets, key), None, EPOCHS
    )
    return (state, env_state, obs, done, carry, key), transitions.info


def act(runner_state: tuple, _) -> tuple[tuple, Transition]:
    state, env_state, obs, done, carry, key = runner_state
    key, key_action, key_env = jax.random.split(key, 3)
    carry, logits, value = forward(state.params, carry, obs[None], done[None])
    action = jax.random.categorical(key_action, logits[0])
    log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits[0]), action[:, None], -1)[:, 0]
    stepped = jax.vmap(step)(jax.random.split(key_env, NUM_ENVS), env_state, action)
    new_obs, env_state, reward, new_done, info = stepped
    transition = Transition(done, action, value[0], reward, log_prob, obs, info)
    return (state, env_state, new_obs, new_done, carry, key), transition


def gae(transitions: Transition, last_value: jax.Array, last_done: jax.Array) -> tuple[jax.Array, jax.Array]:
    def back(later, transition):
        advantage, next_value, next_done = later
        delta = transition.reward + GAMMA * next_value * (1 - next_done) - transition.value
        advantage = delta + GAMMA * LAMBDA * (1 - next_done) * advantage
        return (advantage, transition.value, transition.done), advantage

    start = (jnp.zeros_like(last_value), last_value, last_done)
    _, advantages = jax.lax.scan(back, start, transitions, reverse=True, unroll=16)
    return advantages, advantages + transitions.value


def epoch(learning: tuple, _) -> tuple[tuple, jax.Array]:
    state, carry, transitions, advantages, targets, key = learning
    key, key_order = jax.random.split(key)
    order = jax.random.permutation(key_order, NUM_ENVS)
    batch = (carry[None], transitions, advantages, targets)

    def minibatches(x):
        x = jnp.take(x, order, axis=1)
        return jnp.swapaxes(x.reshape(x.shape[0], MINIBATCHES, -1, *x.shape[2:]), 0, 1)

    def learn(state, minibatch):
        loss, gradients = jax.value_and_grad(ppo_loss)(state.params, minibatch)
        return state.apply_gradients(grads=gradients), loss

    state, losses = jax.lax.scan(learn, state, jax.tree.map(minibatches, batch))
    return (state, carry, transitions, advantages, targets, key), losses


def ppo_loss(params: Any, minibatch: tuple) -> jax.Array:
    carry, old, advantages, targets = minibatch
    _, logits, value = forward(params, carry[0], old.obs, old.done)
    log_probs = jax.nn.log_softmax(logits)
    log_prob = jnp.take_along_axis(log_probs, old.action[..., None], -1)[..., 0]
    ratio = jnp.exp(log_prob - old.log_prob)
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    actor = -jnp.minimum(ratio * advantages, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * advantages).mean()
    entropy = -(jnp.exp(log_probs) * log_probs).sum(-1).mean()
    return actor + VALUE * 0.5 * jnp.square(value - targets).mean() - ENTROPY * entropy
