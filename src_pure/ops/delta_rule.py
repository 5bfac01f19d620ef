"""The gated delta rule in chunks of matrix products: what a key reads is replaced before its value is written.

One head of D values and F features, b in [0, 1] (Yang et al., arXiv:2412.06464, eq. 10):

    S_t = a_t S_{t-1} (1 - b_t key_t (x) key_t) + b_t value_t (x) key_t   [D, F]        readout_t = S_t query_t   [D]

With u_t = b_t (value_t - a_t S_{t-1} key_t), the change of what the key reads, it is the recurrence of scalar_decay.py
with the values u. Within a chunk u depends on the earlier u alone, a triangular system:

    u_t + sum_{n<t} b_t A[t, n] (key_t . key_n) u_n = b_t (value_t - A[t, 0] S_0 key_t)

A[t, n] is what is left at step t of what step n added. Sizes as in scalar_decay.py.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from src_pure.ops.gradients import define_gradient
from src_pure.ops.precision import einsum, matmul
from src_pure.ops.scalar_decay import pair_decays, read_chunk, sequence_backward, sequence_forward
from src_pure.types import Array


class DeltaInputs(NamedTuple):
    reset: Array  # [T, B] bool: memory is cleared first
    log_decay: Array  # log a [T, B, H], at most 0; not read where memory is cleared
    rate: Array  # b [T, B, H]
    value: Array  # [T, B, H, D]
    key: Array  # [T, B, H, F], of length 1 at most
    query: Array  # [T, B, H, F]


@jax.custom_vjp
def solve_unit_lower(matrix: Array, right: Array) -> Array:
    """u of (1 + lower) u = right: [..., L, D]; lower is what stands below the diagonal of matrix [..., L, L]."""
    return matmul(_inverse(matrix), right)


def _inverse(matrix: Array) -> Array:
    """(1 + lower)^-1 from those of its diagonal blocks, each time of twice as many steps; XLA's solver is slower."""
    size = matrix.shape[-1]
    steps, width = np.arange(size), 1
    lower = jnp.tril(matrix, -1)
    inverse = jnp.eye(size)
    while width < size:
        block, pair = steps // width, steps // (2 * width)
        between = np.not_equal.outer(block, block) & np.equal.outer(pair, pair)
        cross = jnp.where(between, lower, 0.0)  # [[P, 0], [C, Q]]^-1 = [[P^-1, 0], [-Q^-1 C P^-1, Q^-1]]
        inverse = inverse - (cross if width == 1 else matmul(matmul(inverse, cross), inverse))
        width *= 2
    return inverse


def _solve_forward(matrix, right):
    inverse = _inverse(matrix)
    solution = matmul(inverse, right)
    return solution, (inverse, solution)


def _solve_backward(residuals, d_solution):
    inverse, solution = residuals
    d_right = einsum("...nt,...nd->...td", inverse, d_solution)
    return -jnp.tril(einsum("...td,...nd->...tn", d_right, solution), -1), d_right


define_gradient(solve_unit_lower, _solve_forward, _solve_backward)


def delta_chunk(state: Array, x: DeltaInputs) -> tuple[Array, Array]:
    since, pairs = pair_decays(x.log_decay, x.reset)
    rate = jnp.moveaxis(x.rate, 0, 2)[..., None]  # [B, H, L, 1]
    expected = since[..., None] * einsum("bhdf,tbhf->bhtd", state, x.key)
    change = rate * (jnp.moveaxis(x.value, 0, 2) - expected)  # [B, H, L, D]
    if len(x.reset) > 1:
        change = solve_unit_lower(rate * pairs * einsum("tbhf,nbhf->bhtn", x.key, x.key), change)
    return read_chunk(state, since, pairs, jnp.moveaxis(change, 2, 0), x.key, x.query)


@jax.custom_vjp
def delta_readout(state: Array, inputs: DeltaInputs) -> tuple[Array, Array]:
    """(last state [B, H, D, F], readout [T, B, H, D])."""
    return sequence_forward(delta_chunk, state, inputs)[0]


define_gradient(
    delta_readout,
    partial(sequence_forward, delta_chunk),
    partial(sequence_backward, delta_chunk),
)
