"""Gated recurrences over time, with gradients that need little memory: the core of the memory models.

Each function equals a plain `lax.scan` in value and gradient. Differentiating that scan would store every state of
the sequence and add up the gradient of a matrix in the loop step by step, so the backward passes are written by hand.

Sizes: T time, B batch, H heads, E feature factor (eta), D head size.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from src_pure.ops.dense import SAVED
from src_pure.ops.gradients import NO_GRADIENT, define_gradient
from src_pure.ops.linear_scan import associative_cotangents, associative_states, scan_cotangents, scan_states
from src_pure.ops.precision import einsum, matmul
from src_pure.types import Array

CHUNK = 16  # steps between two stored states; inside a chunk the backward pass recomputes them


# ---------------------------------------------------------------------------------------------------------------------
# h_t = decay_t * h_{t-1} + x_t


@jax.custom_vjp
def linear_recurrence(initial: Array, decay: Array, inputs: Array) -> Array:
    """All states h_t = decay_t * h_{t-1} + inputs_t, with h_0 = initial. initial: [...]; decay, inputs: [T, ...]."""
    return scan_states(initial, decay, inputs)


def _linear_recurrence_forward(initial, decay, inputs):
    states = lax.platform_dependent(initial, decay, inputs, cpu=scan_states, default=associative_states)
    states = checkpoint_name(states, SAVED)
    return states, (initial, decay, states)


def _linear_recurrence_backward(residuals, cotangent):
    initial, decay, states = residuals
    d_initial, d_inputs = lax.platform_dependent(decay, cotangent, cpu=scan_cotangents, default=associative_cotangents)
    previous = jnp.concatenate([initial[None], states[:-1]])
    return d_initial, d_inputs * previous, d_inputs


define_gradient(linear_recurrence, _linear_recurrence_forward, _linear_recurrence_backward)


# ---------------------------------------------------------------------------------------------------------------------
# S_t = (1 - gate_t) S_{t-1} + phase_t * key_t, read by a query; gate, key and query are outer products


class Factors(NamedTuple):
    """gate_t = gate_row (x) gate_column and so on: [T, B, H, E] and [T, B, H, D]; keep [T, B] is 0 where memory is
    cleared first, else 1; phase is one [T, B] for each channel."""

    keep: Array
    phase: tuple[Array, ...]
    gate_row: Array
    gate_column: Array
    key_row: Array
    key_column: Array
    query_row: Array
    query_column: Array


# One [B, H, E, D] for each channel. They are separate arrays because XLA vectorises their sums better.
State = tuple[Array, ...]


def outer(row: Array, column: Array) -> Array:
    return row[..., :, None] * column[..., None, :]


def per_state(x: Array) -> Array:
    return x[..., None, None, None]  # [B] -> [B, 1, 1, 1]


def decay_of(x: Factors) -> Array:
    return per_state(x.keep) * (1.0 - outer(x.gate_row, x.gate_column))


def advance(state: State, x: Factors) -> State:
    decay, key = decay_of(x), outer(x.key_row, x.key_column)
    return tuple(decay * s + per_state(phase) * key for s, phase in zip(state, x.phase, strict=True))


def scan_outer_readout(state: State, factors: Factors) -> tuple[State, tuple[Array, ...]]:
    """(last state, readout S_t . query_t as one [T, B, H] per channel), by a plain scan."""

    def step(state, x):
        state = advance(state, x)
        query = outer(x.query_row, x.query_column)
        return state, tuple((s * query).sum((-1, -2)) for s in state)

    return lax.scan(step, state, factors)


@jax.custom_vjp
def chunked_outer_readout(state: State, factors: Factors) -> tuple[State, tuple[Array, ...]]:
    """As `scan_outer_readout`; the gradient keeps one state in every CHUNK steps."""
    return scan_outer_readout(state, factors)


def chunks(tree, num_steps: int, length: int = CHUNK):
    """[T, ...] -> [T / length, length, ...]; zeros at the end change no state (gate 0) and read nothing (query 0)."""
    padding = -num_steps % length

    def split(x):
        x = jnp.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1)) if padding else x
        return x.reshape(-1, length, *x.shape[1:])

    return jax.tree.map(split, tree)


def unchunk(tree, num_steps: int):
    """[T / CHUNK, CHUNK, ...] -> [T, ...], without the padding."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:num_steps], tree)


def factor_chunks(factors):
    """Chunks of a NamedTuple, padded with 1 in `keep` [T, B] and with 0 elsewhere."""
    num_steps = factors.keep.shape[0]
    split = chunks(factors, num_steps)
    if num_steps % CHUNK == 0:
        return split
    return split._replace(keep=chunks(factors.keep - 1.0, num_steps) + 1.0)


def chunked_forward(chunk, state, inputs):
    """((last state, readout), residuals), where (last state, readout) = chunk(state, inputs of L steps)."""

    def step(state, x):
        last, readout = chunk(state, x)
        return last, (state, readout)

    last, (starts, readout) = checkpoint_name(lax.scan(step, state, factor_chunks(inputs)), SAVED)
    return (last, unchunk(readout, inputs.keep.shape[0])), (starts, inputs)


def chunked_backward(chunk_pullback, residuals, cotangents):
    """Cotangents of state and inputs, where chunk_pullback(start, inputs, d_last, d_readout) gives those of L steps."""
    (starts, inputs), (d_last, d_readout) = residuals, cotangents
    num_steps = inputs.keep.shape[0]

    def step(d_state, x):
        start, inputs, d_readout = x
        return chunk_pullback(start, inputs, d_state, d_readout)

    split = (starts, factor_chunks(inputs), chunks(d_readout, num_steps))
    d_first, d_inputs = lax.scan(step, d_last, split, reverse=True)
    return d_first, unchunk(d_inputs, num_steps)


def derived_pullback(chunk, start, inputs, d_last, d_readout):
    """The chunk_pullback of a chunk by differentiation: the gradients of all its arguments."""
    return jax.vjp(chunk, start, inputs)[1]((d_last, d_readout))


def outer_readout_pullback(start, factors, d_last, d_readout):
    _, previous = lax.scan(lambda state, x: (advance(state, x), state), start, factors)
    return lax.scan(_outer_readout_reverse_step, d_last, (previous, factors, d_readout), reverse=True)


def _outer_readout_reverse_step(d_state, x):
    """One step back: the cotangent of S_t becomes that of S_{t-1}; the six factors get theirs."""
    previous, f, d_readout = x
    decay, key, query = decay_of(f), outer(f.key_row, f.key_column), outer(f.query_row, f.query_column)
    d_state = tuple(d + r[..., None, None] * query for d, r in zip(d_state, d_readout, strict=True))
    d_state = lax.optimization_barrier(d_state)  # else XLA computes it again for every use below
    state = (decay * s + per_state(phase) * key for s, phase in zip(previous, f.phase, strict=True))
    d_query = sum(s * r[..., None, None] for s, r in zip(state, d_readout, strict=True))
    d_key = sum(per_state(phase) * d for phase, d in zip(f.phase, d_state, strict=True))
    d_gate = -per_state(f.keep) * sum(d * s for d, s in zip(d_state, previous, strict=True))
    d_query, d_key, d_gate = lax.optimization_barrier((d_query, d_key, d_gate))
    factors = Factors(
        NO_GRADIENT,
        NO_GRADIENT,
        *_outer_cotangents(d_gate, f.gate_row, f.gate_column),
        *_outer_cotangents(d_key, f.key_row, f.key_column),
        *_outer_cotangents(d_query, f.query_row, f.query_column),
    )
    return tuple(decay * d for d in d_state), factors


def _outer_cotangents(d_product: Array, row: Array, column: Array) -> tuple[Array, Array]:
    d_row = einsum("bhed,bhd->bhe", d_product, column)
    d_column: Any = sum(d_product[:, :, e] * row[:, :, e, None] for e in range(row.shape[-1]))
    return d_row, d_column


define_gradient(
    chunked_outer_readout,
    partial(chunked_forward, scan_outer_readout),
    partial(chunked_backward, outer_readout_pullback),  # without gradients of keep and phase, usually constants
    partial(chunked_backward, partial(derived_pullback, scan_outer_readout)),
)


def associative_outer_readout(state: State, factors: Factors) -> tuple[State, tuple[Array, ...]]:
    """As `scan_outer_readout`, by `lax.associative_scan`, which keeps every state of the sequence. A baseline."""
    decay = decay_of(factors)  # [T, B, H, E, D]
    key, query = outer(factors.key_row, factors.key_column), outer(factors.query_row, factors.query_column)
    last, readout = [], []
    for start, phase in zip(state, factors.phase, strict=True):
        states = associative_states(start, decay, per_state(phase) * key)
        last.append(states[-1])
        readout.append((states * query).sum((-1, -2)))
    return tuple(last), tuple(readout)


# ---------------------------------------------------------------------------------------------------------------------
# state_t = cell(x_t, h_{t-1} W + b, state_{t-1}): GRU, LSTM

Cell = Callable[[Array, Array, tuple[Array, ...]], tuple[Array, ...]]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def recurrent_scan(
    cell: Cell, kernel: Array, bias: Array, initial: tuple[Array, ...], inputs: Array, keep: Array
) -> tuple[tuple[Array, ...], Array]:
    """(last state, h [T, B, D]) of state_t = cell(inputs_t, h_{t-1} kernel + bias, state_{t-1}).

    `cell` is elementwise; a state is a tuple of [B, D], h the first of them. kernel: [D, G]; bias: [G];
    inputs: [T, B, G]; keep [T, B] is 0 where the state is cleared first. The gradient of the kernel is one product
    after the loop.
    """
    last, (states, _) = _recurrent_states(cell, kernel, bias, initial, inputs, keep)
    return last, states[0]


def _recurrent_states(cell, kernel, bias, initial, inputs, keep):
    def step(state, x):
        inputs, keep = x
        state = tuple(keep[:, None] * s for s in state)
        recurrent = matmul(state[0], kernel) + bias
        new_state = cell(inputs, recurrent, state)
        return new_state, (new_state, recurrent)

    return lax.scan(step, initial, (inputs, keep))


def _recurrent_forward(cell, kernel, bias, initial, inputs, keep):
    run = _recurrent_states(cell, kernel, bias, initial, inputs, keep)
    last, (states, recurrent) = checkpoint_name(run, SAVED)
    return (last, states[0]), (kernel, initial, inputs, keep, states, recurrent)


def _recurrent_backward(cell, residuals, cotangents):
    kernel, initial, inputs, keep, states, recurrent = residuals
    d_last, d_h = cotangents
    previous = tuple(jnp.concatenate([i[None], s[:-1]]) * keep[..., None] for i, s in zip(initial, states, strict=True))

    def step(d_state, x):
        previous, inputs, recurrent, keep, d_h = x
        d_state = (d_state[0] + d_h, *d_state[1:])
        _, pullback = jax.vjp(cell, inputs, recurrent, previous)
        d_inputs, d_recurrent, d_previous = pullback(d_state)
        d_previous = (d_previous[0] + matmul(d_recurrent, kernel.T), *d_previous[1:])
        return tuple(keep[:, None] * d for d in d_previous), (d_inputs, d_recurrent)

    d_initial, (d_inputs, d_recurrent) = lax.scan(step, d_last, (previous, inputs, recurrent, keep, d_h), reverse=True)
    d_kernel = einsum("tbd,tbg->dg", previous[0], d_recurrent)
    return d_kernel, d_recurrent.sum((0, 1)), d_initial, d_inputs, None


define_gradient(recurrent_scan, _recurrent_forward, _recurrent_backward)
