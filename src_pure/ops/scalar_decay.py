"""A matrix memory with one decay for each head, in chunks of matrix products: mLSTM, Mamba-2.

One head of D values and F features; a group of heads may share keys and queries:

    S_t = a_t S_{t-1} + value_t (x) key_t   [D, F]        readout_t = S_t query_t   [D]

Step n reaches step t of the same chunk through a_{n+1} ... a_t, so all pairs are one matrix of decays times one of
products key . query (Dao & Gu, arXiv:2405.21060, section 6). The decays are given as logarithms and those of a pair are
added up over its own steps: differences of running sums would lose digits where a is small. A reset hides earlier
steps exactly. The gradient keeps one state per chunk.

Sizes: T time, L steps of a chunk, B batch, H heads, G groups, J = H / G.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from src_pure.ops.dense import SAVED
from src_pure.ops.gradients import define_gradient
from src_pure.ops.precision import einsum
from src_pure.ops.recurrence import chunks, unchunk
from src_pure.types import Array

CHUNK = 32  # steps; a sequence that is shorter is one chunk


class ScalarInputs(NamedTuple):
    reset: Array  # [T, B] bool: memory is cleared first
    log_decay: Array  # log a [T, B, H], at most 0; not read where memory is cleared
    value: Array  # [T, B, H, D]
    key: Array  # [T, B, G, F]
    query: Array  # [T, B, G, F]


def pair_decays(log_decay: Array, reset: Array) -> tuple[Array, Array]:
    """(since [B, H, L], pairs [B, H, L, L]): what is left at step t of the state before, and of what step n added."""
    steps = np.arange(len(reset) + 1)
    started, now, between = steps[:-1] + 1, steps[1:, None, None], steps[None, :, None]  # state 0 came before step 1
    crossed = jnp.asarray((between < started) & (started <= now), jnp.float32)  # [t, n, step]
    resets = einsum("tnl,lb->btn", crossed, reset.astype(jnp.float32))
    visible = (resets == 0) & (steps[None, :] <= steps[1:, None])  # [B, t, n]
    logs = einsum("tnl,lbh->bhtn", crossed, jnp.where(reset[..., None], 0.0, log_decay))
    decays = jnp.where(visible[:, None], jnp.exp(logs), 0.0)
    return decays[..., 0], decays[..., 1:]


def read_chunk(state: Array, since: Array, pairs: Array, value: Array, key: Array, query: Array):
    """(last state [B, H, D, F], readout [L, B, H, D]) of a chunk; the arguments as in ScalarInputs."""
    num_groups = key.shape[2]
    length, batch_size, num_heads, size = value.shape
    if length == 1:  # acting: one pass over the state is faster than products of single rows
        key, query = (jnp.repeat(x[0], num_heads // num_groups, axis=1) for x in (key, query))  # [B, H, F]
        state = since[..., None] * state + value[0][..., None] * key[:, :, None]
        return state, einsum("bhdf,bhf->bhd", state, query)[None]

    def grouped(x, axis):
        return x.reshape(*x.shape[:axis], num_groups, num_heads // num_groups, *x.shape[axis + 1 :])

    state, since, pairs, value = grouped(state, 1), grouped(since, 1), grouped(pairs, 1), grouped(value, 2)
    weights = einsum("tbgf,nbgf->bgtn", query, key)[:, :, None] * pairs  # [B, G, J, L, L]
    earlier = since[..., None] * einsum("bgjdf,tbgf->bgjtd", state, query)
    readout = earlier + einsum("bgjtn,nbgjd->bgjtd", weights, value)
    written = einsum("bgjn,nbgjd->bgjdn", pairs[..., -1, :], value)  # as much as is left at the end
    state = since[..., -1, None, None] * state + einsum("bgjdn,nbgf->bgjdf", written, key)
    readout = jnp.moveaxis(readout, 3, 0).reshape(length, batch_size, num_heads, size)
    return state.reshape(batch_size, num_heads, size, -1), readout


def scalar_chunk(state: Array, x: ScalarInputs) -> tuple[Array, Array]:
    since, pairs = pair_decays(x.log_decay, x.reset)
    return read_chunk(state, since, pairs, x.value, x.key, x.query)


Chunk = Callable[[Array, Any], tuple[Array, Array]]


def sequence_forward(chunk: Chunk, state: Array, inputs):
    """((last state, readout), residuals) of a sequence; (last state, readout) = chunk(state, inputs of L steps).

    `inputs` is a NamedTuple of arrays [T, ...], one of them the `reset`.
    """
    num_steps = len(inputs.reset)

    def step(state, x):
        last, readout = chunk(state, x)
        return last, (state, readout)

    split = chunks(inputs, num_steps, min(CHUNK, num_steps))
    last, (starts, readout) = checkpoint_name(lax.scan(step, state, split), SAVED)
    return (last, unchunk(readout, num_steps)), (starts, inputs)


def sequence_backward(chunk: Chunk, residuals, cotangents):
    """Cotangents of state and inputs; the chunks are computed again, the last one first."""
    (starts, inputs), (d_last, d_readout) = residuals, cotangents
    num_steps = len(inputs.reset)

    def step(d_state, x):
        start, inputs, d_readout = x

        def of_floats(start, floats):
            return chunk(start, floats._replace(reset=inputs.reset))

        return jax.vjp(of_floats, start, inputs._replace(reset=None))[1]((d_state, d_readout))

    split = chunks((inputs, d_readout), num_steps, min(CHUNK, num_steps))
    d_first, d_inputs = lax.scan(step, d_last, (starts, *split), reverse=True)
    return d_first, unchunk(d_inputs, num_steps)


@jax.custom_vjp
def scalar_readout(state: Array, inputs: ScalarInputs) -> tuple[Array, Array]:
    """(last state [B, H, D, F], readout [T, B, H, D])."""
    return sequence_forward(scalar_chunk, state, inputs)[0]


define_gradient(
    scalar_readout,
    partial(sequence_forward, scalar_chunk),
    partial(sequence_backward, scalar_chunk),
)
