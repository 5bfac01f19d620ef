"""h_t = decay_t * h_{t-1} + inputs_t and its cotangents, in two ways that agree up to rounding.

Step by step is best on a CPU, whose caches hold a step. On a GPU every step is a kernel whose launch takes longer than
its work; `associative_*` go over the whole sequence log T times instead. Nothing is divided, so decays may be 0.

initial: [...]; decay, inputs, cotangent: [T, ...].
"""

import jax.numpy as jnp
from jax import lax

from src_pure.types import Array


def scan_states(initial: Array, decay: Array, inputs: Array) -> Array:
    """All h_t [T, ...], with h_0 = initial."""

    def step(state, x):
        decay, inputs = x
        state = decay * state + inputs
        return state, state

    return lax.scan(step, initial, (decay, inputs))[1]


def associative_states(initial: Array, decay: Array, inputs: Array) -> Array:
    """As `scan_states`."""
    inputs = inputs.at[0].add(decay[0] * initial)
    return lax.associative_scan(_two_steps, (decay, inputs))[1]


def scan_cotangents(decay: Array, cotangent: Array) -> tuple[Array, Array]:
    """The cotangents of h_0 [...] and of all inputs [T, ...], from those of the results h_t."""

    def step(future, x):
        decay, cotangent = x
        total = future + cotangent
        return decay * total, total

    return lax.scan(step, jnp.zeros_like(decay[0]), (decay, cotangent), reverse=True)


def associative_cotangents(decay: Array, cotangent: Array) -> tuple[Array, Array]:
    """As `scan_cotangents`."""
    following = jnp.concatenate([decay[1:], jnp.zeros_like(decay[:1])])  # nothing comes back from after the last step
    totals = lax.associative_scan(_two_steps, (following, cotangent), reverse=True)[1]
    return decay[0] * totals[0], totals


def _two_steps(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
    """(decay, inputs) of the one step that equals two in a row."""
    return first[0] * second[0], second[0] * first[1] + second[1]
