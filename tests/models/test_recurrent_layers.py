"""mLSTM, sLSTM, Mamba-2 and Gated DeltaNet: their layers against loops, and the published sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from src_pure.conformance import random_params
from src_pure.models.gated_deltanet import GatedDeltaLayer, GatedDeltaNet
from src_pure.models.mamba2 import Mamba2, Mamba2Layer
from src_pure.models.mlstm import MLSTM, MLSTMLayer, initial_carry, mlstm_memory
from src_pure.models.policy import num_parameters
from src_pure.models.slstm import SLSTM, SLSTMLayer
from src_pure.ops.scalar_decay import CHUNK
from tests.models import recurrent_oracles as oracles

T, B, D_IN, D_OUT, H, D = CHUNK + 5, 2, 4, 5, 2, 3
LAYERS = {
    "mlstm": (MLSTMLayer(D_OUT, H, D, "float32"), MLSTM(1, D_OUT, H, D), oracles.mlstm_loop),
    "slstm": (SLSTMLayer(D_OUT, H, D, "float32"), SLSTM(1, D_OUT, H, D), oracles.slstm_loop),
    "mamba2": (Mamba2Layer(D_OUT, H, D, 6, "float32"), Mamba2(1, D_OUT, H, D, 6), oracles.mamba2_loop),
    "gated_deltanet": (
        GatedDeltaLayer(D_OUT, H, D, 6, "float32"),
        GatedDeltaNet(1, D_OUT, H, D, 6),
        oracles.gated_deltanet_loop,
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer_equals_the_loop(name):
    layer, model, loop = LAYERS[name]
    rng = np.random.default_rng(0)
    inputs, reset = rng.normal(size=(T, B, D_IN)), rng.random((T, B)) < 0.1
    carry = model.initialize_carry(B)[0]
    arrays = jnp.asarray(inputs, jnp.float32), jnp.asarray(reset)
    params = random_params(layer, carry, *arrays)
    out = jax.jit(layer.apply)(params, carry, *arrays)[1]
    p = jax.tree.map(np.float64, params["params"])
    np.testing.assert_allclose(out, loop(p, H, inputs, reset), rtol=1e-3, atol=1e-4)


def mlstm_arrays(scale):
    rng = np.random.default_rng(0)
    tokens = [rng.normal(size=(T, 1, H, D)) for _ in range(3)]
    gates = [scale * rng.normal(size=(T, 1, H)) for _ in range(2)]
    return [*tokens, *gates], rng.random((T, 1)) < 0.1


def test_mlstm_with_gates_that_overflow_without_the_stabiliser():
    """exp(i) up to e^100, sigmoid(f) down to e^-100: values as in float64, gradients finite."""
    arrays, reset = mlstm_arrays(40.0)
    assert max(np.max(x) for x in arrays[3:]) > 89.0  # float32 ends at e^88.7

    def memory(*arrays):
        return mlstm_memory(initial_carry(1, H, D), *arrays, reset=jnp.asarray(reset))[1]

    def run(*arrays):
        out, pullback = jax.vjp(memory, *arrays)
        return out, pullback(jnp.ones_like(out))

    out, gradients = jax.jit(run)(*(jnp.asarray(x, jnp.float32) for x in arrays))
    loop = oracles.mlstm_memory(*(x[:, 0] for x in arrays), reset[:, 0])
    np.testing.assert_allclose(out[:, 0], loop, rtol=1e-3, atol=1e-4)
    assert all(np.all(np.isfinite(x)) for x in gradients)


def test_mlstm_gradients_are_those_without_a_stabiliser():
    arrays, _ = mlstm_arrays(1.0)
    arrays = [jnp.asarray(x, jnp.float32) for x in arrays]
    reset = jnp.zeros((T, 1), bool)

    def plain(query, key, value, i, f):
        """No product over time: weights of all pairs, without chunks or a carry."""
        total = jnp.cumsum(jax.nn.log_sigmoid(f), axis=0)
        weights = jnp.tril(
            jnp.exp(jnp.moveaxis(total[:, None] - total[None] + i[None], (0, 1), (2, 3)))
        )  # [B, H, T, T]
        scores = weights * jnp.einsum("tbhd,nbhd->bhtn", query, key) / D**0.5
        normaliser = jnp.maximum(jnp.abs(scores.sum(-1)), 1.0)
        return jnp.einsum("bhtn,nbhd->tbhd", scores / normaliser[..., None], value)

    def stabilised(*arrays):
        return mlstm_memory(initial_carry(1, H, D), *arrays, reset=reset)[1]

    def gradients(memory):
        return jax.grad(lambda arrays: jnp.sum(jnp.sin(memory(*arrays))))

    ours, wanted = jax.jit(lambda x: (gradients(stabilised)(x), gradients(plain)(x)))(arrays)
    for a, b in zip(ours, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.max(np.abs(b)))


def count(layer, carry, d_model):
    arguments = (carry, jnp.zeros((1, 1, d_model)), jnp.zeros((1, 1), bool))
    return num_parameters(jax.eval_shape(layer.init, jax.random.key(0), *arguments))


def test_published_size_of_mamba2():
    """mamba2-130m: 24 layers with a norm each, a last norm and 50,288 tokens, 128,989,632 parameters."""
    layer = Mamba2Layer(768, 24, 64, 128, "float32")
    carry = Mamba2(1, 768, 24, 64, 128).initialize_carry(1)[0]
    assert 24 * (count(layer, carry, 768) + 768) + 768 + 50_288 * 768 == 128_989_632


def test_published_size_of_gated_deltanet():
    """6 d^2 up to the small parts, with 6 heads of 256 and values twice as wide for d = 2048."""
    layer = GatedDeltaLayer(2048, 6, 256, 512, "float32")
    carry = GatedDeltaNet(1, 2048, 6, 256, 512).initialize_carry(1)[0]
    small = 2 * 6 * 2048 + 4 * 6144 + 2 * 6 + 512  # rates, convolution, step, norm
    assert count(layer, carry, 2048) == 6 * 2048**2 + small


@pytest.mark.parametrize("model", [MLSTM, SLSTM, Mamba2, GatedDeltaNet])
def test_sizes_that_do_not_divide_are_refused(model):
    with pytest.raises(ValueError, match=r"d_model must be a multiple of num_heads.*got 128 and 3"):
        model(num_heads=3, d_head=None)
