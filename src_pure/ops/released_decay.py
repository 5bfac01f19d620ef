"""GaLiTe's memory with the decay of the released code, keep (1 - b (x) g).

It is not a product of a row and a column, so every step passes over the whole matrix. The gradient takes two steps at
once, steps 1 and 2 after C_0, which halves the passes. With o_t and D_t the cotangents of numerator_t and C_t,

    D_2 = (cotangent from later steps) + o_2 (x) query_2        D_1 = decay_2 . D_2 + o_1 (x) query_1

and decay_1 . D_1 goes on to C_0. The gradients of the factors are products of D_t, C_t and D_t . C_{t-1} with vectors.
C_1 is decay_1 . C_0 plus an outer product, D_1 is decay_2 . D_2 plus another, so products of C_0, D_2 and C_0 . D_2
suffice.
Letters and sizes as in matrix_recurrence.py.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from src_pure.ops.gradients import NO_GRADIENT, define_gradient
from src_pure.ops.matrix_recurrence import (
    FactoredInputs,
    MatrixFactors,
    MatrixState,
    Readout,
    column_decay,
    multiply_out,
    outer,
    scan_readout,
)
from src_pure.ops.precision import einsum
from src_pure.ops.recurrence import chunked_backward, chunked_forward, derived_pullback, linear_recurrence
from src_pure.types import Array


def released_decay(x: MatrixFactors) -> Array:
    return x.keep[..., None, None, None] * (1.0 - outer(x.row_gate, x.column_gate))


@jax.custom_vjp
def released_readout(state: MatrixState, inputs: FactoredInputs) -> tuple[MatrixState, Readout]:
    """As `scan_readout` with `released_decay`; the gradient stores one state per CHUNK steps."""
    return scan_readout(state, inputs, released_decay)


def _released_pullback(start, inputs, d_state, d_readout):
    factors, pullback = jax.vjp(multiply_out, inputs)
    _, denominator_pullback = jax.vjp(_denominator, start.normaliser, factors)
    d_normaliser, d_factors = denominator_pullback((d_state.normaliser, d_readout.denominator))
    d_matrix, of_numerator = _numerator_pullback(start.matrix, factors, d_state.matrix, d_readout.numerator)
    (d_inputs,) = pullback(jax.tree.map(jnp.add, d_factors, of_numerator))
    return MatrixState(d_matrix, d_normaliser), d_inputs._replace(keep=None)


def _denominator(normaliser: Array, x: MatrixFactors) -> tuple[Array, Array]:
    """(last normaliser, denominator [L, B, H])"""
    states = linear_recurrence(normaliser, column_decay(x), x.key)
    return states[-1], (states * x.query).sum(-1)


def _numerator_pullback(matrix: Array, factors: MatrixFactors, d_matrix: Array, d_numerator: Array):
    """(cotangent of the matrix before the chunk, those of its factors), from that of the matrix after it; L is even.

    Steps are unrolled in Python: XLA on CPUs is slow to write matrices into the stack that a loop needs.
    """
    # without the barrier XLA multiplies a vector out for each row of a matrix
    steps = [MatrixFactors(*leaves) for leaves in zip(*map(jnp.unstack, factors), strict=True)]
    steps, d_numerators = lax.optimization_barrier((steps, jnp.unstack(d_numerator)))
    pairs = list(zip(steps[::2], steps[1::2], strict=True))
    matrices = [matrix]
    for pair in pairs:
        for x in pair:
            matrix = released_decay(x) * matrix + outer(x.value, x.key)
        matrix = lax.optimization_barrier(matrix)
        matrices.append(matrix)
    (d_query,) = _columns_of(matrices.pop(), d_numerators[-1])
    d_numerators = [jnp.zeros_like(d_numerators[0]), *d_numerators]  # o_0 of the first pair belongs to the chunk before
    d_steps = []
    for i in reversed(range(len(pairs))):
        first, second = pairs[i]
        o = d_numerators[2 * i : 2 * i + 3]
        d_matrix, (d_first, d_second), d_query_0 = _pair_pullback(first, second, matrices[i], d_matrix, *o)
        d_steps += [d_second._replace(query=d_query), d_first]
        d_query = d_query_0
    return d_matrix, jax.tree.map(lambda *x: jnp.stack(x[::-1]), *d_steps)


def _pair_pullback(
    first: MatrixFactors, second: MatrixFactors, matrix: Array, d_matrix: Array, o_0: Array, o_1: Array, o_2: Array
):
    """(cotangents of C_0, of the factors except query_2, and of query_0, which read C_0), from that of C_2."""
    b_1, g_1, b_2, g_2 = first.row_gate, first.column_gate, second.row_gate, second.column_gate
    keep_1, keep_2 = first.keep[:, None, None], second.keep[:, None, None]
    d_matrix = lax.optimization_barrier(d_matrix + outer(o_2, second.query))  # D_2
    both = lax.optimization_barrier(d_matrix * matrix)

    # gated: also times the gate of the step between
    by_key_2, by_key_1, by_gated_key_1 = _rows_of(d_matrix, second.key, first.key, g_2 * first.key)
    by_value_2, by_value_1, by_gated_value_1 = _columns_of(d_matrix, second.value, first.value, b_2 * first.value)
    (by_gated_query_1,) = _rows_of(matrix, g_1 * first.query)
    by_o_0, by_o_1, by_gated_o_1 = _columns_of(matrix, o_0, o_1, b_1 * o_1)
    by_g_1, by_g_2, by_both_g = _rows_of(both, g_1, g_2, g_1 * g_2)
    by_b_1, by_b_2, by_both_b = _columns_of(both, b_1, b_2, b_1 * b_2)

    d_second = MatrixFactors(
        keep=jnp.zeros_like(second.keep),
        row_gate=-keep_2 * (keep_1 * (by_g_2 - b_1 * by_both_g) + first.value * by_gated_key_1),
        column_gate=-keep_2 * (keep_1 * (by_b_2 - g_1 * by_both_b) + first.key * by_gated_value_1),
        value=by_key_2,
        key=by_value_2,
        query=NO_GRADIENT,
    )
    d_first = MatrixFactors(
        keep=jnp.zeros_like(first.keep),
        row_gate=-keep_1 * (keep_2 * (by_g_1 - b_2 * by_both_g) + o_1 * by_gated_query_1),
        column_gate=-keep_1 * (keep_2 * (by_b_1 - g_2 * by_both_b) + first.query * by_gated_o_1),
        value=keep_2 * (by_key_1 - b_2 * by_gated_key_1) + o_1 * _dot(first.query, first.key),
        key=keep_2 * (by_value_1 - g_2 * by_gated_value_1) + first.query * _dot(o_1, first.value),
        query=keep_1 * (by_o_1 - g_1 * by_gated_o_1) + first.key * _dot(o_1, first.value),
    )
    d_matrix = released_decay(first) * (released_decay(second) * d_matrix + outer(o_1, first.query))
    return d_matrix, (d_first, d_second), by_o_0


def _rows_of(matrix: Array, *columns: Array) -> tuple[Array, ...]:
    """Products of [B, H, D, F] with several [B, H, F]: [B, H, D] each, in one pass."""
    return jnp.unstack(einsum("bhdf,bhjf->bhjd", matrix, jnp.stack(columns, axis=2)), axis=2)


def _columns_of(matrix: Array, *rows: Array) -> tuple[Array, ...]:
    """Products of several [B, H, D] with [B, H, D, F]: [B, H, F] each, in one pass."""
    return jnp.unstack(einsum("bhjd,bhdf->bhjf", jnp.stack(rows, axis=2), matrix), axis=2)


def _dot(x: Array, y: Array) -> Array:
    return (x * y).sum(-1, keepdims=True)


_released_scan = partial(scan_readout, decay=released_decay)

define_gradient(
    released_readout,
    partial(chunked_forward, _released_scan),
    partial(chunked_backward, _released_pullback),
    partial(chunked_backward, partial(derived_pullback, _released_scan)),
)
