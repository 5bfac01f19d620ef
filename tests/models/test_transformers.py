"""Transformers against loops that keep lists of past tokens, their sizes, and errors about sizes and blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from src_pure.config.compose import compose
from src_pure.config.targets import instantiate
from src_pure.conformance import random_params
from src_pure.errors import ConfigError
from src_pure.models.adaptive_computation import AdaptiveTransformer
from src_pure.models.policy import num_parameters
from src_pure.models.transformer import Transformer
from tests.models import oracles

T, B, D_IN = 29, 2, 5
SIZES = {"d_model": 8, "num_heads": 2, "d_head": 3, "d_ffc": 6, "memory_len": 4}
STACKS = {
    "gtrxl": ("gated", "relative"),
    "trxl": ("post_norm", "relative"),
    "transformer": ("post_norm", "absolute"),
    "rezero": ("rezero", "relative"),
}
ADAPTIVE = {"universal": ("post_norm", "absolute"), "integrated": ("gated_rezero", "relative")}


def random_inputs(seed=0):
    rng = np.random.default_rng(seed)
    reset = rng.random((T, B)) < 0.08
    reset[:, 0] = False  # one row is a single episode of several windows
    return rng.normal(size=(T, B, D_IN)).astype(np.float32), reset


def prepare(model, halting_bias=None):
    """(params, the same in float64, inputs, reset, carry, jitted apply)"""
    inputs, reset = random_inputs()
    carry = model.initialize_carry(B)
    params = random_params(model, carry, inputs, reset)
    if halting_bias is not None:
        halting = params["params"]["halting"]
        params["params"]["halting"] = {"kernel": 2.0 * halting["kernel"], "bias": jnp.full(1, halting_bias)}
    apply = jax.jit(lambda carry, inputs, reset: model.apply(params, carry, inputs, reset, mutable=["intermediates"]))
    return jax.tree.map(lambda x: np.asarray(x, np.float64), params["params"]), inputs, reset, carry, apply


@pytest.mark.parametrize("name", STACKS)
def test_equals_the_loop(name):
    residual, positions = STACKS[name]
    model = Transformer(num_layers=2, residual=residual, positions=positions, **SIZES)
    params, inputs, reset, carry, apply = prepare(model)
    (_, out), _ = apply(carry, inputs, reset)
    np.testing.assert_allclose(out, oracles.transformer_loop(params, model, inputs, reset), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "halting_bias"), [("universal", -3.0), pytest.param("integrated", -1.0, marks=pytest.mark.slow)]
)
def test_adaptive_equals_the_loop(name, halting_bias):
    residual, positions = ADAPTIVE[name]
    model = AdaptiveTransformer(max_iterations=3, residual=residual, positions=positions, **SIZES)
    params, inputs, reset, carry, apply = prepare(model, halting_bias)
    (_, out), sown = apply(carry, inputs, reset)
    loop, iterations = oracles.adaptive_transformer_loop(params, model, inputs, reset)
    assert set(np.unique(iterations)) == {2.0, 3.0}, "tokens should differ in how long they take"
    np.testing.assert_array_equal(sown["intermediates"]["ponder_steps"][0], iterations)
    np.testing.assert_allclose(out, loop, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [*STACKS, *ADAPTIVE])
def test_configured_model_is_the_one_of_its_name(name):
    config = compose([f"model={name}"])["model"]
    assert (config["residual"], config["positions"]) == (STACKS | ADAPTIVE)[name]


def test_rezero_is_the_identity_at_first():
    inputs, reset = random_inputs()
    model = Transformer(num_layers=2, residual="rezero", **SIZES)
    carry = model.initialize_carry(B)
    params = jax.jit(model.init)(jax.random.key(0), carry, inputs, reset)
    embedded = jax.nn.relu(inputs @ params["params"]["embed"]["kernel"])
    np.testing.assert_allclose(jax.jit(model.apply)(params, carry, inputs, reset)[1], embedded, rtol=1e-6)


@pytest.mark.parametrize(("memory_len", "state"), [(128, 66_000), (256, 132_000)])
def test_published_sizes(memory_len, state):
    """1,584,256 parameters in the published layout, with biases on query, key and value (768) and none after the
    heads (128); Transformer-XL has none on the former: the biases u and v take the place of the query's, and softmax
    cancels the key's. Per layer 640 fewer, so 2,560 in all."""
    model = Transformer(memory_len=memory_len)
    carry = jax.eval_shape(lambda: model.initialize_carry(1))
    args = (carry, jnp.zeros((1, 1, 16)), jnp.zeros((1, 1), bool))
    assert num_parameters(jax.eval_shape(model.init, jax.random.key(0), *args)) == 1_584_256 - 4 * 640
    assert num_parameters(carry) <= state


@pytest.mark.parametrize("target", ["gtrxl", "universal"])
@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"d_head": None, "d_model": 10, "num_heads": 3}, "d_model must be a multiple of num_heads"),
        ({"d_model": 7}, "d_model must be even"),
        ({"memory_len": 0}, "memory_len must be greater than 0"),
    ],
)
def test_wrong_sizes_are_said_while_building(target, sizes, message):
    config = compose([f"model={target}"])["model"] | sizes
    with pytest.raises(ConfigError, match=message):
        instantiate(config, "model")


@pytest.mark.parametrize(("model", "residual"), [("galite", "gtrxl"), ("galite", "post-ln"), ("gtrxl", "trxl")])
def test_an_unknown_residual_is_refused(model, residual):
    names = "'gated', 'pre_norm', 'post_norm', 'rezero' or 'gated_rezero'"
    with pytest.raises(ConfigError, match=f"model.residual must be {names}, got '{residual}'"):
        instantiate(compose([f"model={model}"])["model"] | {"residual": residual}, "model")


def test_memory_len_is_checked_without_a_configuration():
    with pytest.raises(ValueError, match="memory_len must be at least 1"):
        Transformer(memory_len=0)
