"""The product of a dense layer, with a gradient written by hand for its memory layout."""

import jax
from jax.ad_checkpoint import checkpoint_name

from src_pure.ops.gradients import define_gradient
from src_pure.ops.precision import matmul
from src_pure.types import Array

SAVED = "saved"  # the name of results that a rematerialised block keeps: products and recurrences


@jax.custom_vjp
def product(x: Array, kernel: Array) -> Array:
    """x [..., D] times kernel [D, F]: [..., F].

    The gradient of the kernel is x^T d. Differentiation would give the transpose of d^T x: XLA on CPUs then copies d,
    usually the wider of the two, into columns, and the optimiser reads the result column by column. Only reverse-mode
    differentiation is defined.
    """
    return matmul(x, kernel)


def _product_forward(x, kernel):
    return checkpoint_name(product(x, kernel), SAVED), (x, kernel)


def _product_backward(residuals, d_out):
    x, kernel = residuals
    rows, d_rows = (leaf.reshape(-1, leaf.shape[-1]) for leaf in (x, d_out))  # [T, B, D] -> [T B, D]: all are summed
    d_kernel = matmul(rows.T, d_rows)
    return matmul(d_out, kernel.T), d_kernel


define_gradient(product, _product_forward, _product_backward)
