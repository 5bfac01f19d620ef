"""Gradients written by hand. One that is missing is an error, never a silent zero."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import tree_util
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero

Path = tuple[tree_util.KeyEntry, ...]  # of an array among the arguments
NO_GRADIENT: Any = None  # in place of an array: the gradient is left out, or filled in later


@tree_util.register_static
class Wanted(tuple[Path, ...]):
    """The arrays whose gradients are wanted: known while tracing, so not an array itself."""


def define_gradient(function: jax.custom_vjp, forward: Callable, *backwards: Callable) -> None:
    """Gives a function its gradient: forward(*args) -> (out, residuals), backward(residuals, cotangents) -> gradients.

    A gradient that a backward pass leaves None is missing, not zero. The first pass that has all wanted gradients is
    used, so the cheapest goes first. If every pass lacks one, differentiation raises TypeError.
    """

    def checked_forward(*args):
        wanted = [path for path, x in tree_util.tree_leaves_with_path(args) if _is_wanted(x)]
        out, residuals = forward(*jax.tree.map(_value, args))
        return out, (residuals, Wanted(wanted))

    def checked_backward(*args):
        *static, (residuals, wanted), cotangents = args
        cotangents = jax.tree.map(_array, cotangents)
        for backward in backwards:
            gradients = backward(*static, residuals, cotangents)
            missing = _missing(wanted, (*static, *gradients))
            if not missing:
                return gradients
        name = _name(function, missing[0])
        raise TypeError(
            f"{function.__name__} treats {name} as a constant and has no gradient of it, but {name} depends on what is "
            f"differentiated; if that is meant, pass lax.stop_gradient({name})"
        )

    function.defvjp(checked_forward, checked_backward, symbolic_zeros=True)


def _is_wanted(x) -> bool:
    return isinstance(x, CustomVJPPrimal) and x.perturbed


def _value(x):
    return x.value if isinstance(x, CustomVJPPrimal) else x  # a static argument is passed on unchanged


def _array(cotangent):
    return jnp.zeros(cotangent.shape, cotangent.dtype) if isinstance(cotangent, SymbolicZero) else cotangent


def _missing(wanted: Wanted, gradients) -> list[Path]:
    """The paths of `wanted` that lead to None or into something that is None."""
    leaves = tree_util.tree_leaves_with_path(gradients, is_leaf=lambda x: x is None)
    absent = [path for path, x in leaves if x is None]
    return [path for path in wanted if any(path[: len(prefix)] == prefix for prefix in absent)]


def _name(function: Callable, path: Path) -> str:
    """An array among the arguments of a function, as one would write it in code."""
    return list(inspect.signature(function).parameters)[path[0].idx] + tree_util.keystr(path[1:])
