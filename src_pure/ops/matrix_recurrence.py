"""Gated recurrences of a matrix over time, with gradients that keep little: the exact memory of GaLiTe.

One head of D values and F features; b gates the rows, g the columns, keep is 0 where memory is cleared first:

    C_t = decay_t . C_{t-1} + value_t (x) key_t   [D, F]        numerator_t = C_t query_t      [D]
    s_t = keep_t (1 - g_t) s_{t-1} + key_t        [F]           denominator_t = s_t . query_t

    product:  decay_t = keep_t (1 - b_t) (x) (1 - g_t)
    released: decay_t = keep_t (1 - b_t (x) g_t)

The gradient of a plain scan stores every C_t; here one in CHUNK steps is stored. Vectors of F features are outer
products of short ones where they can be, and are multiplied out a chunk at a time. Sizes: T time, L = CHUNK, B batch,
H heads.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from src_pure.ops.recurrence import SAVED, chunks, factor_chunks, unchunk
from src_pure.types import Array


class MatrixState(NamedTuple):
    matrix: Array  # C [B, H, D, F]
    normaliser: Array  # s [B, H, F]


class Readout(NamedTuple):
    numerator: Array  # [T, B, H, D]
    denominator: Array  # [T, B, H]


class Factored(NamedTuple):
    """A vector of F numbers: row (x) column flattened, F = E D, or the column alone."""

    row: Array | None  # [T, B, H, E]
    column: Array  # [T, B, H, D], [T, B, H, F] where there is no row

    @property
    def size(self) -> int:
        """F"""
        return self.column.shape[-1] * (1 if self.row is None else self.row.shape[-1])

    def vector(self) -> Array:
        """[T, B, H, F]"""
        if self.row is None:
            return self.column
        return _outer(self.row, self.column).reshape(*self.column.shape[:-1], -1)


class FactoredInputs(NamedTuple):
    keep: Array  # [T, B], constant: no gradient
    row_gate: Array  # b [T, B, H, D]
    column_gate: Factored  # g
    value: Array  # [T, B, H, D]
    key: Factored
    query: Factored


class MatrixFactors(NamedTuple):
    keep: Array  # [T, B]
    row_gate: Array  # b [T, B, H, D]
    column_gate: Array  # g [T, B, H, F]
    value: Array  # [T, B, H, D]
    key: Array  # [T, B, H, F]
    query: Array  # [T, B, H, F]


def multiply_out(x: FactoredInputs) -> MatrixFactors:
    return MatrixFactors(x.keep, x.row_gate, x.column_gate.vector(), x.value, x.key.vector(), x.query.vector())


Decay = Callable[[MatrixFactors], Array]  # of one step: [B, H, D, F]


def _einsum(equation: str, *operands: Array) -> Array:
    return jnp.einsum(equation, *operands, precision=lax.Precision.HIGHEST)


def _outer(row: Array, column: Array) -> Array:
    return row[..., :, None] * column[..., None, :]


def _column_decay(x: MatrixFactors) -> Array:
    return x.keep[..., None, None] * (1.0 - x.column_gate)


def product_decay(x: MatrixFactors) -> Array:
    return _outer(1.0 - x.row_gate, _column_decay(x))


def released_decay(x: MatrixFactors) -> Array:
    return x.keep[..., None, None, None] * (1.0 - _outer(x.row_gate, x.column_gate))


def _advance(state: MatrixState, x: MatrixFactors, decay: Decay) -> MatrixState:
    matrix = decay(x) * state.matrix + _outer(x.value, x.key)
    return MatrixState(matrix, _column_decay(x) * state.normaliser + x.key)


def scan_readout(state: MatrixState, inputs: FactoredInputs, decay: Decay) -> tuple[MatrixState, Readout]:
    """(last state, readout) step by step."""

    def step(state, x):
        state = _advance(state, x, decay)
        numerator = _einsum("bhdf,bhf->bhd", state.matrix, x.query)
        return state, Readout(numerator, (state.normaliser * x.query).sum(-1))

    factors = lax.optimization_barrier(multiply_out(inputs))  # else XLA multiplies a vector out for each row of C
    return lax.scan(step, state, factors)


# ---------------------------------------------------------------------------------------------------------------------
# Product decay. Step n reaches step t through A[d] G[f], the products of 1 - b and of 1 - g over the steps n+1..t:
#
#     numerator_t[d] = sum_n A[d] value_n[d] sum_f G[f] key_n[f] query_t[f]
#
# For n in the first half of a block of steps and t in the second, A and G are a product up to the middle times one
# from there, and all such pairs are two matrix products. Halving the blocks covers every pair; nothing is divided by,
# so decays may be 0.


class Decays(NamedTuple):
    """Products of decays within blocks of neighbouring steps; [L, B, H, D] or [L, B, H, F]."""

    since: Array  # from the first step of the block to this one
    until: Array  # from behind this step to the last one of the block


def _halves(x: Array, width: int) -> tuple[Array, Array]:
    """[L, ...] -> first and second halves of its blocks of 2 * width steps, [L / (2 * width), width, ...] each."""
    x = x.reshape(-1, 2, width, *x.shape[1:])
    return x[:, 0], x[:, 1]


def _join(first: Array, second: Array) -> Array:
    """The inverse of _halves."""
    x = jnp.stack([first, second], axis=1)
    return x.reshape(-1, *x.shape[3:])


def _double(decays: Decays, width: int) -> Decays:
    """The products for blocks of 2 * width steps from those for blocks of width."""
    first_since, second_since = _halves(decays.since, width)
    first_until, second_until = _halves(decays.until, width)
    return Decays(
        since=_join(first_since, second_since * first_since[:, -1:]),
        until=_join(first_until * second_since[:, -1:], second_until),
    )


def _product_chunk(state: MatrixState, inputs: FactoredInputs) -> tuple[MatrixState, Readout]:
    """(last state, readout) of L steps, L a power of two, by matrix products."""
    x = multiply_out(inputs)
    rows = Decays(1.0 - x.row_gate, jnp.ones_like(x.row_gate))
    columns = Decays(_column_decay(x), jnp.ones_like(x.column_gate))
    denominator = (x.query * x.key).sum(-1)  # a step reads itself
    numerator = denominator[..., None] * x.value
    width = 1
    while width < x.keep.shape[0]:
        query = _halves(x.query * columns.since, width)[1]
        key = _halves(x.key * columns.until, width)[0]
        value = _halves(x.value * rows.until, width)[0]
        scores = _einsum("ntbhf,nsbhf->nbhts", query, key)
        read = _halves(rows.since, width)[1] * _einsum("nbhts,nsbhd->ntbhd", scores, value)
        first, second = _halves(numerator, width)
        numerator = _join(first, second + read)
        first, second = _halves(denominator, width)
        denominator = _join(first, second + jnp.moveaxis(scores.sum(-1), -1, 1))
        rows, columns = _double(rows, width), _double(columns, width)
        width *= 2
    query, key, value = x.query * columns.since, x.key * columns.until, x.value * rows.until
    readout = Readout(
        numerator + rows.since * _einsum("bhdf,tbhf->tbhd", state.matrix, query),
        denominator + _einsum("bhf,tbhf->tbh", state.normaliser, query),
    )
    matrix = _outer(rows.since[-1], columns.since[-1]) * state.matrix + _einsum("tbhd,tbhf->bhdf", value, key)
    return MatrixState(matrix, columns.since[-1] * state.normaliser + key.sum(0)), readout


@jax.custom_vjp
def product_readout(state: MatrixState, inputs: FactoredInputs) -> tuple[MatrixState, Readout]:
    """As `scan_readout` with `product_decay`; for a gradient in chunks, by matrix products."""
    return scan_readout(state, inputs, product_decay)


def _product_forward(state, inputs):
    def chunk(state, x):
        last, readout = _product_chunk(state, x)
        return last, (state, readout)

    last, (starts, readout) = checkpoint_name(lax.scan(chunk, state, factor_chunks(inputs)), SAVED)
    return (last, unchunk(readout, inputs.keep.shape[0])), (starts, inputs)


def _product_backward(residuals, cotangents):
    starts, inputs = residuals
    d_last, d_readout = cotangents
    num_steps = inputs.keep.shape[0]

    def chunk(d_state, x):
        start, inputs, d_readout = x
        _, pullback = jax.vjp(_product_chunk, start, inputs)
        return pullback((d_state, d_readout))

    split = (starts, factor_chunks(inputs), chunks(d_readout, num_steps))
    d_first, d_inputs = lax.scan(chunk, d_last, split, reverse=True)
    return d_first, unchunk(d_inputs, num_steps)._replace(keep=None)


product_readout.defvjp(_product_forward, _product_backward)


# ---------------------------------------------------------------------------------------------------------------------
# Released decay: 1 - b g is no product of a row and a column, so every step passes over the whole matrix


@jax.custom_vjp
def released_readout(state: MatrixState, inputs: FactoredInputs) -> tuple[MatrixState, Readout]:
    """As `scan_readout` with `released_decay`; the gradient stores one state in CHUNK steps."""
    return scan_readout(state, inputs, released_decay)


def _released_forward(state, inputs):
    def chunk(state, x):
        last, readout = scan_readout(state, x, released_decay)
        return last, (state, readout)

    last, (starts, readout) = checkpoint_name(lax.scan(chunk, state, factor_chunks(inputs)), SAVED)
    return (last, unchunk(readout, inputs.keep.shape[0])), (starts, inputs)


def _released_backward(residuals, cotangents):
    (starts, inputs), (d_last, d_readout) = residuals, cotangents
    arguments = (starts, inputs, d_last, d_readout)
    d_state, d_inputs = lax.platform_dependent(*arguments, cpu=_released_pullback_by_row, default=_released_pullback)
    return d_state, d_inputs._replace(keep=None)


def _released_pullback(starts, inputs, d_last, d_readout):
    num_steps = inputs.keep.shape[0]

    def chunk(carry, x):
        start, inputs, d_readout = x
        factors, pullback = jax.vjp(multiply_out, inputs)
        _, (previous, d_query) = lax.scan(_released_again, start, (factors, d_readout))
        carry, d_factors = lax.scan(_released_reverse_step, carry, (previous, factors, d_readout), reverse=True)
        return carry, pullback(MatrixFactors(jnp.zeros_like(factors.keep), *d_factors, d_query))[0]

    last = multiply_out(jax.tree.map(lambda x: x[-1], inputs))
    behind = jax.tree.map(jnp.zeros_like, last)._replace(keep=jnp.ones_like(last.keep))
    split = (starts, factor_chunks(inputs), chunks(d_readout, num_steps))
    (d_state, first), d_inputs = lax.scan(chunk, (d_last, behind), split, reverse=True)
    return _through_decay(d_state, first), unchunk(d_inputs, num_steps)


def _released_pullback_by_row(starts, inputs, d_last, d_readout):
    """As _released_pullback for one row of the batch after the other: the states of a chunk then stay in the cache."""
    starts, inputs, d_readout = jax.tree.map(lambda x: x.swapaxes(0, 1)[:, :, None], (starts, inputs, d_readout))
    d_last = jax.tree.map(lambda x: x[:, None], d_last)
    d_state, d_inputs = lax.map(lambda x: _released_pullback(*x), (starts, inputs, d_last, d_readout))
    return jax.tree.map(lambda x: x[:, 0], d_state), jax.tree.map(lambda x: x[:, :, 0].swapaxes(0, 1), d_inputs)


def _released_again(state, x):
    """The state before a step once more, and the cotangent of the query, which reads the state after it."""
    factors, d_readout = x
    new_state = _advance(state, factors, released_decay)
    d_query = _einsum("bhdf,bhd->bhf", new_state.matrix, d_readout.numerator)
    return new_state, (state, d_query + new_state.normaliser * d_readout.denominator[..., None])


def _through_decay(d_state: MatrixState, x: MatrixFactors) -> MatrixState:
    return MatrixState(released_decay(x) * d_state.matrix, _column_decay(x) * d_state.normaliser)


def _released_reverse_step(carry, x):
    """One step back. carry: the cotangent of S_{t+1} and the factors of t+1, through which it first has to go."""
    previous, f, d_readout = x
    through = _through_decay(*carry)
    d_matrix = through.matrix + _outer(d_readout.numerator, f.query)
    d_normaliser = through.normaliser + d_readout.denominator[..., None] * f.query
    d_matrix = lax.optimization_barrier(d_matrix)  # else XLA computes it anew for every use below
    d_value = _einsum("bhdf,bhf->bhd", d_matrix, f.key)
    d_key = _einsum("bhdf,bhd->bhf", d_matrix, f.value) + d_normaliser
    d_gate = lax.optimization_barrier(-f.keep[:, None, None, None] * d_matrix * previous.matrix)
    d_row_gate = _einsum("bhdf,bhf->bhd", d_gate, f.column_gate)
    d_column_gate = _einsum("bhdf,bhd->bhf", d_gate, f.row_gate)
    d_column_gate -= f.keep[:, None, None] * d_normaliser * previous.normaliser
    return (MatrixState(d_matrix, d_normaliser), f), (d_row_gate, d_column_gate, d_value, d_key)


released_readout.defvjp(_released_forward, _released_backward)
