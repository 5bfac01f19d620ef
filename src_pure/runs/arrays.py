"""The arrays of a state by name, as checkpoints and exported policies store them."""

from typing import Any

import jax
import numpy as np

from src_pure.types import Array


def named_arrays(state: Any) -> dict[str, Array]:
    """Every leaf of a state by its name; typed keys become their key data."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): _numbers(leaf) for path, leaf in leaves}


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


def compare(wanted: dict[str, Any], found: dict[str, Any]) -> None:
    """Raises ValueError naming the first array, by name, that is missing on one side or differs in shape or dtype."""
    for name in sorted(wanted | found):
        descriptions = [_describe(arrays[name]) if name in arrays else None for arrays in (wanted, found)]
        if descriptions[0] != descriptions[1]:
            raise ValueError(f"{name} is {descriptions[1] or 'missing'}, wanted {descriptions[0] or 'no such array'}")


def without_empty(arrays: dict[str, Any]) -> dict[str, Any]:
    """The arrays that hold at least one element: empty arrays are not saved."""
    return {name: x for name, x in arrays.items() if x.size}


def _is_key(leaf: Array) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _numbers(leaf: Array) -> Array:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _place(leaf: Array, saved: np.ndarray, like: Array) -> Array:
    """The saved leaf in memory of its own, because training reuses its buffers; like: the leaf as numbers."""
    numbers = jax.device_put(saved, like.sharding, may_alias=False)
    return jax.random.wrap_key_data(numbers, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else numbers


def _describe(array: Array | np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"
