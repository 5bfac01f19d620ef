"""Layers that several memory models share. One initialisation for all: orthogonal kernels and zero biases.

Their scale is sqrt 2, and 1 in the LSTM and the GRU, whose gates are no relu.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from src_pure.ops.recurrence import SAVED
from src_pure.types import Array, Carry

GATE_BIAS = 2.0  # the gate starts mostly closed, so that a block starts close to the identity


def dense(features: int, *, scale: float = 2.0**0.5, use_bias: bool = True, name: str | None = None) -> nn.Dense:
    return nn.Dense(features, use_bias=use_bias, kernel_init=nn.initializers.orthogonal(scale), name=name)


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
    """[T, B, H * K] -> [T, B, H, K]: neighbouring features belong to one head."""
    return x.reshape(*x.shape[:-1], num_heads, -1)


class GRUGate(nn.Module):
    """Gated residual of GTrXL (Parisotto et al., arXiv:1910.06764, eq. 9): (1 - z) x + z n.

    r = sigmoid(Wr y + Ur x), z = sigmoid(Wz y + Uz x - bias), n = tanh(Wg y + Ug (r x)); W and U without bias.
    """

    @nn.compact
    def __call__(self, x: Array, y: Array) -> Array:
        size = x.shape[-1]
        from_y = nn.Dense(3 * size, use_bias=False, kernel_init=stacked_orthogonal(), name="w")(y)
        from_x = nn.Dense(2 * size, use_bias=False, kernel_init=stacked_orthogonal(), name="u")(x)
        bias = self.param("bias", nn.initializers.constant(GATE_BIAS), (size,))
        y_r, y_z, y_n = jnp.split(from_y, 3, axis=-1)
        x_r, x_z = jnp.split(from_x, 2, axis=-1)
        r = nn.sigmoid(y_r + x_r)
        z = nn.sigmoid(y_z + x_z - bias)
        x_n = nn.Dense(size, use_bias=False, kernel_init=stacked_orthogonal(), name="u_n")(r * x)
        return x + z * (jnp.tanh(y_n + x_n) - x)


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

    @nn.compact
    def __call__(self, carry: Carry, x: Array, reset: Array) -> tuple[Carry, Array]:
        carry, attended = self.attention(carry, nn.LayerNorm()(x), reset)
        x = GRUGate(name="gate_attention")(x, nn.relu(attended))
        hidden = nn.relu(dense(self.d_ffc, name="ffc_in")(nn.LayerNorm()(x)))
        return carry, GRUGate(name="gate_ffc")(x, nn.relu(dense(x.shape[-1], name="ffc_out")(hidden)))


class PlainUngatedBlock(nn.Module):
    """PlainBlock without gates: h = x + relu(attention(LN x)), out = h + relu(dense(relu(dense(LN h))))."""

    attention: nn.Module
    d_ffc: int

    @nn.compact
    def __call__(self, carry: Carry, x: Array, reset: Array) -> tuple[Carry, Array]:
        carry, attended = self.attention(carry, nn.LayerNorm()(x), reset)
        x = x + nn.relu(attended)
        hidden = nn.relu(dense(self.d_ffc, name="ffc_in")(nn.LayerNorm()(x)))
        return carry, x + nn.relu(dense(x.shape[-1], name="ffc_out")(hidden))


class PlainPostNormBlock(nn.Module):
    """The first Transformer's order: h = LN(x + attention(x)), out = LN(h + dense(relu(dense(h))))."""

    attention: nn.Module
    d_ffc: int

    @nn.compact
    def __call__(self, carry: Carry, x: Array, reset: Array) -> tuple[Carry, Array]:
        carry, attended = self.attention(carry, x, reset)
        x = nn.LayerNorm()(x + attended)
        hidden = nn.relu(dense(self.d_ffc, name="ffc_in")(x))
        return carry, nn.LayerNorm()(x + dense(x.shape[-1], name="ffc_out")(hidden))


# The backward pass keeps matrix products and recurrences and computes all that is elementwise again: a third less
# memory at the same speed.
SAVE_PRODUCTS = jax.checkpoint_policies.save_from_both_policies(
    jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    jax.checkpoint_policies.save_only_these_names(SAVED),
)
Block = nn.remat(PlainBlock, policy=SAVE_PRODUCTS)
UngatedBlock = nn.remat(PlainUngatedBlock, policy=SAVE_PRODUCTS)
PostNormBlock = nn.remat(PlainPostNormBlock, policy=SAVE_PRODUCTS)
