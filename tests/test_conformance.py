"""The checks of memory models detect violations: each model here breaks one promise."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import pytest
from jax import lax

from scripts import check_model as script
from src_pure.algos.ppo import PPO
from src_pure.conformance import (
    CAUSAL,
    CHUNK,
    D_IN,
    FORM,
    RATIO,
    RESET,
    ROWS,
    STEPS,
    Check,
    check_model,
    ratio_error,
)  # fmt: skip

pytestmark = pytest.mark.slow  # a minute, for a script that only developers of models need

REPOSITORY = Path(__file__).parents[1]
NUM_STEPS = 26
WINDOW = 4


def average(carry, inputs, reset):
    """(carry, h), where h_t = 0.9 h_{t-1} + x_t; resets clear h_{t-1}."""

    def step(h, x):
        inputs, reset = x
        h = 0.9 * jnp.where(reset[:, None], 0.0, h) + inputs
        return h, h

    return lax.scan(step, carry, (inputs, reset))


class Right(nn.Module):
    def initialize_carry(self, batch_size):
        return jnp.zeros((batch_size, D_IN))

    def __call__(self, carry, inputs, reset):
        return average(carry, inputs, reset)


class IgnoresReset(Right):
    def __call__(self, carry, inputs, reset):
        return average(carry, inputs, jnp.zeros_like(reset))


class ResetsTooLate(Right):
    def __call__(self, carry, inputs, reset):
        return average(carry, inputs, jnp.concatenate([jnp.zeros_like(reset[:1]), reset[:-1]]))


class CountsOn(Right):
    """Flips the sign on every other step, and does not restart the count at resets."""

    def initialize_carry(self, batch_size):
        return jnp.zeros((batch_size, D_IN)), jnp.zeros(batch_size, jnp.int32)

    def __call__(self, carry, inputs, reset):
        h, time = carry
        h, out = average(h, inputs, reset)
        times = time + jnp.arange(len(inputs))[:, None]  # [T, B]
        return (h, time + len(inputs)), out * jnp.where(times % 2, -1.0, 1.0)[..., None]


class ResetsAfterwards(Right):
    """Clears the memory after the first step of an episode instead of before it, in every mode."""

    def initialize_carry(self, batch_size):
        return jnp.zeros((batch_size, D_IN)), jnp.zeros(batch_size, bool)

    def __call__(self, carry, inputs, reset):
        h, last = carry
        h, out = average(h, inputs, jnp.concatenate([last[None], reset[:-1]]))
        return (h, reset[-1]), out


class SeesTheFuture(Right):
    def __call__(self, carry, inputs, reset):
        carry, out = average(carry, inputs, reset)
        return carry, out.at[:-1].add(0.1 * inputs[1:])


class MixesRows(Right):
    def __call__(self, carry, inputs, reset):
        return average(carry, inputs - inputs.mean(axis=1, keepdims=True), reset)


class ChangesType(Right):
    def __call__(self, carry, inputs, reset):
        carry, out = average(carry, inputs, reset)
        return carry.astype(jnp.bfloat16), out


class ForgetsInLongCalls(Right):
    """Returns the memory of the second-to-last step if a call has more steps than a chunk."""

    def __call__(self, carry, inputs, reset):
        carry, out = average(carry, inputs, reset)
        return (carry if len(inputs) <= CHUNK else out[-2]), out


class MixesRowsBelowRounding(Right):
    """Stays within the tolerance for comparing two programs at this precision."""

    precision: str = "bfloat16"

    def __call__(self, carry, inputs, reset):
        return average(carry, inputs + 1e-3 * inputs.mean(axis=1, keepdims=True), reset)


class FlaxPrecision(Right):
    """Takes `precision` in the sense of flax."""

    precision: Any = None


class OtherArguments(Right):
    def __call__(self, carry, inputs):
        return carry, inputs


class LearnsFromMore(Right):
    """Sums its own input and a window of WINDOW inputs, but in a sequence all inputs since its start."""

    def initialize_carry(self, batch_size):
        return jnp.zeros((batch_size, WINDOW, D_IN))

    def __call__(self, carry, inputs, reset):
        episode = jnp.cumsum(reset, axis=0)  # [T, B]
        same = (episode[:, None] == episode[None]) & jnp.tri(len(reset), dtype=bool)[..., None]  # [T, T, B]
        past = jnp.where((episode == 0)[..., None], carry.sum(1), 0.0)
        tokens = jnp.where((episode[-1] == 0)[:, None, None], carry, 0.0)
        kept = jnp.moveaxis(inputs * same[-1][..., None], 0, 1)  # [B, T, D]
        return jnp.concatenate([tokens, kept], axis=1)[:, -WINDOW:], past + jnp.einsum("tsb,sbd->tbd", same, inputs)


class StoresTooLate(PPO):
    """PPO that replays from the memory after the first step of the rollout instead of before it."""

    def update(self, key, learner, apply, carry, trajectory, last_value):
        later, _ = apply(learner.params, carry, trajectory.obs[:1], trajectory.reset[:1])
        return super().update(key, learner, apply, later, trajectory, last_value)


def broken(model):
    """The names of the promises that a model breaks."""
    return {check.name for check in check_model(model, NUM_STEPS) if not check.passed}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Right(), set()),
        (IgnoresReset(), {RESET}),
        (CountsOn(), {RESET}),
        (ResetsTooLate(), {STEPS, RESET, RATIO}),
        (ResetsAfterwards(), {RESET}),
        (SeesTheFuture(), {STEPS, CAUSAL, RATIO}),
        (MixesRows(), {ROWS}),
        (ChangesType(), {STEPS, RESET, CAUSAL, ROWS, FORM, RATIO}),
        (ForgetsInLongCalls(), {STEPS}),
        (MixesRowsBelowRounding(), {ROWS}),
        (FlaxPrecision(), set()),
        (LearnsFromMore(), {STEPS, RATIO}),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, nn.Module) else "",
)
def test_a_broken_promise_is_found(model, expected):
    assert broken(model) == expected


def test_memory_stored_after_the_step_is_found():
    sizes = {"learning_rate": 0.0, "num_steps": NUM_STEPS, "update_epochs": 1, "num_minibatches": 1}
    assert ratio_error(Right(), algo=PPO(**sizes)) < 1e-5
    assert ratio_error(Right(), algo=StoresTooLate(**sizes)) > 1e-3


def test_an_error_that_is_no_number_fails():
    assert not Check("", float("nan"), 1.0).passed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model=gruu"], "did you mean model=gru?"),
        (["model=gru", "model.size=0"], "model.size must be greater than 0"),
        (["model._target_=nowhere.Model", "--trust=nowhere"], "cannot be imported"),
        (
            [f"model._target_={__name__}.OtherArguments", "--trust", __name__],
            "OtherArguments must be callable as model(carry, inputs",
        ),
        (["model=gru", "--steps", "1"], "--steps: must be a whole number from 2 to"),
    ],
)
def test_wrong_input_is_said(arguments, message, capsys):
    assert script.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_table_and_exit_codes(capsys):
    assert script.main(["model._target_=src_pure.models.rnn.GRU", "model.size=8", "--steps", "26"]) == 0
    assert capsys.readouterr().out.count("pass") == 6
    assert (
        script.main([f"model._target_={IgnoresReset.__module__}.IgnoresReset", "--trust", "tests", "--steps", "26"])
        == 1
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines if "FAIL" in line] == [RESET]


def test_runs_as_a_command():
    command = [sys.executable, "scripts/check_model.py", "model=gruu"]
    assert subprocess.run(command, cwd=REPOSITORY, capture_output=True, timeout=600).returncode == 2
