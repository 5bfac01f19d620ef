"""The readout of AGaLiTe's state in a few large kernels: chunks of steps side by side, not one after the other.

Step by step, a GPU launches some 25 small kernels for each step of a layer, and a launch takes longer than its work.
But a chunk of steps turns any state S before it into P . S + Z: P is the product of its decays, Z where it ends if it
starts at 0. So the states between chunks follow from all P and Z, and then every chunk has its start and all of them
advance together. Nothing is divided, so resets are exact. Steps within a chunk are unrolled: XLA makes one kernel of
many. The states of a sequence exist only for one layer at a time, in its backward pass.

Sizes: N chunks of L = CHUNK steps; letters as in recurrence.py.
"""

from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from src_pure.ops.dense import SAVED
from src_pure.ops.gradients import NO_GRADIENT, define_gradient
from src_pure.ops.recurrence import (
    CHUNK,
    Factors,
    State,
    advance,
    chunked_backward,
    chunked_forward,
    chunks,
    decay_of,
    derived_pullback,
    factor_chunks,
    outer,
    outer_readout_pullback,
    per_state,
    scan_outer_readout,
    unchunk,
)
from src_pure.types import Array

Readout = tuple[Array, ...]  # [T, B, H] for each channel


def parallel_forward(state: State, factors: Factors) -> tuple[tuple[State, Readout], tuple[State, Factors]]:
    """((last state, readout), residuals) as `chunked_forward` has them: the states before chunks [N, B, H, E, D]."""
    steps = _steps(factor_chunks(factors))
    last, starts = _between_chunks(state, _product(steps), _ends(steps))
    state, readout = lax.optimization_barrier(starts), []  # else XLA computes them again for every step
    for x in steps:
        state, query = advance(state, x), outer(x.query_row, x.query_column)
        readout.append(tuple((s * query).sum((-1, -2)) for s in state))
    return (last, unchunk(_join(readout), len(factors.keep))), (starts, factors)


def parallel_backward(residuals, cotangents) -> tuple[State, Factors]:
    """Cotangents of state and factors; without those of keep and phase, usually constants."""
    (starts, factors), (d_last, d_readout) = residuals, cotangents
    num_steps = len(factors.keep)
    split = factor_chunks(factors), chunks(d_readout, num_steps)
    steps = _steps(split)
    previous = [starts]
    for x, _ in steps[:-1]:
        previous.append(advance(previous[-1], x))
    products = _product([x for x, _ in steps])
    d_first, d_ends = _between_chunks(d_last, products, _first_cotangents(steps), reverse=True)
    d_states, d_state = [], lax.optimization_barrier(d_ends)
    for x, d_read in reversed(steps):
        d_states.append(_add_readout(d_state, x, d_read))
        d_state = tuple(decay_of(x) * d for d in d_states[-1])
    # stored, because each is used by several kernels
    previous, d_states = lax.optimization_barrier((_join(previous), _join(d_states[::-1])))
    return d_first, unchunk(_factor_cotangents(previous, d_states, *split), num_steps)


def _steps(chunked):
    """[N, L, ...] -> L times [N, ...]: the same step of all chunks."""
    return [jax.tree.map(lambda x, i=i: x[:, i], chunked) for i in range(CHUNK)]


def _join(steps):
    """The inverse of `_steps`."""
    return jax.tree.map(lambda *x: jnp.stack(x, axis=1), *steps)


def _product(steps: list[Factors]) -> Array:
    """P [N, B, H, E, D]"""
    return reduce(jnp.multiply, map(decay_of, steps))


def _ends(steps: list[Factors]) -> State:
    """Z: [N, B, H, E, D] for each channel."""
    first, *others = steps
    key = outer(first.key_row, first.key_column)
    return reduce(advance, others, tuple(per_state(phase) * key for phase in first.phase))


def _first_cotangents(steps) -> State:
    """What Z is for the way back: cotangents of the states before chunks after whose ends there are none."""
    (x, d_read), *others = reversed(steps)
    query = outer(x.query_row, x.query_column)
    d_state = tuple(decay_of(x) * r[..., None, None] * query for r in d_read)
    for x, d_read in others:
        d_state = tuple(decay_of(x) * d for d in _add_readout(d_state, x, d_read))
    return d_state


def _add_readout(d_state: State, x: Factors, d_read: Readout) -> State:
    """The cotangent of a state, with what its own readout adds."""
    query = outer(x.query_row, x.query_column)
    return tuple(d + r[..., None, None] * query for d, r in zip(d_state, d_read, strict=True))


def _between_chunks(state: State, product: Array, ends: State, reverse: bool = False) -> tuple[State, State]:
    """(state after all chunks, states before each [N, ...]); reverse: from the last chunk to the first."""

    def step(state, x):
        product, ends = x
        return tuple(product * s + end for s, end in zip(state, ends, strict=True)), state

    return lax.scan(step, state, (product, ends), reverse=reverse, unroll=CHUNK)


def _factor_cotangents(previous: State, d_state: State, x: Factors, d_readout: Readout) -> Factors:
    """Cotangents of the factors, from the states before steps, [N, L, ...], and the cotangents of those after them."""
    decay, key = decay_of(x), outer(x.key_row, x.key_column)
    state = (decay * s + per_state(phase) * key for s, phase in zip(previous, x.phase, strict=True))
    d_query = reduce(jnp.add, (s * r[..., None, None] for s, r in zip(state, d_readout, strict=True)))
    d_key = reduce(jnp.add, (per_state(phase) * d for phase, d in zip(x.phase, d_state, strict=True)))
    d_gate = -per_state(x.keep) * reduce(jnp.add, (d * s for d, s in zip(d_state, previous, strict=True)))
    return Factors(
        NO_GRADIENT,
        NO_GRADIENT,
        *_outer_cotangents(d_gate, x.gate_row, x.gate_column),
        *_outer_cotangents(d_key, x.key_row, x.key_column),
        *_outer_cotangents(d_query, x.query_row, x.query_column),
    )


def _outer_cotangents(d_product: Array, row: Array, column: Array) -> tuple[Array, Array]:
    return (d_product * column[..., None, :]).sum(-1), (d_product * row[..., None]).sum(-2)


# ---------------------------------------------------------------------------------------------------------------------
# the parallel form everywhere, or where it is the faster one


@jax.custom_vjp
def parallel_outer_readout(state: State, factors: Factors) -> tuple[State, Readout]:
    """As `scan_outer_readout`; chunks are computed side by side."""
    return parallel_forward(state, factors)[0]


@jax.custom_vjp
def outer_readout(state: State, factors: Factors) -> tuple[State, Readout]:
    """As `scan_outer_readout`; its gradient as `chunked_outer_readout` on a CPU, else as `parallel_outer_readout`.

    The choice is made where the program is compiled, which may be for another device than the default one.
    """
    return scan_outer_readout(state, factors)


_chunked_forward = partial(chunked_forward, scan_outer_readout)
_chunked_backward = partial(chunked_backward, outer_readout_pullback)
_whole_backward = partial(chunked_backward, partial(derived_pullback, scan_outer_readout))


def _forward(state, factors):
    out, (starts, _) = lax.platform_dependent(state, factors, cpu=_chunked_forward, default=parallel_forward)
    out, starts = checkpoint_name((out, starts), SAVED)  # here, because names inside of a choice are not seen
    return out, (starts, factors)


def _parallel_forward(state, factors):
    out, (starts, _) = parallel_forward(state, factors)
    out, starts = checkpoint_name((out, starts), SAVED)
    return out, (starts, factors)


def _backward(residuals, cotangents):
    return lax.platform_dependent(residuals, cotangents, cpu=_chunked_backward, default=parallel_backward)


define_gradient(parallel_outer_readout, _parallel_forward, parallel_backward, _whole_backward)
define_gradient(outer_readout, _forward, _backward, _whole_backward)
