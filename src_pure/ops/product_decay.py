"""GaLiTe's memory with the decay keep (1 - b) (x) (1 - g): a chunk of steps is a few matrix products.

Step n reaches step t through A[d] G[f], the products of 1 - b and of 1 - g over the steps n+1..t:

    numerator_t[d] = sum_n A[d] value_n[d] sum_f G[f] key_n[f] query_t[f]

For n in the first half of a block of steps and t in the second, A and G are a product up to the middle times one from
there, and all such pairs are two matrix products. Halving the blocks covers every pair; there is no division, so
decays may be 0. Letters and sizes as in matrix_recurrence.py.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from src_pure.ops.gradients import define_gradient
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
from src_pure.ops.recurrence import chunked_backward, chunked_forward, derived_pullback
from src_pure.types import Array


def product_decay(x: MatrixFactors) -> Array:
    return outer(1.0 - x.row_gate, column_decay(x))


class Decays(NamedTuple):
    """Products of decays within blocks of neighbouring steps; [B, H, L, D] or [B, H, L, F]."""

    since: Array  # from the first step of the block to this one
    until: Array  # from the step after this one to the last of the block


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
    inputs = inputs._replace(keep=inputs.keep[..., None])
    x = multiply_out(jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 2), inputs))  # [B, H, L, ...], keep [B, 1, L]
    rows = Decays(1.0 - x.row_gate, jnp.ones_like(x.row_gate))
    columns = Decays(x.keep[..., None] * (1.0 - x.column_gate), jnp.ones_like(x.column_gate))
    denominator = (x.query * x.key).sum(-1)  # a step reads itself
    numerator = denominator[..., None] * x.value
    width = 1
    while width < num_steps:
        query = _halves(x.query * columns.since, width)[1]
        key = _halves(x.key * columns.until, width)[0]
        value = _halves(x.value * rows.until, width)[0]
        scores = einsum("bhntf,bhnsf->bhnts", query, key)
        read = _halves(rows.since, width)[1] * einsum("bhnts,bhnsd->bhntd", scores, value)
        first, second = _halves(numerator, width)
        numerator = _join(first, second + read)
        first, second = _halves(denominator, width)
        denominator = _join(first, second + scores.sum(-1))
        rows, columns = _double(rows, width), _double(columns, width)
        width *= 2
    query, key, value = x.query * columns.since, x.key * columns.until, x.value * rows.until
    readout = Readout(
        jnp.moveaxis(numerator + rows.since * einsum("bhdf,bhtf->bhtd", state.matrix, query), 2, 0),
        jnp.moveaxis(denominator + einsum("bhf,bhtf->bht", state.normaliser, query), 2, 0),
    )
    last_row, last_column = rows.since[:, :, -1], columns.since[:, :, -1]
    matrix = einsum("bhd,bhf->bhdf", last_row, last_column) * state.matrix + einsum("bhtd,bhtf->bhdf", value, key)
    return MatrixState(matrix, last_column * state.normaliser + key.sum(2)), readout


@jax.custom_vjp
def product_readout(state: MatrixState, inputs: FactoredInputs) -> tuple[MatrixState, Readout]:
    """As `scan_readout` with `product_decay`; where a gradient is wanted, in chunks by matrix products."""
    return scan_readout(state, inputs, product_decay)


define_gradient(
    product_readout,
    partial(chunked_forward, _product_chunk),
    partial(chunked_backward, partial(derived_pullback, _product_chunk)),
)
