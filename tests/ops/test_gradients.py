"""Every gradient written by hand equals that of the plain function or is refused; none is silently zero."""

import importlib
import pkgutil
from functools import partial
from inspect import signature
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import src_pure.ops
from src_pure.models.rnn import lstm_cell
from src_pure.ops.attention import Reader, attend, attend_sequence
from src_pure.ops.complex_recurrence import Pair
from src_pure.ops.delta_rule import DeltaInputs
from src_pure.ops.gradients import define_gradient
from src_pure.ops.matrix_recurrence import Factored, FactoredInputs, MatrixState
from src_pure.ops.recurrence import CHUNK, Factors, chunked_outer_readout, recurrent_scan, scan_outer_readout
from src_pure.ops.scalar_decay import ScalarInputs

T, B, H, E, D, F = CHUNK + 5, 2, 2, 2, 3, 6  # sizes as in the modules of ops; F = E D
M = 4  # memory


def written_by_hand():
    """The functions of ops whose gradient is not jax's own, by name."""
    modules = [importlib.import_module(f"src_pure.ops.{x.name}") for x in pkgutil.iter_modules(src_pure.ops.__path__)]
    return {name: x for module in modules for name, x in vars(module).items() if isinstance(x, jax.custom_vjp)}


def normal(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


FACTORED = Factored(normal(T, B, H, E), normal(T, B, H, D))
GATED = FactoredInputs(normal(T, B), normal(T, B, H, D), FACTORED, normal(T, B, H, D), FACTORED, FACTORED)
MATRIX = (MatrixState(normal(B, H, D, F), normal(B, H, F)), GATED)
RESET = np.arange(T * B).reshape(T, B) % 7 == 3
ROW, COLUMN = normal(T, B, H, E), normal(T, B, H, D)


class Case(NamedTuple):
    arguments: dict
    refused: tuple[str, ...] = ()
    last: tuple[str, ...] = ()  # what only the last pass has gradients of


OUTER_READOUT = Case(
    {
        "state": (normal(B, H, E, D),) * 2,
        "factors": Factors(normal(T, B), (normal(T, B),) * 2, ROW, COLUMN, ROW, COLUMN, ROW, COLUMN),
    },
    last=("factors.keep", "factors.phase[0]", "factors.phase[1]"),
)

CASES = {
    "linear_recurrence": Case({"initial": normal(B, D), "decay": normal(T, B, D), "inputs": normal(T, B, D)}),
    "complex_recurrence": Case(
        {
            "activation": "relu",
            "initial": Pair(normal(B, D), normal(B, D)),
            "decay": Pair(normal(D), normal(D)),
            "keep": normal(T, B),
            "inputs": Pair(normal(T, B, D), normal(T, B, D)),
        },
        refused=("keep",),
    ),
    **dict.fromkeys(("chunked_outer_readout", "parallel_outer_readout", "outer_readout"), OUTER_READOUT),
    "recurrent_scan": Case(
        {
            "cell": lstm_cell,
            "kernel": normal(D, 4 * D),
            "bias": normal(4 * D),
            "initial": (normal(B, D), normal(B, D)),
            "inputs": normal(T, B, 4 * D),
            "keep": normal(T, B),
        },
        refused=("keep",),
    ),
    "product_readout": Case(dict(zip(("state", "inputs"), MATRIX, strict=True))),
    "released_readout": Case(dict(zip(("state", "inputs"), MATRIX, strict=True)), last=("inputs.keep",)),
    "scalar_readout": Case(
        {
            "state": normal(B, H, D, F),
            "inputs": ScalarInputs(RESET, normal(T, B, H), COLUMN, *(normal(T, B, 1, F),) * 2),
        }
    ),
    "delta_readout": Case(
        {
            "state": normal(B, H, D, F),
            "inputs": DeltaInputs(RESET, *(normal(T, B, H),) * 2, COLUMN, *(normal(T, B, H, F),) * 2),
        }
    ),
    "solve_unit_lower": Case({"matrix": normal(B, 5, 5), "right": normal(B, 5, D)}),
    "product": Case({"x": normal(T, B, D), "kernel": normal(D, F)}),
    "_project_all": Case(
        {"past": normal(B, M, D), "tokens": normal(B, T, D), "kernel": normal(D, H, E)}, refused=("past",)
    ),
    "_masked_mean": Case(
        {
            "queries": normal(H, B, T, D),
            "keys": normal(H, B, D, M + T),
            "values": normal(H, B, D, M + T),
            "scores": normal(H, B, T, M + T),
            "visible": np.tri(T, M + T, M, bool)[None],
        }
    ),
    "_position_scores": Case({"queries": normal(H, B, T, D), "distances": normal(M + 1, H, D)}),
}


def is_shape(x):
    return isinstance(x, jax.ShapeDtypeStruct)


def floats_of(case):
    """({name: a float array of the arguments}, function from such names to all arguments)."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(case.arguments)
    names = ["".join([path[0].key, jax.tree_util.keystr(path[1:])]) for path, _ in leaves]
    rng = np.random.default_rng(0)
    floats = {
        name: jnp.asarray(0.3 + 0.3 * rng.normal(size=x.shape), jnp.float32)
        for name, (_, x) in zip(names, leaves, strict=True)
        if is_shape(x)
    }

    def fill(given):
        filled = [(floats | given).get(name, x) for name, (_, x) in zip(names, leaves, strict=True)]
        return tuple(jax.tree_util.tree_unflatten(structure, filled)[name] for name in case.arguments)

    return floats, fill


def masked(name, out):
    """The meaningful part of a result: scores are wrong outside of the band."""
    if name != "_position_scores":
        return out
    distance = np.arange(M + T) - np.arange(T)[:, None]
    return jnp.where((distance >= 0) & (distance <= M), out, 0.0)


def gradient(name, function, fill):
    def loss(given):
        return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(masked(name, function(*fill(given)))))

    return jax.grad(loss)


def test_every_one_is_here():
    found = written_by_hand()
    assert set(found) == set(CASES)
    for name, case in CASES.items():
        assert list(case.arguments) == list(signature(found[name]).parameters)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "parallel_outer_readout")) for name in CASES]
)
def test_equals_that_of_the_plain_function_or_is_refused(name):
    case, function = CASES[name], written_by_hand()[name]
    floats, fill = floats_of(case)
    ours, plain = (gradient(name, f, fill) for f in (function, function.__wrapped__))
    for argument, x in floats.items():
        if argument in case.refused:
            with pytest.raises(TypeError, match=rf"{name} treats {argument} as a constant.*stop_gradient"):
                jax.eval_shape(ours, {argument: x})
    for left_out in {case.refused, case.refused + case.last}:
        given = {argument: x for argument, x in floats.items() if argument not in left_out}
        ours_and_plain = jax.jit(lambda given: (ours(given), plain(given)))(given)
        for argument in given:
            a, b = (np.asarray(gradients[argument]) for gradients in ours_and_plain)
            assert np.any(b), argument
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max(), err_msg=argument)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_one_argument_alone_has_a_gradient_too(name):
    floats, fill = floats_of(CASES[name])
    ours = gradient(name, written_by_hand()[name], fill)
    for argument in floats.keys() - set(CASES[name].refused):
        jax.eval_shape(ours, {argument: floats[argument]})


@pytest.mark.parametrize("transform", [jax.jit, jax.checkpoint, jax.vmap], ids=["jit", "checkpoint", "vmap"])
def test_is_refused_under_transformations(transform):
    case = CASES["recurrent_scan"]
    floats, fill = floats_of(case)

    def outputs(inputs, keep):
        return recurrent_scan(*fill({"inputs": inputs, "keep": keep}))[1]

    def loss(inputs, keep):
        return jnp.sum(transform(outputs)(inputs, keep))

    pair = (floats["inputs"], floats["keep"])
    arguments = tuple(x[None] for x in pair) if transform is jax.vmap else pair
    jax.eval_shape(jax.grad(loss), *arguments)
    jax.eval_shape(jax.grad(lambda keep, inputs: loss(inputs, lax.stop_gradient(keep))), *arguments[::-1])
    with pytest.raises(TypeError, match="treats keep as a constant"):
        jax.eval_shape(jax.grad(loss, argnums=1), *arguments)
    with pytest.raises(TypeError, match="treats keep as a constant"):  # also if it depends on parameters
        jax.eval_shape(jax.grad(lambda inputs: loss(inputs, jax.nn.sigmoid(inputs[..., 0]))), *arguments[:1])


def test_frequencies_can_be_learned():
    _, fill = floats_of(CASES["chunked_outer_readout"])
    time = jnp.arange(T)[:, None] + jnp.zeros(B)

    def loss(readout, frequencies):
        phases = {f"factors.phase[{i}]": jnp.cos(w * time) for i, w in enumerate(frequencies)}
        return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(readout(*fill(phases))))

    gradients = jax.jit(lambda *w: [jax.grad(partial(loss, f))(w) for f in (chunked_outer_readout, scan_outer_readout)])
    ours, plain = gradients(0.3, 1.1)
    assert all(abs(x) > 1.0 for x in plain)
    np.testing.assert_allclose(ours, plain, rtol=1e-4)


def test_the_first_pass_that_has_all_gradients_is_used():
    used = []

    @jax.custom_vjp
    def times(x, factor):
        return x * factor

    def cheap(residuals, d_out):
        used.append("cheap")
        return d_out * residuals[1], None

    def whole(residuals, d_out):
        used.append("whole")
        return d_out * residuals[1], d_out * residuals[0]

    define_gradient(times, lambda x, factor: (times(x, factor), (x, factor)), cheap, whole)
    assert jax.grad(times)(3.0, 2.0) == 2.0 and used == ["cheap"]
    assert jax.grad(times, argnums=1)(3.0, 2.0) == 3.0 and used == ["cheap", "cheap", "whole"]


def test_gradient_of_the_memory_is_refused_where_a_sequence_has_none():
    memory, seen = jnp.zeros((B, M, D)), jnp.zeros((T, B), jnp.int32)
    query, tokens = jnp.zeros((T, B, H, E)), jnp.zeros((T, B, D))
    reader = Reader(jnp.ones(D), jnp.zeros(D), jnp.ones((D, H, E)), jnp.ones((D, H, E)), None)

    def gradient_of_memory(attention):
        return jax.grad(lambda memory: jnp.sum(attention(memory, seen, query, tokens, reader)[1]))

    with pytest.raises(TypeError, match="treats past as a constant"):
        jax.eval_shape(gradient_of_memory(attend_sequence), memory)
    jax.eval_shape(gradient_of_memory(attend), memory)  # which says itself that no gradient flows into it
