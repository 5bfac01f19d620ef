"""Gradient descent, shared by the algorithms: clipping, Adam or RAdam, an annealed learning rate, minibatches."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import lax

from src_pure.types import Array, Carry, Key, Learner, Metrics, Number, Trajectory

ANNEALED = "the learning rate now falls to 0"


def adam(
    learning_rate: Number, eps: Number, max_grad_norm: Number, anneal: bool, num_updates: Number, steps_per_update: int
) -> optax.GradientTransformation:
    """Adam (Kingma and Ba, arXiv:1412.6980) on clipped gradients; see `clipped`."""
    return clipped(optax.scale_by_adam(eps=eps), learning_rate, max_grad_norm, anneal, num_updates, steps_per_update)


def radam(
    learning_rate: Number, eps: Number, max_grad_norm: Number, anneal: bool, num_updates: Number, steps_per_update: int
) -> optax.GradientTransformation:
    """Rectified Adam (Liu et al., arXiv:1908.03265) on clipped gradients; see `clipped`."""
    return clipped(optax.scale_by_radam(eps=eps), learning_rate, max_grad_norm, anneal, num_updates, steps_per_update)


def clipped(
    scale: optax.GradientTransformation,
    learning_rate: Number,
    max_grad_norm: Number,
    anneal: bool,
    num_updates: Number,
    steps_per_update: int,
) -> optax.GradientTransformation:
    """Clips by global norm (inf: no clip), then applies `scale` and the learning rate.

    If annealed, the rate falls linearly to 0 at num_updates and stays there.
    """

    def schedule(count):
        update = count // steps_per_update
        return -learning_rate * (jnp.maximum(0.0, 1.0 - update / num_updates) if anneal else 1.0)

    return optax.chain(_clip_by_global_norm(max_grad_norm), scale, optax.scale_by_schedule(schedule))


def _clip_by_global_norm(max_norm: Number) -> optax.GradientTransformation:
    """As optax.clip_by_global_norm, with `global_norm`."""

    def update(updates, state, params=None):
        norm = global_norm(updates)
        return jax.tree.map(lambda x: lax.select(norm < max_norm, x, x / norm * max_norm), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def global_norm(tree) -> Array:
    """The norm of all numbers of a pytree; on a GPU two sums for each of its arrays would be two launches each."""
    return lax.platform_dependent(tree, cpu=optax.tree.norm, default=_joined_norm)


def _joined_norm(tree) -> Array:
    joined = jnp.concatenate([x.ravel() for x in jax.tree.leaves(tree)])
    return jnp.sqrt(jnp.sum(jnp.square(joined)))


def apply_gradient(
    optimizer: optax.GradientTransformation, learner: Learner, loss: Callable[..., tuple[Array, Metrics]], *args
) -> tuple[Learner, Metrics]:
    """(learner, metrics) after one step down the gradient of loss(params, *args) -> (loss, metrics).

    Adds grad_norm, measured before clipping, to the metrics.
    """
    gradient, metrics = jax.grad(lambda params: loss(params, *args), has_aux=True)(learner.params)
    updates, opt_state = optimizer.update(gradient, learner.opt_state, learner.params)
    metrics = metrics | {"grad_norm": global_norm(gradient)}
    return learner._replace(params=optax.apply_updates(learner.params, updates), opt_state=opt_state), metrics


def over_minibatches(
    step: Callable[[Learner, Carry, tuple[Trajectory, Array]], tuple[Learner, Metrics]],
    key: Key,
    learner: Learner,
    carry: Carry,
    batch: tuple[Trajectory, Array],
    num_epochs: int,
    num_minibatches: int,
) -> tuple[Learner, Metrics]:
    """(learner, metrics [steps]) after num_epochs shuffled passes, each in num_minibatches of whole sequences.

    step(learner, carry, batch) -> (learner, metrics) gets one minibatch: carry [B, ...], batch [T, B, ...].
    """
    num_rows = jax.tree.leaves(batch)[0].shape[1]

    def minibatch_step(learner: Learner, rows: Array) -> tuple[Learner, Metrics]:
        own_carry, own_batch = jax.tree.map(lambda x: x[rows], carry), jax.tree.map(lambda x: x[:, rows], batch)
        return step(learner, own_carry, own_batch)

    orders = jax.vmap(lambda key: jax.random.permutation(key, num_rows))(jax.random.split(key, num_epochs))
    return lax.scan(minibatch_step, learner, orders.reshape(num_epochs * num_minibatches, -1))


def check_minibatches(num_envs: int, num_epochs: int, num_minibatches: int) -> None:
    """Raises ValueError if the environments cannot be split into these minibatches."""
    if num_envs % num_minibatches:
        raise ValueError(f"num_envs must be a multiple of algo.num_minibatches, got {num_envs} and {num_minibatches}")
    if num_epochs * num_envs >= 2**31:
        raise ValueError(f"algo.update_epochs * num_envs must be below 2**31, got {num_epochs} and {num_envs}")
