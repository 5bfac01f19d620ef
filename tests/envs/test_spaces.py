"""Spaces: their elements as vectors, and which vectors they contain."""

import jax.numpy as jnp
import numpy as np

from src_pure.envs.spaces import Box, Discrete


def test_elements_as_vectors():
    assert Discrete(3).flat == Box(0.0, 1.0, (3,))
    np.testing.assert_array_equal(Discrete(3).flatten(jnp.int32(2)), [0, 0, 1])
    assert Box(-2.0, np.inf, (2, 3)).flat == Box(-2.0, np.inf, (6,))
    np.testing.assert_array_equal(Box(-2.0, np.inf, (2, 3)).flatten(jnp.arange(6.0).reshape(2, 3)), np.arange(6))
    pixels = Box(0, 255, (2, 2), jnp.dtype(jnp.uint8))
    assert pixels.flat == Box(0.0, 1.0, (4,))
    np.testing.assert_allclose(pixels.flatten(jnp.array([[0, 51], [102, 255]], jnp.uint8)), [0, 0.2, 0.4, 1])


def test_clipping():
    np.testing.assert_array_equal(Box(-1.0, 2.0, (3,)).clip(jnp.array([[-5.0, 0.5, 5.0]])), [[-1.0, 0.5, 2.0]])
    np.testing.assert_array_equal(Discrete(3).clip(jnp.array([0, 2])), [0, 2])
