"""AGaLiTe: gated linear attention with a cosine approximation of its state (Pramanik et al., arXiv:2310.15719).

One head of size D with feature factor eta, over the raw projections of a token:

    k = relu(p1) (x) relu(key)    q = relu(p2) (x) relu(query)    g = sigmoid(p3) (x) sigmoid(gamma)    [eta, D]
    K_i = (1 - g) K_i + cos(w_i t) g k      s = (1 - g) s + g k
    V_i = (1 - b) V_i + cos(w_i t) b v,     b = sigmoid(beta)                                            [D]
    out = c * sum_i V_i (K_i . q) / (s . q + eps)

Two departures from the released code. The phase t counts the steps of the episode (1 at its first); the released
counter is never reset, but the outputs of an agent must not depend on when its episode began. And because t is an
integer and cosine is even, frequencies w, -w and 2 pi - w are one channel with a weight, and w = 0 is s itself.
"""

from collections import Counter
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from src_pure.models.blocks import residual_block, stack
from src_pure.models.layers import Precision, as_float32, dense, episode_time, head_size, heads
from src_pure.ops import recurrence
from src_pure.ops.parallel_readout import outer_readout, parallel_outer_readout
from src_pure.types import Array, Depth, PositiveInt, Width

EPS = 1e-5

Frequencies = Literal["released", "paper", "delta"]
Implementation = Literal["auto", "chunked", "parallel", "scan", "associative_scan"]


class Channels(NamedTuple):
    """The distinct cosines of a choice of frequencies. Channel 0 is w = 0, the normaliser s."""

    weights: tuple[int, ...]  # how many frequencies fall on each channel; 0 for s if w = 0 is not among them
    cosines: np.ndarray  # [period, C] float32: cos(w_i t) at t mod period
    period: int


def frequency_channels(frequencies: Frequencies, r: int) -> Channels:
    """The channels of w_i: `released` linspace(-pi, pi, r), `paper` 2 pi i / r for i = 0..r, `delta` the same to r - 1.

    All are rational turns n / period, so cosines are looked up at integers and never lose precision.
    """
    if frequencies == "released":
        period = max(2 * (r - 1), 2)
        turns = [2 * i - max(r - 1, 1) for i in range(r)]
    else:
        period = r
        turns = range(r + 1) if frequencies == "paper" else range(r)
    counts = Counter(min(n % period, -n % period) for n in turns)
    counts[0] += 0  # s is always needed
    distinct = sorted(counts)
    steps = np.outer(np.arange(period), distinct) % period
    cosines = np.cos(2.0 * np.pi * steps / period).astype(np.float32)
    return Channels(tuple(counts[n] for n in distinct), cosines, period)


class AttentionCarry(NamedTuple):
    keys: tuple[Array, ...]  # s, then K_i for each further channel: [B, H, eta, D]
    values: tuple[Array, ...]  # V_i of the channels with a weight: [B, H, D]
    time: Array  # [B] int32, steps of the episode so far, modulo the period of the cosines


def initial_attention_carry(channels: Channels, batch_size: int, num_heads: int, d_head: int, eta: int):
    key = jnp.zeros((batch_size, num_heads, eta, d_head))
    value = jnp.zeros((batch_size, num_heads, d_head))
    return AttentionCarry(
        keys=tuple(key for _ in channels.weights),
        values=tuple(value for weight in channels.weights if weight),
        time=jnp.zeros(batch_size, jnp.int32),
    )


def agalite_attention(
    carry: AttentionCarry | None,
    query: Array,
    key: Array,
    value: Array,
    beta: Array,
    gamma: Array,
    p1: Array,
    p2: Array,
    p3: Array,
    reset: Array,
    *,
    r: int,
    frequencies: Frequencies,
    implementation: Implementation = "auto",
) -> tuple[AttentionCarry, Array]:
    """(carry, out [T, B, H, D]) from raw projections, before relu and sigmoid.

    query, key, value, beta, gamma: [T, B, H, D]; p1, p2, p3: [T, B, H, eta]; reset: [T, B] bool. carry None is fresh.
    All implementations agree; `auto` is `chunked` on a CPU, whose gradient stores the least, else `parallel`.
    """
    _, batch_size, num_heads, d_head = query.shape
    channels = frequency_channels(frequencies, r)
    if carry is None:
        carry = initial_attention_carry(channels, batch_size, num_heads, d_head, p1.shape[-1])
    time = episode_time(carry.time, reset) % channels.period
    phase = tuple(jnp.asarray(cosines)[time] for cosines in channels.cosines.T)
    keep = 1.0 - reset.astype(query.dtype)

    gate_row, gate_column = jax.nn.sigmoid(p3), jax.nn.sigmoid(gamma)
    key_row, key_column = gate_row * jax.nn.relu(p1), gate_column * jax.nn.relu(key)
    query_row, query_column = jax.nn.relu(p2), jax.nn.relu(query)
    factors = recurrence.Factors(keep, phase, gate_row, gate_column, key_row, key_column, query_row, query_column)
    keys, scores = _READOUT[implementation](carry.keys, factors)

    value_gate = jax.nn.sigmoid(beta)
    decay, gated_value = keep[..., None, None] * (1.0 - value_gate), value_gate * value
    weighted = [(w, p, s) for w, p, s in zip(channels.weights, phase, scores, strict=True) if w]
    values, numerator = [], 0.0
    for previous, (weight, channel_phase, score) in zip(carry.values, weighted, strict=True):
        states = recurrence.linear_recurrence(previous, decay, channel_phase[..., None, None] * gated_value)
        values.append(states[-1])
        numerator = numerator + (weight * score)[..., None] * states
    normaliser = scores[0][..., None]
    if frequencies == "delta":
        out = numerator * (2.0 / r) / (normaliser + EPS)
    else:
        out = numerator / (2.0 * r * normaliser + EPS)
    return AttentionCarry(keys, tuple(values), time[-1]), out


_READOUT = {
    "auto": outer_readout,
    "chunked": recurrence.chunked_outer_readout,
    "parallel": parallel_outer_readout,
    "scan": recurrence.scan_outer_readout,
    "associative_scan": recurrence.associative_outer_readout,
}


class AGaLiTeAttention(nn.Module):
    """Projections, agalite_attention and the output projection of one layer."""

    d_model: int
    num_heads: int
    d_head: int
    eta: int
    r: int
    frequencies: Frequencies
    implementation: Implementation
    precision: Precision

    @nn.compact
    def __call__(self, carry: AttentionCarry, inputs: Array, reset: Array) -> tuple[AttentionCarry, Array]:
        tokens = dense(5 * self.num_heads * self.d_head, precision=self.precision, name="kqv_gates")(inputs)
        rows = dense(3 * self.num_heads * self.eta, precision=self.precision, name="features")(inputs)
        tokens, rows = heads(as_float32(tokens), self.num_heads), heads(as_float32(rows), self.num_heads)
        key, query, value, beta, gamma = jnp.split(tokens, 5, axis=-1)
        projections = (query, key, value, beta, gamma, *jnp.split(rows, 3, axis=-1))
        carry, out = agalite_attention(
            carry,
            *projections,
            reset,
            r=self.r,
            frequencies=self.frequencies,
            implementation=self.implementation,
        )
        return carry, dense(self.d_model, precision=self.precision, name="out")(out.reshape(*out.shape[:2], -1))


class AGaLiTe(nn.Module):
    """A stack of gated blocks around AGaLiTe attention; the first dense layer accepts any D_in."""

    num_layers: Depth = 4
    d_model: PositiveInt = 128
    num_heads: PositiveInt = 4
    d_head: PositiveInt | None = 64  # None: d_model / num_heads
    d_ffc: PositiveInt = 128
    eta: Width = 4
    r: Width = 2
    frequencies: Frequencies = "released"
    implementation: Implementation = "auto"
    precision: Precision = "float32"

    def __post_init__(self):
        head_size(self.d_model, self.num_heads, self.d_head)
        super().__post_init__()

    def initialize_carry(self, batch_size: int) -> tuple[AttentionCarry, ...]:
        channels = frequency_channels(self.frequencies, self.r)
        d_head = head_size(self.d_model, self.num_heads, self.d_head)
        layer = initial_attention_carry(channels, batch_size, self.num_heads, d_head, self.eta)
        return (layer,) * self.num_layers

    @nn.compact
    def __call__(self, carry, inputs: Array, reset: Array) -> tuple[tuple[AttentionCarry, ...], Array]:
        d_head = head_size(self.d_model, self.num_heads, self.d_head)

        def block(name):
            attention = AGaLiTeAttention(
                self.d_model,
                self.num_heads,
                d_head,
                self.eta,
                self.r,
                self.frequencies,
                self.implementation,
                self.precision,
                parent=None,
            )
            return residual_block("gated", attention, self.d_ffc, self.precision, name)

        return stack(block, carry, inputs, reset, self.d_model, self.precision)
