"""Encoders: shapes, the scale of pixels, and the convolution against a loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from src_pure.models.encoders import ConvEncoder, Flatten, ImpalaEncoder, MLPEncoder

T, B = 3, 2


def pixels(*shape):
    return jax.random.randint(jax.random.key(0), (T, B, *shape), 0, 256).astype(jnp.uint8)


def conv_loop(image, kernel, bias, stride):
    """relu of a convolution without padding: image [W, H, C], square kernel [H, W, C, D]."""
    size = len(kernel)
    places = [range(0, length - size + 1, stride) for length in image.shape[:2]]
    rows = [[np.einsum("xyc,yxcd->d", image[x : x + size, y : y + size], kernel) for y in places[1]] for x in places[0]]
    return np.maximum(np.array(rows) + bias, 0)


def test_convolution_matches_loop():
    encoder = ConvEncoder(channels=(4, 5), kernels=(3, 2), strides=(2, 1))
    obs = pixels(9, 8, 3)
    params = encoder.init(jax.random.key(1), obs)
    params = jax.tree.map(lambda x: 0.1 * jnp.arange(len(x)) if x.ndim == 1 else x, params)  # biases that are not 0
    features = encoder.apply(params, obs)
    assert features.shape == (T, B, 3 * 2 * 5)
    x = np.asarray(obs[1, 1]) / 255
    for layer, (size, stride) in enumerate(((3, 2), (2, 1))):
        dense = params["params"][f"Convolution_{layer}"]["Dense_0"]
        kernel = np.asarray(dense["kernel"]).reshape(size, size, x.shape[-1], -1)
        x = conv_loop(x, kernel, 0.1 * np.arange(kernel.shape[-1]), stride)
    np.testing.assert_allclose(features[1, 1], x.reshape(-1), rtol=1e-5, atol=1e-6)


def test_published_size():
    """84 x 84 pixels become 3136 features, as in the Mystery Path experiments."""
    features = jax.eval_shape(lambda obs: ConvEncoder().init_with_output(jax.random.key(0), obs)[0], pixels(84, 84, 3))
    assert features.shape == (T, B, 3136)


def same_size_loop(image, kernel):
    """3 x 3 convolution with zeros around the image [H, W, C]; kernel [3, 3, C, D]."""
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    height, width = image.shape[:2]
    rows = [[np.einsum("yxc,yxcd->d", padded[y : y + 3, x : x + 3], kernel) for x in range(width)]
            for y in range(height)]  # fmt: skip
    return np.array(rows)


def test_impala_matches_loop():
    """One section on 6 x 4 pixels: convolution, maximum over 3 x 3 at every second pixel, two residual blocks."""
    encoder, obs = ImpalaEncoder(channels=(2,), size=5), pixels(6, 4, 3)
    params = encoder.init(jax.random.key(1), obs)
    features = encoder.apply(params, obs)
    assert features.shape == (T, B, 5)
    kernels = [np.asarray(params["params"][f"Conv_{i}"]["kernel"]) for i in range(5)]  # biases start at 0
    x = same_size_loop(np.asarray(obs[1, 1]) / 255, kernels[0])
    around = np.pad(x, ((0, 1), (0, 1), (0, 0)), constant_values=-np.inf)  # SAME: an even side is padded at its end
    x = np.array([[around[y : y + 3, z : z + 3].max((0, 1)) for z in range(0, 4, 2)] for y in range(0, 6, 2)])
    for first, second in (kernels[1:3], kernels[3:5]):
        x = x + same_size_loop(np.maximum(same_size_loop(np.maximum(x, 0), first), 0), second)
    wanted = np.maximum(np.maximum(x, 0).reshape(-1) @ np.asarray(params["params"]["Dense_0"]["kernel"]), 0)
    np.testing.assert_allclose(features[1, 1], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(7,), (7, 64, 3)])
def test_impala_refuses_what_it_cannot_halve(shape):
    with pytest.raises(ValueError, match=r"impala needs pixels .* of at least 8 x 8"):
        ImpalaEncoder().init(jax.random.key(0), pixels(*shape))


@pytest.mark.parametrize("encoder", [Flatten(), MLPEncoder((6,)), ConvEncoder((4,), (2,), (1,))])
def test_pixels_are_scaled_and_other_numbers_are_not(encoder):
    obs = pixels(4, 4, 1)
    params = encoder.init(jax.random.key(1), obs)
    np.testing.assert_allclose(encoder.apply(params, obs), encoder.apply(params, obs / 255.0), rtol=1e-5, atol=1e-6)


def test_the_observation_must_fit():
    with pytest.raises(ValueError, match=r"conv needs pixels .* has shape \[7\]"):
        ConvEncoder().init(jax.random.key(0), jnp.zeros((T, B, 7)))
    with pytest.raises(ValueError, match=r"a kernel of 4 is larger than what is left .* \[10, 10, 4\], \[1, 1\]"):
        ConvEncoder().init(jax.random.key(0), jnp.zeros((T, B, 10, 10, 4)))
