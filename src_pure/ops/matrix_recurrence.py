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
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from src_pure.ops.recurrence import SAVED, chunks, factor_chunks, linear_recurrence, unchunk
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
# Gradients chunk by chunk, from the state before each


def _forward(chunk, state, inputs):
    """What a custom gradient keeps, from (last state, readout) = chunk(state, inputs of L steps)."""

    def step(state, x):
        last, readout = chunk(state, x)
        return last, (state, readout)

    last, (starts, readout) = checkpoint_name(lax.scan(step, state, factor_chunks(inputs)), SAVED)
    return (last, unchunk(readout, inputs.keep.shape[0])), (starts, inputs)


def _backward(chunk_pullback, residuals, cotangents):
    """Cotangents of state and inputs, from those of a chunk = chunk_pullback(start, inputs, d_last, d_readout)."""
    (starts, inputs), (d_last, d_readout) = residuals, cotangents
    num_steps = inputs.keep.shape[0]

    def step(d_state, x):
        start, inputs, d_readout = x
        return chunk_pullback(start, inputs, d_state, d_readout)

    split = (starts, factor_chunks(inputs), chunks(d_readout, num_steps))
    d_first, d_inputs = lax.scan(step, d_last, split, reverse=True)
    return d_first, unchunk(d_inputs, num_steps)._replace(keep=None)


# ---------------------------------------------------------------------------------------------------------------------
# Product decay. Step n reaches step t through A[d] G[f], the products of 1 - b and of 1 - g over the steps n+1..t:
#
#     numerator_t[d] = sum_n A[d] value_n[d] sum_f G[f] key_n[f] query_t[f]
#
# For n in the first half of a block of steps and t in the second, A and G are a product up to the middle times one
# from there, and all such pairs are two matrix products. Halving the blocks covers every pair; nothing is divided by,
# so decays may be 0.


class Decays(NamedTuple):
    """Products of decays within blocks of neighbouring steps; [B, H, L, D] or [B, H, L, F]."""

    since: Array  # from the first step of the block to this one
    until: Array  # from behind this step to the last one of the block


def _halves(x: Array, width: int) -> tuple[Array, Array]:
    """[B, H, L, ...] -> first and second halves of its blocks of 2 * width steps, [B, H, n, width, ...] each."""
    x = x.reshape(*x.shape[:2], -1, 2, width, *x.shape[3:])
    return x[:, :, :, 0], x[:, :, :, 1]


def _join(first: Array, second: Array) -> Array:
    """The inverse of _halves."""
    x = jnp.stack([first, second], axis=3)
    return x.reshape(*x.shape[:2], -1, *x.shape[5:])


def _double(decays: Decays, width: int) -> Decays:
    """The products for blocks of 2 * width steps from those for blocks of width."""
    first_since, second_since = _halves(decays.since, width)
    first_until, second_until = _halves(decays.until, width)
    return Decays(
        since=_join(first_since, second_since * first_since[:, :, :, -1:]),
        until=_join(first_until * second_since[:, :, :, -1:], second_until),
    )


def _product_chunk(state: MatrixState, inputs: FactoredInputs) -> tuple[MatrixState, Readout]:
    """(last state, readout) of L steps, L a power of two, by matrix products: steps go next to the features."""
    num_steps = len(inputs.keep)
    keep = inputs.keep.T[:, None, :, None]
    x = multiply_out(jax.tree.map(lambda x: jnp.moveaxis(x, 0, 2), inputs._replace(keep=inputs.keep[..., None])))
    rows = Decays(1.0 - x.row_gate, jnp.ones_like(x.row_gate))
    columns = Decays(keep * (1.0 - x.column_gate), jnp.ones_like(x.column_gate))
    denominator = (x.query * x.key).sum(-1)  # a step reads itself
    numerator = denominator[..., None] * x.value
    width = 1
    while width < num_steps:
        query = _halves(x.query * columns.since, width)[1]
        key = _halves(x.key * columns.until, width)[0]
        value = _halves(x.value * rows.until, width)[0]
        scores = _einsum("bhntf,bhnsf->bhnts", query, key)
        read = _halves(rows.since, width)[1] * _einsum("bhnts,bhnsd->bhntd", scores, value)
        first, second = _halves(numerator, width)
        numerator = _join(first, second + read)
        first, second = _halves(denominator, width)
        denominator = _join(first, second + scores.sum(-1))
        rows, columns = _double(rows, width), _double(columns, width)
        width *= 2
    query, key, value = x.query * columns.since, x.key * columns.until, x.value * rows.until
    readout = Readout(
        jnp.moveaxis(numerator + rows.since * _einsum("bhdf,bhtf->bhtd", state.matrix, query), 2, 0),
        jnp.moveaxis(denominator + _einsum("bhf,bhtf->bht", state.normaliser, query), 2, 0),
    )
    last_row, last_column = rows.since[:, :, -1], columns.since[:, :, -1]
    matrix = _einsum("bhd,bhf->bhdf", last_row, last_column) * state.matrix + _einsum("bhtd,bhtf->bhdf", value, key)
    return MatrixState(matrix, last_column * state.normaliser + key.sum(2)), readout


@jax.custom_vjp
def product_readout(state: MatrixState, inputs: FactoredInputs) -> tuple[MatrixState, Readout]:
    """As `scan_readout` with `product_decay`; for a gradient in chunks, by matrix products."""
    return scan_readout(state, inputs, product_decay)


def _product_pullback(start, inputs, d_state, d_readout):
    return jax.vjp(_product_chunk, start, inputs)[1]((d_state, d_readout))


product_readout.defvjp(partial(_forward, _product_chunk), partial(_backward, _product_pullback))


# ---------------------------------------------------------------------------------------------------------------------
# Released decay: 1 - b g is no product of a row and a column, so every step passes over the whole matrix. The gradient
# takes two steps at once, 1 and 2 behind C_0, which halves the passes. With o_t and D_t the cotangents of numerator_t
# and C_t,
#
#     D_2 = (cotangent from behind) + o_2 (x) query_2        D_1 = decay_2 . D_2 + o_1 (x) query_1
#
# and decay_1 . D_1 goes on to C_0. What the factors get are products of D_t, C_t and D_t . C_{t-1} with vectors; as C_1
# and D_1 are 1 - b g times C_0 and D_2 plus an outer product, products of C_0, D_2 and C_0 . D_2 are enough.


@jax.custom_vjp
def released_readout(state: MatrixState, inputs: FactoredInputs) -> tuple[MatrixState, Readout]:
    """As `scan_readout` with `released_decay`; the gradient stores one state in CHUNK steps."""
    return scan_readout(state, inputs, released_decay)


def _released_pullback(start, inputs, d_state, d_readout):
    factors, pullback = jax.vjp(multiply_out, inputs)
    _, denominator_pullback = jax.vjp(_denominator, start.normaliser, factors)
    d_normaliser, d_factors = denominator_pullback((d_state.normaliser, d_readout.denominator))
    d_matrix, of_numerator = _numerator_pullback(start.matrix, factors, d_state.matrix, d_readout.numerator)
    return MatrixState(d_matrix, d_normaliser), pullback(jax.tree.map(jnp.add, d_factors, of_numerator))[0]


def _denominator(normaliser: Array, x: MatrixFactors) -> tuple[Array, Array]:
    """(last normaliser, denominator [L, B, H])"""
    states = linear_recurrence(normaliser, _column_decay(x), x.key)
    return states[-1], (states * x.query).sum(-1)


def _numerator_pullback(matrix: Array, factors: MatrixFactors, d_matrix: Array, d_numerator: Array):
    """(cotangent of the matrix before the chunk, those of its factors), from that of the matrix behind it.

    Written out without a loop over steps: XLA on CPUs is slow to put matrices into the stack that a loop needs.
    """
    steps, read = lax.optimization_barrier((_unstack(factors), list(d_numerator)))  # else multiplied out for every row
    pairs = list(zip(steps[::2], steps[1::2], strict=True))
    matrices = [matrix]
    for pair in pairs:
        for x in pair:
            matrix = released_decay(x) * matrix + _outer(x.value, x.key)
        matrix = lax.optimization_barrier(matrix)
        matrices.append(matrix)
    read = [jnp.zeros_like(read[0]), *read]  # of the step before the chunk, too: nothing
    (d_query,) = _columns_of(matrices.pop(), read[-1])
    d_steps = []
    for i in reversed(range(len(pairs))):
        first, second = pairs[i]
        d_matrix, (d_first, d_second), d_query_before = _pair_pullback(
            first, second, matrices[i], d_matrix, read[2 * i : 2 * i + 3]
        )
        d_steps += [d_second._replace(query=d_query), d_first]
        d_query = d_query_before
    return d_matrix, jax.tree.map(lambda *x: jnp.stack(x[::-1]), *d_steps)


def _pair_pullback(first: MatrixFactors, second: MatrixFactors, matrix: Array, d_matrix: Array, read: list[Array]):
    """(cotangents of C_0, of the factors but for query_2, and of query_0, by which C_0 was read), from that of C_2.

    read: o_0, o_1, o_2
    """
    b_1, g_1, b_2, g_2 = first.row_gate, first.column_gate, second.row_gate, second.column_gate
    before, first_read, second_read = read
    keep_1, keep_2 = first.keep[:, None, None], second.keep[:, None, None]
    d_matrix = lax.optimization_barrier(d_matrix + _outer(second_read, second.query))  # D_2
    both = lax.optimization_barrier(d_matrix * matrix)

    by_key_2, by_key, by_gated_key = _rows_of(d_matrix, second.key, first.key, g_2 * first.key)
    by_value_2, by_value, by_gated_value = _columns_of(d_matrix, second.value, first.value, b_2 * first.value)
    (by_gated_query,) = _rows_of(matrix, g_1 * first.query)
    d_query_before, by_read, by_gated_read = _columns_of(matrix, before, first_read, b_1 * first_read)
    by_g_1, by_g_2, by_g_both = _rows_of(both, g_1, g_2, g_1 * g_2)
    by_b_1, by_b_2, by_b_both = _columns_of(both, b_1, b_2, b_1 * b_2)

    d_second = MatrixFactors(
        keep=jnp.zeros_like(second.keep),
        row_gate=-keep_2 * (keep_1 * (by_g_2 - b_1 * by_g_both) + first.value * by_gated_key),
        column_gate=-keep_2 * (keep_1 * (by_b_2 - g_1 * by_b_both) + first.key * by_gated_value),
        value=by_key_2,
        key=by_value_2,
        query=None,
    )
    d_first = MatrixFactors(
        keep=jnp.zeros_like(first.keep),
        row_gate=-keep_1 * (keep_2 * (by_g_1 - b_2 * by_g_both) + first_read * by_gated_query),
        column_gate=-keep_1 * (keep_2 * (by_b_1 - g_2 * by_b_both) + first.query * by_gated_read),
        value=keep_2 * (by_key - b_2 * by_gated_key) + first_read * _dot(first.query, first.key),
        key=keep_2 * (by_value - g_2 * by_gated_value) + first.query * _dot(first_read, first.value),
        query=keep_1 * (by_read - g_1 * by_gated_read) + first.key * _dot(first_read, first.value),
    )
    d_matrix = released_decay(first) * (released_decay(second) * d_matrix + _outer(first_read, first.query))
    return d_matrix, (d_first, d_second), d_query_before


def _unstack(x: MatrixFactors) -> list[MatrixFactors]:
    return [jax.tree.map(lambda leaf, i=i: leaf[i], x) for i in range(len(x.keep))]


def _rows_of(matrix: Array, *columns: Array) -> list[Array]:
    """Products of [B, H, D, F] with several [B, H, F]: [B, H, D] each, in one pass."""
    products = _einsum("bhdf,bhjf->bhjd", matrix, jnp.stack(columns, axis=2))
    return [products[:, :, j] for j in range(len(columns))]


def _columns_of(matrix: Array, *rows: Array) -> list[Array]:
    """Products of several [B, H, D] with [B, H, D, F]: [B, H, F] each, in one pass."""
    products = _einsum("bhjd,bhdf->bhjf", jnp.stack(rows, axis=2), matrix)
    return [products[:, :, j] for j in range(len(rows))]


def _dot(x: Array, y: Array) -> Array:
    return (x * y).sum(-1, keepdims=True)


released_readout.defvjp(
    partial(_forward, partial(scan_readout, decay=released_decay)), partial(_backward, _released_pullback)
)
