"""The product of dense layers and its gradient equal NumPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from src_pure.ops.dense import product


@pytest.mark.parametrize("batch_shape", [(), (5,), (4, 3)], ids=str)
def test_product_and_gradients_are_numpys(batch_shape):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(*batch_shape, 6)), rng.normal(size=(6, 2))
    d_out = rng.normal(size=(*batch_shape, 2))
    out, pullback = jax.vjp(product, jnp.float32(x), jnp.float32(kernel))
    np.testing.assert_allclose(out, x @ kernel, rtol=1e-5, atol=1e-6)
    d_x, d_kernel = pullback(jnp.float32(d_out))
    np.testing.assert_allclose(d_x, d_out @ kernel.T, rtol=1e-5, atol=1e-6)
    summed = sum(np.outer(a, b) for a, b in zip(x.reshape(-1, 6), d_out.reshape(-1, 2), strict=True))
    np.testing.assert_allclose(d_kernel, summed, rtol=1e-5, atol=1e-6)


def test_gradients_of_bfloat16_are_bfloat16():
    x, kernel = jnp.ones((3, 4), jnp.bfloat16), jnp.ones((4, 2), jnp.bfloat16)
    out, pullback = jax.vjp(product, x, kernel)
    assert {leaf.dtype for leaf in (out, *pullback(out))} == {jnp.dtype(jnp.bfloat16)}
