"""The recurrence of state space models: complex, elementwise, with one decay for all steps.

A complex array is a pair of real ones: they stay float32 pairs under any precision, and products of dense layers read
them as they are.
"""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from src_pure.ops.dense import SAVED
from src_pure.ops.gradients import NO_GRADIENT, define_gradient
from src_pure.types import Array

Activation = Literal["identity", "relu"]  # their gradients follow from their results alone


class Pair(NamedTuple):
    """A complex array: re + i im."""

    re: Array
    im: Array


def zeros(*shape: int) -> Pair:
    return Pair(jnp.zeros(shape), jnp.zeros(shape))


def polar(log_modulus: Array, angle: Array) -> Pair:
    """exp(log_modulus + i angle)."""
    modulus = jnp.exp(log_modulus)
    return Pair(modulus * jnp.cos(angle), modulus * jnp.sin(angle))


def times(a: Pair, b: Pair) -> Pair:
    return Pair(a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re)


def plus(a: Pair, b: Pair) -> Pair:
    return Pair(a.re + b.re, a.im + b.im)


def scaled(real: Array, a: Pair) -> Pair:
    return Pair(real * a.re, real * a.im)


def conjugate(a: Pair) -> Pair:
    return Pair(a.re, -a.im)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def complex_recurrence(activation: Activation, initial: Pair, decay: Pair, keep: Array, inputs: Pair) -> Pair:
    """All states h_t = f(keep_t decay h_{t-1} + inputs_t) [T, B, ...], with h_0 = initial [B, ...] and f elementwise.

    decay: [...]; keep: [T, B], 0 where the state is cleared first, else 1. inputs: [T, B, ...], or with a 1 in place of
    any of the last sizes where all of these states add the same number. The gradient keeps nothing but the states.
    """

    def step(state, x):
        keep, inputs = x
        state = plus(times(decay, scaled(_per_state(keep, decay), state)), inputs)
        state = state if activation == "identity" else jax.tree.map(jax.nn.relu, state)
        return state, state

    return lax.scan(step, initial, (keep, inputs))[1]


def _per_state(keep: Array, decay: Pair) -> Array:
    return keep.reshape(keep.shape + (1,) * decay.re.ndim)  # [B] -> [B, 1, ...]


def _forward(activation, initial, decay, keep, inputs):
    states = checkpoint_name(complex_recurrence(activation, initial, decay, keep, inputs), SAVED)
    sizes = jax.tree.map(lambda x: jnp.zeros((0, *x.shape[1:])), inputs)  # of one step; holds no numbers
    return states, (initial, decay, keep, states, sizes)


def _backward(activation, residuals, cotangent):
    """One step back has the state h_t at hand, not h_{t-1}, so the sum of step t + 1 passes its cotangent on to it."""
    initial, decay, keep, states, sizes = residuals

    def to_previous(d_next: Pair, state: Pair) -> tuple[Pair, Pair]:
        """The cotangents of h_t and of the decay, from that of keep_{t+1} decay h_t."""
        return times(conjugate(decay), d_next), times(conjugate(state), d_next)

    def step(carry, x):
        d_next, d_decay = carry
        state, keep, d_state = x
        from_next, more = to_previous(d_next, state)
        d_sum = plus(d_state, from_next)
        if activation == "relu":
            d_sum = jax.tree.map(lambda d, h: jnp.where(h > 0, d, 0.0), d_sum, state)
        d_inputs = jax.tree.map(lambda d, x: _summed(d, x.shape[1:]), d_sum, sizes)
        return (scaled(_per_state(keep, decay), d_sum), plus(d_decay, more)), d_inputs

    nothing = jax.tree.map(jnp.zeros_like, initial)
    (d_next, d_decay), d_inputs = lax.scan(step, (nothing, nothing), (states, keep, cotangent), reverse=True)
    d_initial, more = to_previous(d_next, initial)
    d_decay = jax.tree.map(lambda d: d.sum(0), plus(d_decay, more))  # the sum over rows, after that over steps
    return d_initial, d_decay, NO_GRADIENT, d_inputs


def _summed(x: Array, shape: tuple[int, ...]) -> Array:
    """x, summed over the axes that have size 1 in `shape`."""
    axes = [axis for axis, size in enumerate(shape) if size != x.shape[axis]]
    return x.sum(axes, keepdims=True)


define_gradient(complex_recurrence, _forward, _backward)
