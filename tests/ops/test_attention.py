"""Banded attention and its gradient against a loop that keeps a list of past tokens: at once, in chunks, in steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from src_pure.models.layers import episode_time
from src_pure.ops import attention
from src_pure.ops.attention import Reader, Relative, attend, sinusoids
from tests.ops import oracles

T, B, H, K, D = 36, 3, 2, 3, 6
MEMORY_LENS = (1, 5, 60)  # histories of many windows, of several, and of less than one


def random_case(seed=0):
    """(query, tokens, reset, reader, relative) as the loop wants them, in float64."""
    rng = np.random.default_rng(seed)
    query, tokens = rng.normal(size=(T, B, H, K)), rng.normal(size=(T, B, D))
    reader = (*rng.normal(size=(2, D)), *rng.normal(size=(2, D, H, K)) / 2)
    relative = (*rng.normal(size=(2, H, K)), rng.normal(size=(D, H, K)))
    reset = rng.random((T, B)) < 0.06
    reset[:, 0] = False  # one row is a single episode
    return query, tokens, reset, reader, relative


def as_reader(reader, relative, memory_len):
    reader = [jnp.asarray(x, jnp.float32) for x in reader]
    if relative is None:
        return Reader(*reader, None)
    content_bias, position_bias, kernel = (jnp.asarray(x, jnp.float32) for x in relative)
    table = sinusoids(jnp.arange(memory_len, -1, -1), D)
    return Reader(*reader, Relative(content_bias, position_bias, jnp.einsum("md,dhk->mhk", table, kernel)))


@jax.jit
def attend_chunk(memory, time, query, tokens, reset, reader):
    steps = episode_time(time, reset)
    memory, out = attend(memory, steps - 1, query, tokens, reader)
    return memory, steps[-1], out


def attend_chunks(query, tokens, reset, reader, memory, length):
    """out [T, B, H, K], `length` steps at a time."""
    time, out = jnp.zeros(B, jnp.int32), []
    for start in range(0, len(reset), length):
        arrays = (x[start : start + length] for x in (query, tokens, reset))
        memory, time, new = attend_chunk(memory, time, *arrays, reader)
        out.append(new)
    return jnp.concatenate(out)


@pytest.mark.parametrize("length", [pytest.param(1, marks=pytest.mark.slow), 7, T])  # the last of seven steps is one
@pytest.mark.parametrize("memory_len", MEMORY_LENS)
@pytest.mark.parametrize("positions", ["relative", "absolute"])
def test_equals_the_loop(positions, memory_len, length, monkeypatch):
    monkeypatch.setattr(attention, "BLOCK", 16)  # so that T takes several, the last one shorter
    query, tokens, reset, reader, relative = random_case()
    relative = relative if positions == "relative" else None
    arrays = [jnp.asarray(x, jnp.float32) for x in (query, tokens)]
    memory = jnp.full((B, memory_len, D), 1e3)  # none of it may be seen
    out = attend_chunks(*arrays, reset, as_reader(reader, relative, memory_len), memory, length)
    loop = oracles.attention_loop(query, tokens, reset, memory_len, reader, relative)
    np.testing.assert_allclose(out, loop, rtol=1e-4, atol=1e-5)


def test_gradients_end_at_the_stored_memory():
    """Within one call tokens carry gradients, from one call to the next they do not; the query always has its own."""
    memory_len, num_steps = 5, 8
    query, tokens, reset, reader, relative = random_case()
    query, tokens = (jnp.asarray(x[:num_steps], jnp.float32) for x in (query, tokens))
    reader, memory = as_reader(reader, relative, memory_len), jnp.zeros((B, memory_len, D))

    def loss(length, memory, query, tokens):
        return jnp.sum(jnp.sin(attend_chunks(query, tokens, reset[:num_steps], reader, memory, length)))

    whole, steps = (jax.grad(loss, argnums=(1, 2, 3))(n, memory, query, tokens) for n in (num_steps, 1))
    assert not np.any(whole[0]) and not np.any(steps[0])
    np.testing.assert_allclose(whole[1], steps[1], rtol=1e-4, atol=1e-5)
    assert np.max(np.abs(whole[2] - steps[2])) > 1e-3


@pytest.mark.parametrize("positions", ["relative", "absolute"])
def test_gradient_equals_that_of_explicit_windows(positions, monkeypatch):
    """Against scores written out for each pair of tokens, differentiated by JAX; several blocks, a used memory."""
    monkeypatch.setattr(attention, "BLOCK", 16)
    memory_len, start = 5, 10
    query, tokens, reset, reader, relative = random_case()
    reader = as_reader(reader, relative if positions == "relative" else None, memory_len)
    seen = episode_time(jnp.zeros(B, jnp.int32), reset) - 1

    def plain(query, tokens, reader):
        tokens = jnp.concatenate([jax.lax.stop_gradient(tokens[:start]), tokens[start:]])
        y = tokens * reader.scale + reader.offset
        keys, values = (jnp.einsum("sbd,dhk->bhsk", y, kernel) for kernel in (reader.key, reader.value))
        distance = jnp.arange(T)[:, None] - jnp.arange(T)
        scores = jnp.einsum("tbhk,bhsk->bhts", query, keys)
        if reader.relative is not None:
            content, position = (query + bias for bias in reader.relative[:2])
            table = reader.relative.distances[jnp.clip(memory_len - distance, 0, memory_len)]  # [T, T, H, K]
            scores = jnp.einsum("tbhk,bhsk->bhts", content, keys) + jnp.einsum("tbhk,tshk->bhts", position, table)
        visible = (distance >= 0) & (distance <= jnp.minimum(seen.T[..., None], memory_len))
        weights = jax.nn.softmax(jnp.where(visible[:, None], scores * K**-0.5, -jnp.inf))
        return jnp.einsum("bhts,bhsk->tbhk", weights, values)[start:]

    def ours(query, tokens, reader):
        memory = jnp.zeros((B, memory_len, D))
        memory, _ = attend(memory, seen[:start], query[:start], tokens[:start], reader)
        return attend(memory, seen[start:], query[start:], tokens[start:], reader)[1]

    arguments = (*(jnp.asarray(x, jnp.float32) for x in (query, tokens)), reader)
    gradients = [
        jax.jit(jax.grad(lambda *x, f=f: jnp.sum(jnp.sin(f(*x))), argnums=(0, 1, 2)))(*arguments) for f in (ours, plain)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), *gradients)
