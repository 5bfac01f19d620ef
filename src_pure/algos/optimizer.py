"""The optimiser that the algorithms share: clipped Adam with a constant or a linearly annealed learning rate."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from src_pure.types import Array, Learner, Metrics


def adam(
    learning_rate: Array, eps: Array, max_grad_norm: Array, anneal: bool, num_updates: Array, steps_per_update: int
) -> optax.GradientTransformation:
    """Adam after a clip by global norm (inf: no clip); annealed, the rate falls to 0 at num_updates and stays there."""

    def schedule(count):
        update = count // steps_per_update
        return -learning_rate * (jnp.maximum(0.0, 1.0 - update / num_updates) if anneal else 1.0)

    return optax.chain(
        optax.clip_by_global_norm(max_grad_norm), optax.scale_by_adam(eps=eps), optax.scale_by_schedule(schedule)
    )


def apply_gradient(
    optimizer: optax.GradientTransformation, learner: Learner, loss: Callable[..., tuple[Array, Metrics]], *args
) -> tuple[Learner, Metrics]:
    """(learner, metrics) after one step down the gradient of loss(params, *args) -> (loss, metrics).

    The metrics gain grad_norm, before the clip.
    """
    gradient, metrics = jax.grad(lambda params: loss(params, *args), has_aux=True)(learner.params)
    updates, opt_state = optimizer.update(gradient, learner.opt_state, learner.params)
    metrics = metrics | {"grad_norm": optax.tree.norm(gradient)}
    return Learner(optax.apply_updates(learner.params, updates), opt_state), metrics
