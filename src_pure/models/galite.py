"""GaLiTe: gated linear attention with its exact matrix state (Pramanik et al., arXiv:2310.15719), and its ablations.

One head of size D with F features, over the raw projections of a token; C [D, F] and s [F] start an episode at 0:

    k = phi(key)    q = phi(query)    b = sigmoid(beta) [D]    g = sigmoid(p3) (x) sigmoid(gamma) [F]
    C = decay . C + (b value) (x) (g k)      s = (1 - g) s + g k      out = C q / (s . q + eps)

    decay    product:  (1 - b) (x) (1 - g), the paper's; what AGaLiTe approximates
             released: 1 - b (x) g, the released code's, which forgets far more slowly
    gating   elementwise: as above
             scalar: C = (1 - a) C + a value (x) k, s alike; a = sigmoid(beta), one for each head (Peng et al.,
                     arXiv:2103.02143)
             none: C = C + value (x) k, s alike, the linear transformer (Katharopoulos et al., arXiv:2006.16236)
    phi(x)   outer_relu: relu(p) (x) relu(x)      outer_elu+1: (elu(p) + 1) (x) (elu(x) + 1)       F = eta D
             relu: relu(x)                        elu+1: elu(x) + 1                                F = D
             dpfp: y_i y_{i+j}, j = 1..nu, y = relu([x, -x]) (Schlag et al., arXiv:2102.11174)  F = 2 nu D

p is p1 for the key and p2 for the query. g has one factor for each feature: sigmoid(gamma) alone where F = D, and for
dpfp sigmoid(p3_j) sigmoid(gamma_i) on both features of shift j that start at x_i and at -x_i.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from src_pure.models.blocks import Residual, residual_block, stack
from src_pure.models.layers import Precision, as_float32, dense, head_size, heads
from src_pure.ops.matrix_recurrence import Factored, FactoredInputs, MatrixState, scan_readout
from src_pure.ops.product_decay import product_decay, product_readout
from src_pure.ops.released_decay import released_decay, released_readout
from src_pure.types import Array, Depth, PositiveInt, Width

EPS = 1e-10
Projection = Any  # an Array, or None where an ablation does not use it

DecayName = Literal["product", "released"]
Gating = Literal["elementwise", "scalar", "none"]
FeatureMap = Literal["outer_relu", "outer_elu+1", "relu", "elu+1", "dpfp"]
Implementation = Literal["auto", "chunked", "scan"]


def elu_plus_one(x: Array) -> Array:
    return jax.nn.elu(x) + 1.0


def dpfp(x: Array, nu: int) -> Array:
    """[..., D] -> [..., 2 nu D]: products of neighbours at distances 1..nu in relu([x, -x])."""
    y = jnp.concatenate([jax.nn.relu(x), jax.nn.relu(-x)], axis=-1)
    return jnp.concatenate([y * jnp.roll(y, -shift, axis=-1) for shift in range(1, nu + 1)], axis=-1)


FEATURES: dict[str, Callable[[Array, Projection, int], Factored]] = {
    "outer_relu": lambda x, p, nu: Factored(jax.nn.relu(p), jax.nn.relu(x)),
    "outer_elu+1": lambda x, p, nu: Factored(elu_plus_one(p), elu_plus_one(x)),
    "relu": lambda x, p, nu: Factored(None, jax.nn.relu(x)),
    "elu+1": lambda x, p, nu: Factored(None, elu_plus_one(x)),
    "dpfp": lambda x, p, nu: Factored(None, dpfp(x, nu)),
}


def num_features(feature_map: FeatureMap, d_head: int, eta: int) -> int:
    """F; for dpfp eta is nu."""
    return d_head * {"relu": 1, "elu+1": 1, "dpfp": 2 * eta}.get(feature_map, eta)


def row_sizes(gating: Gating, feature_map: FeatureMap, eta: int) -> tuple[int, int, int]:
    """How many of p1, p2 and p3 a head needs."""
    features = eta if feature_map.startswith("outer") else 0
    gates = eta if gating == "elementwise" and feature_map not in ("relu", "elu+1") else 0
    return features, features, gates


def feature_gate(gamma: Array, p3: Projection, feature_map: FeatureMap) -> Factored:
    """g, factored like the features."""
    gate = jax.nn.sigmoid(gamma)
    if feature_map in ("relu", "elu+1"):
        return Factored(None, gate)
    if feature_map == "dpfp":
        return Factored(None, Factored(jax.nn.sigmoid(p3), jnp.concatenate([gate, gate], axis=-1)).vector())
    return Factored(jax.nn.sigmoid(p3), gate)


def initial_state(batch_size: int, num_heads: int, d_head: int, features: int) -> MatrixState:
    return MatrixState(
        matrix=jnp.zeros((batch_size, num_heads, d_head, features)),
        normaliser=jnp.zeros((batch_size, num_heads, features)),
    )


def galite_attention(
    carry: MatrixState | None,
    query: Array,
    key: Array,
    value: Array,
    beta: Projection,
    gamma: Projection,
    p1: Projection,
    p2: Projection,
    p3: Projection,
    reset: Array,
    *,
    decay: DecayName,
    gating: Gating = "elementwise",
    feature_map: FeatureMap = "outer_relu",
    nu: int = 1,
    implementation: Implementation = "auto",
) -> tuple[MatrixState, Array]:
    """(carry, out [T, B, H, D]) from raw projections, before relu and sigmoid.

    query, key, value, beta, gamma: [T, B, H, D]; p1, p2, p3: [T, B, H, eta]; reset: [T, B] bool. carry None is fresh.
    Arguments that an ablation does not use may be None; beta is [T, B, H, 1] for `scalar`, p3 [T, B, H, nu] for `dpfp`.
    Only dpfp reads `nu`, only elementwise gates read `decay`: with one gate per head both decays are 1 - a.
    """
    features = FEATURES[feature_map]
    written, read = features(key, p1, nu), features(query, p2, nu)
    row_gate, column_gate = jnp.zeros_like(value), Factored(None, jnp.zeros((*value.shape[:-1], written.size)))
    if gating == "elementwise":
        row_gate, column_gate = jax.nn.sigmoid(beta), feature_gate(gamma, p3, feature_map)
        value, written = row_gate * value, jax.tree.map(jnp.multiply, column_gate, written)
    elif gating == "scalar":
        gate = jax.nn.sigmoid(beta)
        column_gate = Factored(None, jnp.broadcast_to(gate, column_gate.column.shape))
        written = written._replace(column=gate * written.column)
    if carry is None:
        carry = initial_state(*value.shape[1:], written.size)
    inputs = FactoredInputs(1.0 - reset.astype(value.dtype), row_gate, column_gate, value, written, read)
    readout = _READOUT[decay if gating == "elementwise" else "product", implementation]
    carry, (numerator, denominator) = readout(carry, inputs)
    return carry, numerator / (denominator[..., None] + EPS)


_READOUT = {
    ("product", "auto"): product_readout,
    ("product", "chunked"): product_readout,
    ("product", "scan"): partial(scan_readout, decay=product_decay),
    ("released", "auto"): released_readout,
    ("released", "chunked"): released_readout,
    ("released", "scan"): partial(scan_readout, decay=released_decay),
}


class GaLiTeAttention(nn.Module):
    """Projections, galite_attention and the output projection of one layer."""

    d_model: int
    num_heads: int
    d_head: int
    eta: int
    decay: DecayName
    gating: Gating
    feature_map: FeatureMap
    implementation: Implementation
    precision: Precision

    @nn.compact
    def __call__(self, carry: MatrixState, inputs: Array, reset: Array) -> tuple[MatrixState, Array]:
        elementwise = self.gating == "elementwise"
        width = self.num_heads * self.d_head * (5 if elementwise else 3)
        tokens = heads(as_float32(dense(width, precision=self.precision, name="kqv_gates")(inputs)), self.num_heads)
        key, query, value, *gates = jnp.split(tokens, width // (self.num_heads * self.d_head), -1)
        beta, gamma = gates if elementwise else (None, None)
        if self.gating == "scalar":
            gate = dense(self.num_heads, precision=self.precision, name="gate")(inputs)
            beta = heads(as_float32(gate), self.num_heads)
        projections = (query, key, value, beta, gamma, *self.rows(inputs))
        carry, out = galite_attention(
            carry,
            *projections,
            reset,
            decay=self.decay,
            gating=self.gating,
            feature_map=self.feature_map,
            nu=self.eta,
            implementation=self.implementation,
        )
        return carry, dense(self.d_model, precision=self.precision, name="out")(out.reshape(*out.shape[:2], -1))

    def rows(self, inputs: Array) -> list[Projection]:
        """p1, p2, p3 [T, B, H, eta]: empty, or None if all are, where not used."""
        first, second, third = row_sizes(self.gating, self.feature_map, self.eta)
        if first + third == 0:
            return [None, None, None]
        width = self.num_heads * (first + second + third)
        rows = as_float32(dense(width, precision=self.precision, name="features")(inputs))
        return jnp.split(heads(rows, self.num_heads), (first, first + second), axis=-1)


class GaLiTe(nn.Module):
    """A stack of blocks around GaLiTe attention; the first dense layer accepts any D_in."""

    num_layers: Depth = 4
    d_model: PositiveInt = 128
    num_heads: PositiveInt = 4
    d_head: PositiveInt | None = 64  # None: d_model / num_heads
    d_ffc: PositiveInt = 128
    eta: Width = 2
    decay: DecayName = "product"
    gating: Gating = "elementwise"
    feature_map: FeatureMap = "outer_relu"
    residual: Residual = "gated"
    implementation: Implementation = "auto"
    precision: Precision = "float32"

    def __post_init__(self):
        head_size(self.d_model, self.num_heads, self.d_head)
        super().__post_init__()

    def initialize_carry(self, batch_size: int) -> tuple[MatrixState, ...]:
        d_head = head_size(self.d_model, self.num_heads, self.d_head)
        features = num_features(self.feature_map, d_head, self.eta)
        return (initial_state(batch_size, self.num_heads, d_head, features),) * self.num_layers

    @nn.compact
    def __call__(self, carry, inputs: Array, reset: Array) -> tuple[tuple[MatrixState, ...], Array]:
        d_head = head_size(self.d_model, self.num_heads, self.d_head)

        def block(name):
            attention = GaLiTeAttention(
                self.d_model,
                self.num_heads,
                d_head,
                self.eta,
                self.decay,
                self.gating,
                self.feature_map,
                self.implementation,
                self.precision,
                parent=None,
            )
            return residual_block(self.residual, attention, self.d_ffc, self.precision, name)

        return stack(block, carry, inputs, reset, self.d_model, self.precision)
