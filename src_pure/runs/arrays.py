"""The arrays of a state by name, as checkpoints and exported policies store them."""

from typing import Any

import jax
import numpy as np

from src_pure.types import Array


def named_arrays(state: Any) -> dict[str, Array]:
    """Every leaf of a state by its name; typed keys become their key data."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): numbers_of(leaf) for path, leaf in leaves}


def fill_like(like: Any, arrays: dict[str, np.ndarray]) -> Any:
    """A pytree with the structure of `like` whose leaves are the saved arrays, with the shardings of `like`.

    Empty leaves of `like` stay. Raises ValueError naming the first array that does not match `like`.
    """
    wanted = named_arrays(like)
    compare(without_empty(wanted), arrays)
    leaves, structure = jax.tree.flatten(like)
    placed = [
        _place(leaf, arrays[name], x) if x.size else leaf
        for leaf, (name, x) in zip(leaves, wanted.items(), strict=True)
    ]
    return jax.tree.unflatten(structure, placed)


def numpy_like(like: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The saved arrays in the structure of `like`, with key data for typed keys and empty arrays for empty leaves.

    Raises ValueError naming the first array that does not match `like`.
    """
    wanted = named_arrays(like)
    compare(without_empty(wanted), arrays)
    found = [np.asarray(arrays[name]) if x.size else np.zeros(x.shape, x.dtype) for name, x in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), found)


def compare(wanted: dict[str, Any], found: dict[str, Any]) -> None:
    """Raises ValueError naming the first array, by name, that is missing on one side or differs in shape or dtype."""
    for name in sorted(wanted | found):
        descriptions = [_describe(arrays[name]) if name in arrays else None for arrays in (wanted, found)]
        if descriptions[0] != descriptions[1]:
            raise ValueError(f"{name} is {descriptions[1] or 'missing'}, wanted {descriptions[0] or 'no such array'}")


def without_empty(arrays: dict[str, Any]) -> dict[str, Any]:
    """The arrays that hold at least one element: empty arrays are not saved."""
    return {name: x for name, x in arrays.items() if x.size}


def is_key(leaf: Any) -> bool:
    """Whether an array, or its shape, is of typed keys."""
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def key_impl(leaf: Any) -> Any:
    """The generator of an array of typed keys, or of its shape."""
    found = []
    jax.eval_shape(lambda keys: found.append(jax.random.key_impl(keys)), leaf)  # a shape alone does not say it
    return found[0]


def numbers_of(leaf: Any) -> Any:
    """The key data of an array of typed keys, or its shape; any other leaf unchanged."""
    if not is_key(leaf):
        return leaf
    shape_only = isinstance(leaf, jax.ShapeDtypeStruct)
    return jax.eval_shape(jax.random.key_data, leaf) if shape_only else jax.random.key_data(leaf)


def _place(leaf: Array, saved: np.ndarray, like: Array) -> Array:
    """The saved leaf in memory of its own, because training reuses its buffers; like: the leaf as numbers."""
    numbers = jax.device_put(saved, like.sharding, may_alias=False)
    return jax.random.wrap_key_data(numbers, impl=jax.random.key_impl(leaf)) if is_key(leaf) else numbers


def _describe(array: Array | np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"
