"""MinGRU: a GRU whose gates do not see its state (Feng et al., arXiv:2410.01201, section 3.1 and appendix B).

    h_t = (1 - z_t) h_{t-1} + z_t g(W_c x_t),    z_t = sigmoid(W_z x_t),    g(c) = c + 1/2 for c >= 0, else sigmoid(c)

so that h is linear in what came before. `highway` adds sigmoid(p) out + (1 - sigmoid(p)) x with p = W_p x, and then no
layer has biases, as in the recipes for Craftax of PufferLib. With an expansion k the state has k times as many units
and a dense layer leads back to `size`. h is 0 at the first step of an episode; the paper's parallel form starts at 1/2.
"""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from src_pure.models.blocks import SAVE_PRODUCTS
from src_pure.models.layers import Precision, as_float32, dense
from src_pure.ops.recurrence import linear_recurrence
from src_pure.types import Array, Depth, PositiveInt, Width

Residual = Literal["none", "highway"]


def positive(c: Array) -> Array:
    """g: continuous, and positive like the paper's logarithmic form needs."""
    return jnp.where(c >= 0, c + 0.5, nn.sigmoid(c))


class MinGRULayer(nn.Module):
    size: int
    expansion: int
    residual: Residual
    precision: Precision

    @nn.compact
    def __call__(self, carry: Array, x: Array, reset: Array) -> tuple[Array, Array]:
        width, highway = self.expansion * self.size, self.residual == "highway"
        features = 2 * width + (self.size if highway else 0)
        raw = dense(features, scale=1.0, use_bias=not highway, precision=self.precision, name="inputs")(x)
        candidate, gate, through = jnp.split(as_float32(raw), (width, 2 * width), axis=-1)
        decay = (1.0 - reset)[..., None] * nn.sigmoid(-gate)
        states = linear_recurrence(carry, decay, nn.sigmoid(gate) * positive(candidate))
        out = states
        if self.expansion > 1:
            out = as_float32(dense(self.size, scale=1.0, use_bias=False, precision=self.precision, name="out")(out))
        if highway:
            out = x + nn.sigmoid(through) * (out - x)
        return states[-1], out


class MinGRU(nn.Module):
    size: PositiveInt = 128
    num_layers: Depth = 1
    expansion: Width = 1
    residual: Residual = "none"
    precision: Precision = "float32"

    def initialize_carry(self, batch_size: int) -> tuple[Array, ...]:
        return (jnp.zeros((batch_size, self.expansion * self.size)),) * self.num_layers

    @nn.compact
    def __call__(self, carry: tuple[Array, ...], inputs: Array, reset: Array) -> tuple[tuple[Array, ...], Array]:
        x = inputs
        if self.residual == "highway":  # adds the input of a layer to its output, so they are equally wide
            x = as_float32(nn.relu(dense(self.size, precision=self.precision, name="embed")(inputs)))
        layer = nn.remat(MinGRULayer, policy=SAVE_PRODUCTS)
        new_carry = []
        for i, layer_carry in enumerate(carry):
            options = (self.size, self.expansion, self.residual, self.precision)
            layer_carry, x = layer(*options, name=f"layer_{i}")(layer_carry, x, reset)
            new_carry.append(layer_carry)
        return tuple(new_carry), x
