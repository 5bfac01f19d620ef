"""The blocks of a transformer: attention with memory, a feed-forward layer, and how each joins the residual stream.

A block is called as block(carry, x [T, B, D], third) -> (carry, x). It hands carry and third (resets, or steps seen) to
`attention(carry, x, third)`, and so serves linear attention and attention over past tokens alike. `norm` and `ffc` are
functions or modules, because the two kinds of model name their parameters differently: a function makes its layers in
the block itself. Gate is `layers.GRUGate`, LN a layer normalisation, and a and b are learned numbers, 0 at first.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from src_pure.models.layers import GRUGate, Precision, as_float32, dense
from src_pure.ops.dense import SAVED
from src_pure.types import Array, Carry

# The option of all models that chooses one. A model cannot have a field called `block`, as that is the name of the
# parameters of the one block that adaptive computation repeats.
Residual = Literal["gated", "pre_norm", "post_norm", "rezero", "gated_rezero"]
PRE_NORM: tuple[Residual, ...] = ("gated", "pre_norm")  # their attention reads what `norm` returns, the others' x


def feed_forward(x: Array, d_ffc: int, precision: Precision, names: tuple[str, str] = ("ffc_in", "ffc_out")) -> Array:
    """dense(relu(dense(x))), two layers of the module that calls it."""
    hidden = nn.relu(dense(d_ffc, precision=precision, name=names[0])(x))
    return dense(x.shape[-1], precision=precision, name=names[1])(hidden)


class FeedForward(nn.Module):
    """`feed_forward` as a module with the layers `in` and `out`."""

    d_ffc: int
    precision: Precision

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return feed_forward(x, self.d_ffc, self.precision, ("in", "out"))


def layer_norm(x: Array) -> Array:
    """LayerNorm, a layer of the module that calls it."""
    return nn.LayerNorm()(x)


class GatedBlock(nn.Module):
    """h = Gate(x, relu(attention(LN x))), out = Gate(h, relu(ffc(LN h))); GTrXL, Parisotto et al., arXiv:1910.06764."""

    attention: nn.Module
    norm: Callable[[Array], Array]
    ffc: Callable[[Array], Array]
    precision: Precision = "float32"

    @nn.compact
    def __call__(self, carry: Carry, x: Array, third: Array) -> tuple[Carry, Array]:
        carry, attended = self.attention(carry, self.norm(x), third)
        x = GRUGate(self.precision, name="gate_attention")(x, nn.relu(attended))
        return carry, GRUGate(self.precision, name="gate_ffc")(x, nn.relu(self.ffc(nn.LayerNorm()(x))))


class PreNormBlock(nn.Module):
    """h = x + relu(attention(LN x)), out = h + relu(ffc(LN h)): without gates, TrXL-I of arXiv:1910.06764."""

    attention: nn.Module
    norm: Callable[[Array], Array]
    ffc: Callable[[Array], Array]
    precision: Precision = "float32"

    @nn.compact
    def __call__(self, carry: Carry, x: Array, third: Array) -> tuple[Carry, Array]:
        carry, attended = self.attention(carry, self.norm(x), third)
        x = x + nn.relu(attended)
        return carry, x + nn.relu(self.ffc(nn.LayerNorm()(x)))


class PostNormBlock(nn.Module):
    """h = LN(x + attention(x)), out = LN(h + ffc(h)): Transformer (Vaswani et al., arXiv:1706.03762)."""

    attention: nn.Module
    norm: Callable[[Array], Array]
    ffc: Callable[[Array], Array]
    precision: Precision = "float32"

    @nn.compact
    def __call__(self, carry: Carry, x: Array, third: Array) -> tuple[Carry, Array]:
        carry, attended = self.attention(carry, x, third)
        x = nn.LayerNorm()(x + attended)
        return carry, nn.LayerNorm()(x + self.ffc(x))


class ReZeroBlock(nn.Module):
    """h = x + a attention(x), out = h + b ffc(h): ReZero (Bachlechner et al., arXiv:2003.04887)."""

    attention: nn.Module
    norm: Callable[[Array], Array]
    ffc: Callable[[Array], Array]
    precision: Precision = "float32"

    @nn.compact
    def __call__(self, carry: Carry, x: Array, third: Array) -> tuple[Carry, Array]:
        alpha_attention = self.param("alpha_attention", nn.initializers.zeros, ())
        alpha_ffc = self.param("alpha_ffc", nn.initializers.zeros, ())
        carry, attended = self.attention(carry, x, third)
        x = x + alpha_attention * attended
        return carry, x + alpha_ffc * self.ffc(x)


class GatedReZeroBlock(nn.Module):
    """h = Gate(x, a relu(attention(x))), out = Gate(h, b relu(ffc(h))): Integrated Transformer (Makkink 2021)."""

    attention: nn.Module
    norm: Callable[[Array], Array]
    ffc: Callable[[Array], Array]
    precision: Precision = "float32"

    @nn.compact
    def __call__(self, carry: Carry, x: Array, third: Array) -> tuple[Carry, Array]:
        alpha_attention = self.param("alpha_attention", nn.initializers.zeros, ())
        alpha_ffc = self.param("alpha_ffc", nn.initializers.zeros, ())
        carry, attended = self.attention(carry, x, third)
        x = GRUGate(self.precision, name="gate_attention")(x, alpha_attention * nn.relu(attended))
        return carry, GRUGate(self.precision, name="gate_ffc")(x, alpha_ffc * nn.relu(self.ffc(x)))


class GLUBlock(nn.Module):
    """out = x + a sigmoid(b), (a, b) = dense(gelu(memory(LN x))): the layer of S5 and LRU (arXiv:2208.04933)."""

    memory: nn.Module
    precision: Precision = "float32"

    @nn.compact
    def __call__(self, carry: Carry, x: Array, reset: Array) -> tuple[Carry, Array]:
        carry, y = self.memory(carry, nn.LayerNorm()(x), reset)
        a, b = jnp.split(as_float32(dense(2 * x.shape[-1], precision=self.precision, name="glu")(nn.gelu(y))), 2, -1)
        return carry, x + a * nn.sigmoid(b)


BLOCKS: dict[Residual, type[nn.Module]] = {
    "gated": GatedBlock,
    "pre_norm": PreNormBlock,
    "post_norm": PostNormBlock,
    "rezero": ReZeroBlock,
    "gated_rezero": GatedReZeroBlock,
}

# For linear attention, whose intermediate results are many and elementwise. The backward pass keeps the results named
# SAVED, products of dense layers and recurrences, and computes the rest again: a third less memory at the same speed.
SAVE_PRODUCTS = jax.checkpoint_policies.save_only_these_names(SAVED)
REMATERIALISED_BLOCKS = {name: nn.remat(block, policy=SAVE_PRODUCTS) for name, block in BLOCKS.items()}
REMATERIALISED_GLU_BLOCK = nn.remat(GLUBlock, policy=SAVE_PRODUCTS)


def residual_block(residual: Residual, layer: nn.Module, d_ffc: int, precision: Precision, name: str) -> nn.Module:
    """A rematerialised block around a layer whose inputs are normalised; a submodule of the module that calls this."""
    ffc = partial(feed_forward, d_ffc=d_ffc, precision=precision)
    return REMATERIALISED_BLOCKS[residual](layer, layer_norm, ffc, precision, name=name)


def stack(
    block: Callable[[str], nn.Module],
    carry: tuple[Carry, ...],
    inputs: Array,
    reset: Array,
    d_model: int,
    precision: Precision,
) -> tuple[tuple[Carry, ...], Array]:
    """(carry, out [T, B, d_model]): a dense layer that accepts any D_in, then a block(name) for each carry.

    All are submodules of the module that calls this.
    """
    x = as_float32(nn.relu(dense(d_model, precision=precision, name="embed")(inputs)))
    new_carry = []
    for i, layer_carry in enumerate(carry):
        layer_carry, x = block(f"block_{i}")(layer_carry, x, reset)
        new_carry.append(layer_carry)
    return tuple(new_carry), x
