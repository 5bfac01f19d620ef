"""32 bits, whatever JAX_ENABLE_X64 says."""

from collections.abc import Callable
from functools import wraps

import jax
import numpy as np
from jax import dtypes


def in_32_bits(function: Callable) -> Callable:
    """The function as it is without JAX_ENABLE_X64: the same types, random draws and numbers, also in a 64-bit program.

    Types alone could be stated where arrays are made, but environments and models of other packages make arrays too,
    and a float64 is drawn from other random bits than a float32.
    """

    @wraps(function)
    def call(*args, **kwargs):
        with jax.enable_x64(False):
            return function(*jax.tree.map(_narrow, args), **jax.tree.map(_narrow, kwargs))

    return call


def _narrow(x):
    """int64 as int32, float64 as float32; whatever else as it is."""
    if not isinstance(x, jax.Array | np.ndarray | np.generic) or dtypes.issubdtype(x.dtype, dtypes.extended):
        return x
    narrow = dtypes.canonicalize_dtype(x.dtype)
    return x if x.dtype == narrow else x.astype(narrow)
