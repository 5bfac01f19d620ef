"""Gated recurrences of a matrix over time: the exact memory of GaLiTe.

One head of D values and F features; b gates the rows, g the columns, keep is 0 where memory is cleared first:

    C_t = decay_t . C_{t-1} + value_t (x) key_t   [D, F]        numerator_t = C_t query_t      [D]
    s_t = keep_t (1 - g_t) s_{t-1} + key_t        [F]           denominator_t = s_t . query_t

    product_decay.py:  decay_t = keep_t (1 - b_t) (x) (1 - g_t)
    released_decay.py: decay_t = keep_t (1 - b_t (x) g_t)

The gradient of a plain scan stores every C_t; the functions there store one state per CHUNK steps. Vectors of F
features are kept as outer products of short ones where possible, and are multiplied out a chunk at a time.

Sizes: T time, L = CHUNK, B batch, H heads.
"""

from collections.abc import Callable
from typing import NamedTuple

from jax import lax

from src_pure.ops.precision import einsum
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
    column: Array  # [T, B, H, D], or [T, B, H, F] without a row

    @property
    def size(self) -> int:
        """F"""
        return self.column.shape[-1] * (1 if self.row is None else self.row.shape[-1])

    def vector(self) -> Array:
        """[T, B, H, F]"""
        if self.row is None:
            return self.column
        return outer(self.row, self.column).reshape(*self.column.shape[:-1], -1)


class FactoredInputs(NamedTuple):
    keep: Array  # [T, B]
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


def outer(row: Array, column: Array) -> Array:
    return row[..., :, None] * column[..., None, :]


def column_decay(x: MatrixFactors) -> Array:
    return x.keep[..., None, None] * (1.0 - x.column_gate)


def _advance(state: MatrixState, x: MatrixFactors, decay: Decay) -> MatrixState:
    matrix = decay(x) * state.matrix + outer(x.value, x.key)
    return MatrixState(matrix, column_decay(x) * state.normaliser + x.key)


def scan_readout(state: MatrixState, inputs: FactoredInputs, decay: Decay) -> tuple[MatrixState, Readout]:
    """(last state, readout) step by step."""

    def step(state, x):
        state = _advance(state, x, decay)
        numerator = einsum("bhdf,bhf->bhd", state.matrix, x.query)
        return state, Readout(numerator, (state.normaliser * x.query).sum(-1))

    factors = lax.optimization_barrier(multiply_out(inputs))  # else XLA multiplies a vector out for each row of C
    return lax.scan(step, state, factors)
