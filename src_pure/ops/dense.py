"""The product of a dense layer, whose gradient is written by hand for its layout."""

import jax
from jax.ad_checkpoint import checkpoint_name

from src_pure.ops.recurrence import SAVED
from src_pure.types import Array


@jax.custom_vjp
def product(x: Array, kernel: Array) -> Array:
    """x [..., D] times kernel [D, F]: [..., F].

    The gradient of the kernel is x^T d. Differentiation would make the transpose of d^T x: XLA on CPUs then copies d
    into columns instead of the mostly narrower x, and the optimiser reads the result column by column.
    """
    return x @ kernel


def _product_forward(x, kernel):
    return checkpoint_name(product(x, kernel), SAVED), (x, kernel)


def _product_backward(residuals, d_out):
    x, kernel = residuals
    d_kernel = x.reshape(-1, x.shape[-1]).T @ d_out.reshape(-1, d_out.shape[-1])
    return d_out @ kernel.T, d_kernel


product.defvjp(_product_forward, _product_backward)
