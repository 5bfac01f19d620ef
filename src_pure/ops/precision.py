"""Products of float32 without rounded factors, whatever the device prefers."""

import jax.numpy as jnp
from jax import lax

from src_pure.types import Array

# By default GPUs and TPUs round the factors of a float32 product, to TF32 or bfloat16, and not alike in all programs:
# acting and learning would disagree. Every product asks for itself, because a setting of the process would change other
# people's programs in it, and a context would be gone by the time a backward pass is traced.
FULL = lax.Precision.HIGHEST


def matmul(x: Array, y: Array) -> Array:
    """x @ y without rounded factors."""
    return jnp.matmul(x, y, precision=FULL)


def einsum(equation: str, *operands: Array) -> Array:
    """jnp.einsum without rounded factors."""
    return jnp.einsum(equation, *operands, precision=FULL)
