"""Numbers of 32 bits, whatever the process prefers: types without JAX_ENABLE_X64."""

from collections.abc import Callable
from functools import wraps

import jax
import numpy as np
from jax import dtypes


def in_32_bits(function: Callable) -> Callable:
    """The function without JAX_ENABLE_X64: it has the same types, random draws and numbers in a 64-bit program.

    Types alone could be stated where arrays are made, but environments and models of other packages make arrays too,
    and a float64 is drawn from other random bits than a float32.
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
