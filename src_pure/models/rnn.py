"""The classical memories, GRU and LSTM, and the control without memory, an MLP."""

import flax.linen as nn
import jax.numpy as jnp

from src_pure.models.layers import Precision, as_float32, dense, stacked_orthogonal
from src_pure.ops.recurrence import recurrent_scan
from src_pure.types import Array, Depth, PositiveInt


def gru_cell(inputs: Array, recurrent: Array, state: tuple[Array]) -> tuple[Array]:
    """h' = (1 - z) n + z h,  n = tanh(x_n + r (U_n h + b))  (Cho et al., arXiv:1406.1078; reset after the product)."""
    (h,) = state
    x_r, x_z, x_n = jnp.split(inputs, 3, axis=-1)
    h_r, h_z, h_n = jnp.split(recurrent, 3, axis=-1)
    r, z = nn.sigmoid(x_r + h_r), nn.sigmoid(x_z + h_z)
    n = jnp.tanh(x_n + r * h_n)
    return ((1.0 - z) * n + z * h,)


def lstm_cell(inputs: Array, recurrent: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
    """h' = o tanh(c'),  c' = f c + i g  (Hochreiter & Schmidhuber 1997, with a forget gate)."""
    _, c = state
    i, f, g, o = jnp.split(inputs + recurrent, 4, axis=-1)
    c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
    return nn.sigmoid(o) * jnp.tanh(c), c


class GRU(nn.Module):
    size: PositiveInt = 128
    precision: Precision = "float32"  # of the product with the inputs

    def initialize_carry(self, batch_size: int) -> tuple[Array]:
        return (jnp.zeros((batch_size, self.size)),)

    @nn.compact
    def __call__(self, carry: tuple[Array], inputs: Array, reset: Array) -> tuple[tuple[Array], Array]:
        x = as_float32(dense(3 * self.size, scale=1.0, precision=self.precision, name="inputs")(inputs))
        kernel = self.param("kernel", stacked_orthogonal(1.0), (self.size, 3 * self.size))
        bias = self.param("bias", nn.initializers.zeros, (self.size,))  # only the candidate has one
        bias = jnp.concatenate([jnp.zeros(2 * self.size), bias])
        return recurrent_scan(gru_cell, kernel, bias, carry, x, 1.0 - reset)


class LSTM(nn.Module):
    size: PositiveInt = 128
    precision: Precision = "float32"  # of the product with the inputs

    def initialize_carry(self, batch_size: int) -> tuple[Array, Array]:
        return jnp.zeros((batch_size, self.size)), jnp.zeros((batch_size, self.size))

    @nn.compact
    def __call__(self, carry: tuple[Array, Array], inputs: Array, reset: Array):
        x = as_float32(dense(4 * self.size, scale=1.0, use_bias=False, precision=self.precision, name="inputs")(inputs))
        kernel = self.param("kernel", stacked_orthogonal(1.0), (self.size, 4 * self.size))
        bias = self.param("bias", nn.initializers.zeros, (4 * self.size,))
        return recurrent_scan(lstm_cell, kernel, bias, carry, x, 1.0 - reset)


class MLP(nn.Module):
    """No memory: how far an agent gets that sees only the present."""

    size: PositiveInt = 128
    num_layers: Depth = 2
    precision: Precision = "float32"

    def initialize_carry(self, batch_size: int) -> tuple[()]:
        return ()

    @nn.compact
    def __call__(self, carry: tuple[()], inputs: Array, reset: Array) -> tuple[tuple[()], Array]:
        x = inputs
        for _ in range(self.num_layers):
            x = nn.relu(dense(self.size, precision=self.precision)(x))
        return carry, as_float32(x)
