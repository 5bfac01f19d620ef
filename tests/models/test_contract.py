"""The promises of every memory model, for each file in configs/model or for the model given with --model."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from src_pure import conformance
from src_pure.config.compose import compose
from src_pure.config.names import known_names
from src_pure.config.targets import instantiate
from src_pure.models.base import WithPrecision

SMALL = {"num_layers": 1, "memory_len": 9, "max_iterations": 2}  # so that a history has many windows
QUICK = ("agalite", "gru", "mlp")  # the others run with the slow tests, or by --model
ERRORS = {
    "steps": conformance.steps_error,
    "reset": conformance.reset_error,
    "causal": conformance.future_error,
    "rows": conformance.row_error,
}


def pytest_generate_tests(metafunc):
    if "name" in metafunc.fixturenames:
        given = metafunc.config.getoption("--model")
        names = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in known_names("model")]
        metafunc.parametrize("name", [given] if given else names)


@cache
def model(name):
    """A file of configs/model with few layers and a short memory, or a class with its own defaults."""
    if name not in known_names("model"):
        return instantiate({"_target_": name}, "model", trust=(name.partition(".")[0],))
    component = compose([f"model={name}"])["model"]
    small = {key: value for key, value in SMALL.items() if key in component}
    return instantiate(component | small, "model")


@cache
def subject(name):
    return conformance.subject(model(name))


@pytest.mark.parametrize("promise", ERRORS)
def test_promise(name, promise):
    assert ERRORS[promise](subject(name)) <= conformance.SAME_PROGRAM


@pytest.mark.slow
def test_promise_in_bfloat16(name):
    """Steps and sequence agree within its rounding; parameters, carry and outputs stay float32."""
    if not isinstance(model(name), WithPrecision):
        pytest.skip("this model has no precision to choose")
    s = conformance.subject(model(name).clone(precision="bfloat16"), 26)
    assert conformance.form_error(s) == 0
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(s.params))
    assert conformance.steps_error(s) <= conformance.TOLERANCE["bfloat16"]
    precise = conformance.subject(model(name), 26)
    rounded = conformance.difference(*(x.run(26, x.fresh, x.inputs, x.reset)[1] for x in (s, precise)))
    assert 1e-4 < rounded < 0.5


def test_carry_keeps_its_form(name):
    assert conformance.form_error(subject(name)) == 0


def test_ratio_stays_one_without_learning(name, request):
    if not request.config.getoption("--model"):
        pytest.skip("tests/test_train.py does this for every class of model")
    assert conformance.ratio_error(model(name)) <= conformance.TOLERANCE["float32"]


def test_memory_is_used(name):
    """The output of every model changes with the previous input; only the control forgets it."""
    s = subject(name)
    never = jnp.zeros_like(s.reset)
    first, second = (s.run(len(s.inputs), s.fresh, x, never)[1] for x in (s.inputs, s.inputs.at[0].add(1.0)))
    assert np.array_equal(first[1], second[1]) == (name == "mlp")
