"""32-bit numbers even where the process enables JAX_ENABLE_X64."""

from collections.abc import Callable
from functools import wraps

import jax
import numpy as np
from jax import dtypes


def in_32_bits(function: Callable) -> Callable:
    """The function, run without JAX_ENABLE_X64: a 64-bit program gets the same types, random draws and numbers.

    Explicit dtypes would not suffice: environments and models of other packages create arrays too, and sampling a
    float64 uses other random bits than sampling a float32.
    """

    @wraps(function)
    def call(*args, **kwargs):
        with jax.enable_x64(False):
            return function(*jax.tree.map(_narrow, args), **jax.tree.map(_narrow, kwargs))

    return call


def _narrow(x):
    """int64 as int32, float64 as float32; anything else unchanged."""
    if not isinstance(x, jax.Array | np.ndarray | np.generic) or dtypes.issubdtype(x.dtype, dtypes.extended):
        return x
    narrow = dtypes.canonicalize_dtype(x.dtype)
    return x if x.dtype == narrow else x.astype(narrow)
