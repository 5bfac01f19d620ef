"""Gradients written by hand, of which none is zero in silence."""

import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import tree_util
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero

Path = tuple[tree_util.KeyEntry, ...]  # of an array among the arguments


@tree_util.register_static
class Wanted(tuple[Path, ...]):
    """The arrays that a gradient was asked for: known while tracing, so not an array itself."""


def define_gradient(function: jax.custom_vjp, forward: Callable, *backwards: Callable) -> None:
    """Gives a function its gradient: forward(*args) -> (out, residuals), backward(residuals, cotangents) -> gradients.

    A gradient that a backward pass leaves None is not zero but missing. The first of the passes is used in which none
    that was asked for is missing, so the cheapest stands first. Where all lack one, differentiation is a TypeError.
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
            f"{function.__name__} takes {name} for a constant and has no gradient of it, but {name} depends on what is "
            f"differentiated; if that is meant, pass lax.stop_gradient({name})"
        )

    function.defvjp(checked_forward, checked_backward, symbolic_zeros=True)


def _is_wanted(x) -> bool:
    return isinstance(x, CustomVJPPrimal) and x.perturbed


def _value(x):
    return x.value if isinstance(x, CustomVJPPrimal) else x  # a static argument is handed over as it is


def _array(cotangent):
    return jnp.zeros(cotangent.shape, cotangent.dtype) if isinstance(cotangent, SymbolicZero) else cotangent


def _missing(wanted: Wanted, gradients) -> list[Path]:
    """What of `wanted` is None, or in something that is None."""
    leaves = tree_util.tree_leaves_with_path(gradients, is_leaf=lambda x: x is None)
    absent = [path for path, x in leaves if x is None]
    return [path for path in wanted if any(path[: len(prefix)] == prefix for prefix in absent)]


def _name(function: Callable, path: Path) -> str:
    """An array among a function's arguments, as its reader would write it."""
    return list(inspect.signature(function).parameters)[path[0].idx] + tree_util.keystr(path[1:])
