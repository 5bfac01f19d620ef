"""Banded attention with memory: a token attends to itself and to the last M tokens of its own episode.

The memory of a layer, x [B, M, D], holds what attention reads. Keys and values are y W_K and y W_V of y = x * scale +
offset, the affine part of a layer normalisation that x has already been through. The memory is a ring: token n of an
episode (from 0) is in slot n mod M. Nothing in it ever moves, and no gradient flows into it.

A token and the one `distance` before it have the score of Transformer-XL (Dai et al., arXiv:1901.02860, sec. 3.3)

    ((q + u) . k + (q + v) . r_distance) / sqrt(K)

Sizes: T time, B batch, H heads, K head size, D width of a token, M memory.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from src_pure.ops.gradients import define_gradient
from src_pure.ops.precision import einsum
from src_pure.types import Array

BLOCK = 64  # queries scored at once, against the M + BLOCK tokens they may see: limits the work outside of the band
MASKED = -1e30  # score of a token out of sight; finite, so that its gradient is 0 and not NaN


class Relative(NamedTuple):
    """Relative positions of Transformer-XL. With absolute positions, which are part of the tokens, there is None."""

    content_bias: Array  # u [H, K]
    position_bias: Array  # v [H, K]
    distances: Array  # [M + 1, H, K]: r of distance M, M - 1, ..., 0


class Reader(NamedTuple):
    """How one layer reads a token x: its key is y W_K and its value y W_V, y = x * scale + offset."""

    scale: Array  # [D]
    offset: Array  # [D]
    key: Array  # [D, H, K]
    value: Array  # [D, H, K]
    relative: Relative | None


def sinusoids(positions: Array, size: int) -> Array:
    """[..., size]: sines, then cosines of positions [...] at falling frequencies (Vaswani et al., arXiv:1706.03762)."""
    frequencies = 10_000.0 ** (-2.0 * np.arange(size // 2) / size)
    angles = positions[..., None] * frequencies.astype(np.float32)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def attend(memory: Array, seen: Array, query: Array, tokens: Array, reader: Reader) -> tuple[Array, Array]:
    """(memory after the tokens, mean of the values [T, B, H, K]).

    memory: [B, M, D]; seen: [T, B] int32, tokens of the episode before this one; query: [T, B, H, K];
    tokens: [T, B, D]. One token is scored without projecting the memory, see `attend_step`.
    """
    memory = lax.stop_gradient(memory)
    if len(tokens) == 1:
        memory, out = attend_step(memory, seen[0], query[0], tokens[0], reader)
        return memory, out[None]
    return attend_sequence(memory, seen, query, tokens, reader)


# ---------------------------------------------------------------------------------------------------------------------
# one token, while acting


def attend_step(memory: Array, seen: Array, query: Array, token: Array, reader: Reader) -> tuple[Array, Array]:
    """(memory, out [B, H, K]) of one token: seen [B], query [B, H, K], token [B, D].

    Projections go to the single query and the single mean instead of the M tokens they are scored with:
    q . (y W_K) = (q W_K^T) . y and sum_m p_m (y_m W_V) = (sum_m p_m y_m) W_V. The offset adds the same to all scores.
    """
    memory_len, num_heads = memory.shape[1], query.shape[1]
    slot = seen % memory_len
    order = (jnp.arange(memory_len) - slot[:, None]) % memory_len  # [B, M]: 0 is the oldest, M tokens ago
    query = query * query.shape[-1] ** -0.5
    absorbed, position = _absorb(query, reader)  # [B, H, D], [B, H, M + 1] by falling distance
    scores = einsum("bhd,bmd->bhm", absorbed, memory)
    own = einsum("bhd,bd->bh", absorbed, token)[..., None]
    if position is not None:
        by_slot = jnp.broadcast_to(order[:, None], (len(order), num_heads, memory_len))
        scores += jnp.take_along_axis(position[..., :-1], by_slot, axis=-1)
        own += position[..., -1:]
    scores = jnp.where((memory_len - order <= seen[:, None])[:, None], scores, MASKED)
    weights = jax.nn.softmax(jnp.concatenate([scores, own], axis=-1))
    mean = einsum("bhm,bmd->bhd", weights[..., :-1], memory) + weights[..., -1:] * token[:, None]
    memory, mean = lax.optimization_barrier((memory, mean))  # written after it is read, hence in place
    memory = memory.at[jnp.arange(len(memory)), slot].set(token)
    return memory, einsum("bhd,dhk->bhk", mean * reader.scale + reader.offset, reader.value)


def _absorb(query: Array, reader: Reader) -> tuple[Array, Array | None]:
    """A scaled query [B, H, K] as a vector [B, H, D] to multiply tokens with, and its score for each distance."""
    relative = reader.relative
    content = query if relative is None else query + relative.content_bias * query.shape[-1] ** -0.5
    absorbed = einsum("bhk,dhk->bhd", content, reader.key) * reader.scale
    if relative is None:
        return absorbed, None
    position = query + relative.position_bias * query.shape[-1] ** -0.5
    return absorbed, einsum("bhk,ehk->bhe", position, relative.distances)


# ---------------------------------------------------------------------------------------------------------------------
# a sequence, while learning


def attend_sequence(memory: Array, seen: Array, query: Array, tokens: Array, reader: Reader) -> tuple[Array, Array]:
    """As T calls of `attend_step`, in blocks of queries, with keys and values projected once. No gradient of memory.

    Slots of the memory that hold no token of the episode may differ.
    """
    num_steps, memory_len = len(tokens), memory.shape[1]
    past = _rotate(memory, seen[0])  # oldest first; after a reset the order does not matter, as none of it is seen
    tokens = tokens.swapaxes(0, 1)
    projected = [_project(past, tokens, reader, kernel) for kernel in (reader.key, reader.value)]
    queries = query.transpose(2, 1, 0, 3) * query.shape[-1] ** -0.5  # [H, B, T, K]
    out = []
    for first in range(0, num_steps, BLOCK):
        block, window = slice(first, first + BLOCK), slice(first, first + BLOCK + memory_len)
        keys, values = (x[..., window].swapaxes(1, 2) for x in projected)  # [H, B, K, M + C]
        out.append(_attend_block(queries[:, :, block], keys, values, seen[block].T, reader.relative))
    out = jnp.concatenate(out, axis=2).transpose(2, 1, 0, 3)
    context = jnp.concatenate([past, tokens], axis=1)
    return _rotate(context[:, num_steps:], -(seen[-1] + 1)), out


def _project(past: Array, tokens: Array, reader: Reader, kernel: Array) -> Array:
    """[H, K, B, M + T]: keys or values of past and tokens; the scale multiplies the kernel, not the tokens."""
    offset = einsum("d,dhk->hk", reader.offset, kernel)[..., None, None]
    return _project_all(past, tokens, reader.scale[:, None, None] * kernel) + offset


@jax.custom_vjp
def _project_all(past: Array, tokens: Array, kernel: Array) -> Array:
    """[H, K, B, M + T]: past [B, M, D] and tokens [B, T, D] times kernel [D, H, K], in one product.

    The gradient is written by hand. It leaves out the past, and its axes are in the order that needs the fewest copies
    on CPUs.
    """
    return _project_all_forward(past, tokens, kernel)[0]


def _project_all_forward(past, tokens, kernel):
    context = jnp.concatenate([past, tokens], axis=1)
    return einsum("dhk,bjd->hkbj", kernel, context), (context, kernel, past)  # of past, only the length is used


def _project_all_backward(residuals, d_out):
    context, kernel, past = residuals
    d_kernel = einsum("hkbj,bjd->hkd", d_out, context).transpose(2, 0, 1)
    d_tokens = einsum("dhk,hkbj->dbj", kernel, d_out[..., past.shape[1] :]).transpose(1, 2, 0)
    return None, d_tokens, d_kernel


define_gradient(_project_all, _project_all_forward, _project_all_backward)


def _rotate(memory: Array, shift: Array) -> Array:
    """memory [B, M, D] whose slot m is slot m + shift [B] of the argument, modulo M."""
    memory_len = memory.shape[1]
    source = (jnp.arange(memory_len) + shift[:, None]) % memory_len
    return jnp.take_along_axis(memory, source[..., None], axis=1)


def _attend_block(queries: Array, keys: Array, values: Array, seen: Array, relative: Relative | None) -> Array:
    """[H, B, C, K] for scaled queries [H, B, C, K]; keys, values [H, B, K, M + C]; seen [B, C].

    Query i stands at key M + i.
    """
    num_queries, num_keys = queries.shape[2], keys.shape[3]
    memory_len = num_keys - num_queries
    distance = memory_len + np.arange(num_queries)[:, None] - np.arange(num_keys)  # [C, M + C]
    visible = (distance >= 0) & (distance <= jnp.minimum(seen, memory_len)[..., None])  # [B, C, M + C]
    if relative is None:
        return _masked_mean(queries, keys, values, None, visible)
    scale = queries.shape[-1] ** -0.5
    content = queries + scale * relative.content_bias[:, None, None]
    position = queries + scale * relative.position_bias[:, None, None]
    return _masked_mean(content, keys, values, _position_scores(position, relative.distances), visible)


@jax.custom_vjp
def _masked_mean(queries: Array, keys: Array, values: Array, scores: Array | None, visible: Array) -> Array:
    """[H, B, C, K]: softmax(queries . keys + scores) . values over what is visible; shapes as in `_attend_block`.

    The gradient is written by hand for its products: differentiation would transpose [C, M + C] matrices. The sums of
    the softmax divide the result and its gradient, [C, K], instead of the weights.
    """
    return _masked_mean_forward(queries, keys, values, scores, visible)[0]


def _masked_mean_forward(queries, keys, values, scores, visible):
    content = einsum("hbtk,hbkj->hbtj", queries, keys)
    total = jnp.where(visible, content if scores is None else content + scores, MASKED)
    exponentials = jnp.exp(total - jnp.max(total, axis=-1, keepdims=True))
    sums = jnp.sum(exponentials, axis=-1, keepdims=True)
    out = einsum("hbtj,hbkj->hbtk", exponentials, values) / sums
    return out, (queries, keys, values, None if scores is None else (), exponentials, sums, out)


def _masked_mean_backward(residuals, d_out):
    queries, keys, values, no_scores, exponentials, sums, out = residuals
    d_sum = d_out / sums  # of exponentials . values
    d_exponentials = einsum("hbtk,hbkj->hbtj", d_sum, values)
    d_scores = exponentials * (d_exponentials - jnp.sum(d_sum * out, axis=-1, keepdims=True))
    d_scores = lax.optimization_barrier(d_scores)  # else XLA computes it again for every use below
    d_queries = einsum("hbtj,hbkj->hbtk", d_scores, keys)
    d_keys = einsum("hbtk,hbtj->hbkj", queries, d_scores)
    d_values = einsum("hbtk,hbtj->hbkj", d_sum, exponentials)
    return d_queries, d_keys, d_values, None if no_scores is None else d_scores, None


define_gradient(_masked_mean, _masked_mean_forward, _masked_mean_backward)


@jax.custom_vjp
def _position_scores(queries: Array, distances: Array) -> Array:
    """[H, B, C, M + C] whose (i, i + e) is query i times distances[e]; wrong outside of that band.

    With C columns of zeros after the M + 1 distances, a row has one number more than its result. Reading the same
    numbers in rows of M + C therefore moves each row one further to the right. The gradient, which is 0 outside of the
    band, is read in the longer rows again and multiplies the M + 1 distances alone.
    """
    num_heads, batch_size, num_queries, _ = queries.shape
    num_keys = len(distances) - 1 + num_queries
    padded = jnp.pad(distances, ((0, num_queries), (0, 0), (0, 0)))
    scores = einsum("hbtk,ehk->hbte", queries, padded).reshape(num_heads, batch_size, -1)
    return scores[..., : num_queries * num_keys].reshape(num_heads, batch_size, num_queries, num_keys)


def _position_scores_forward(queries, distances):
    return _position_scores(queries, distances), (queries, distances)


def _position_scores_backward(residuals, d_scores):
    queries, distances = residuals
    num_heads, batch_size, num_queries, num_keys = d_scores.shape
    flat = jnp.pad(d_scores.reshape(num_heads, batch_size, -1), ((0, 0), (0, 0), (0, num_queries)))
    by_distance = flat.reshape(num_heads, batch_size, num_queries, num_keys + 1)[..., : len(distances)]
    by_distance = lax.optimization_barrier(by_distance)  # else XLA moves the rows twice, once for each product
    d_distances = einsum("hbtk,hbte->hke", queries, by_distance).transpose(2, 0, 1)
    return einsum("hbte,ehk->hbtk", by_distance, distances), d_distances


define_gradient(_position_scores, _position_scores_forward, _position_scores_backward)
