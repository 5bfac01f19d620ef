"""Layers that several memory models share. One initialisation for all: orthogonal kernels and zero biases.

Their scale is sqrt 2, and 1 in the LSTM and the GRU, whose gates are no relu. The gates of GTrXL and the layer that
halts have biases that are not zero at first.

`precision` is that of dense layers: of what goes into their products and of what comes out. Parameters, residuals,
norms, gates, scores, softmax and recurrences (the product with h in GRU and LSTM, too) are float32 in both, and so are
carries and outputs of a memory model.
"""

from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from src_pure.ops.dense import SAVED, product
from src_pure.types import Array, Carry

Precision = Literal["float32", "bfloat16"]
GATE_BIAS = 2.0  # the gate starts mostly closed, so that a block starts close to the identity


def _dot_general(x: Array, kernel: Array, dimension_numbers, precision) -> Array:
    """`product`, called as flax calls it; a dense layer always gives the same two last arguments."""
    return product(x, kernel)


_Dense = partial(nn.Dense, dot_general=_dot_general)


def dense(
    features: int,
    *,
    scale: float = 2.0**0.5,
    use_bias: bool = True,
    precision: Precision = "float32",
    name: str | None = None,
) -> nn.Dense:
    kernel_init = nn.initializers.orthogonal(scale)
    return _Dense(features, use_bias=use_bias, dtype=jnp.dtype(precision), kernel_init=kernel_init, name=name)


def full(x: Array) -> Array:
    """What a dense layer made, as float32: from here on it is added up."""
    return x.astype(jnp.float32)


def stacked_orthogonal(scale: float = 2.0**0.5):
    """Initialiser of several square kernels side by side, [D, n D], each orthogonal on its own."""
    orthogonal = nn.initializers.orthogonal(scale)

    def initialize(key, shape, dtype=jnp.float32):
        size, width = shape
        keys = jax.random.split(key, width // size)
        return jnp.concatenate([orthogonal(key, (size, size), dtype) for key in keys], axis=1)

    return initialize


def episode_time(time: Array, reset: Array) -> Array:
    """[T, B] step counter, 1 at the first step of an episode; time [B] is its value before the sequence."""
    steps = jnp.arange(1, reset.shape[0] + 1)[:, None]
    started = lax.cummax(jnp.where(reset, steps, 0))
    return jnp.where(started > 0, steps - started + 1, time + steps)


def heads(x: Array, num_heads: int) -> Array:
    """[..., H * K] -> [..., H, K]: neighbouring features belong to one head."""
    return x.reshape(*x.shape[:-1], num_heads, -1)


class GRUGate(nn.Module):
    """Gated residual of GTrXL (Parisotto et al., arXiv:1910.06764, eq. 9): (1 - z) x + z n.

    r = sigmoid(Wr y + Ur x), z = sigmoid(Wz y + Uz x - bias), n = tanh(Wg y + Ug (r x)); W and U without bias.
    """

    precision: Precision = "float32"

    @nn.compact
    def __call__(self, x: Array, y: Array) -> Array:
        size = x.shape[-1]
        from_y = full(self.projection(3 * size, "w")(y))
        from_x = full(self.projection(2 * size, "u")(x))
        bias = self.param("bias", nn.initializers.constant(GATE_BIAS), (size,))
        y_r, y_z, y_n = jnp.split(from_y, 3, axis=-1)
        x_r, x_z = jnp.split(from_x, 2, axis=-1)
        r = nn.sigmoid(y_r + x_r)
        z = nn.sigmoid(y_z + x_z - bias)
        x_n = full(self.projection(size, "u_n")(r * x))
        out = x + z * (jnp.tanh(y_n + x_n) - x)
        return lax.optimization_barrier(out)  # else XLA computes its gradient anew for every use, from the last gate on

    def projection(self, features: int, name: str) -> nn.Dense:
        dtype = jnp.dtype(self.precision)
        return _Dense(features, use_bias=False, dtype=dtype, kernel_init=stacked_orthogonal(), name=name)


def head_size(d_model: int, num_heads: int, d_head: int | None) -> int:
    """d_head, or where it is None the share of a head in d_model; raises ValueError where that is no integer."""
    if d_head is None and d_model % num_heads:
        raise ValueError(
            f"d_model must be a multiple of num_heads where d_head is null, got {d_model} and {num_heads}; "
            "change one of them or set d_head"
        )
    return d_model // num_heads if d_head is None else d_head


class PlainBlock(nn.Module):
    """Pre-norm block of GTrXL: h = Gate(x, relu(attention(LN x))), out = Gate(h, relu(dense(relu(dense(LN h)))))."""

    attention: nn.Module
    d_ffc: int
    precision: Precision = "float32"

    @nn.compact
    def __call__(self, carry: Carry, x: Array, reset: Array) -> tuple[Carry, Array]:
        carry, attended = self.attention(carry, nn.LayerNorm()(x), reset)
        x = GRUGate(self.precision, name="gate_attention")(x, nn.relu(attended))
        hidden = nn.relu(dense(self.d_ffc, precision=self.precision, name="ffc_in")(nn.LayerNorm()(x)))
        return carry, GRUGate(self.precision, name="gate_ffc")(
            x, nn.relu(dense(x.shape[-1], precision=self.precision, name="ffc_out")(hidden))
        )


class PlainUngatedBlock(nn.Module):
    """PlainBlock without gates: h = x + relu(attention(LN x)), out = h + relu(dense(relu(dense(LN h))))."""

    attention: nn.Module
    d_ffc: int
    precision: Precision = "float32"

    @nn.compact
    def __call__(self, carry: Carry, x: Array, reset: Array) -> tuple[Carry, Array]:
        carry, attended = self.attention(carry, nn.LayerNorm()(x), reset)
        x = x + nn.relu(attended)
        hidden = nn.relu(dense(self.d_ffc, precision=self.precision, name="ffc_in")(nn.LayerNorm()(x)))
        return carry, x + nn.relu(dense(x.shape[-1], precision=self.precision, name="ffc_out")(hidden))


class PlainPostNormBlock(nn.Module):
    """The first Transformer's order: h = LN(x + attention(x)), out = LN(h + dense(relu(dense(h))))."""

    attention: nn.Module
    d_ffc: int
    precision: Precision = "float32"

    @nn.compact
    def __call__(self, carry: Carry, x: Array, reset: Array) -> tuple[Carry, Array]:
        carry, attended = self.attention(carry, x, reset)
        x = nn.LayerNorm()(x + attended)
        hidden = nn.relu(dense(self.d_ffc, precision=self.precision, name="ffc_in")(x))
        return carry, nn.LayerNorm()(x + dense(x.shape[-1], precision=self.precision, name="ffc_out")(hidden))


# The backward pass keeps what is named SAVED, products of dense layers and recurrences, and computes all else again: a
# third less memory at the same speed, as what is left is elementwise.
SAVE_PRODUCTS = jax.checkpoint_policies.save_only_these_names(SAVED)
Block = nn.remat(PlainBlock, policy=SAVE_PRODUCTS)
UngatedBlock = nn.remat(PlainUngatedBlock, policy=SAVE_PRODUCTS)
PostNormBlock = nn.remat(PlainPostNormBlock, policy=SAVE_PRODUCTS)
