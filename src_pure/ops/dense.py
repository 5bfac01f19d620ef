"""The product of a dense layer, whose gradient is written by hand for its layout."""

import jax
from jax.ad_checkpoint import checkpoint_name

from src_pure.ops.gradients import define_gradient
from src_pure.types import Array

SAVED = "saved"  # name of what a rematerialised layer should save of its products and recurrences, not run again


@jax.custom_vjp
def product(x: Array, kernel: Array) -> Array:
    """x [..., D] times kernel [D, F]: [..., F].

    The gradient of the kernel is x^T d. Differentiation would make the transpose of d^T x: XLA on CPUs then copies d,
    the mostly wider one, into columns, and the optimiser reads the result column by column. Reverse mode alone.
    """
    return x @ kernel


def _product_forward(x, kernel):
    return checkpoint_name(product(x, kernel), SAVED), (x, kernel)


def _product_backward(residuals, d_out):
    x, kernel = residuals
    rows, d_rows = (leaf.reshape(-1, leaf.shape[-1]) for leaf in (x, d_out))  # [T, B, D] -> [T B, D]: all are summed
    d_kernel = rows.T @ d_rows
    return d_out @ kernel.T, d_kernel


define_gradient(product, _product_forward, _product_backward)
