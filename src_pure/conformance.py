"""The promises of every memory model (models/base.py), measured on random parameters, inputs and resets.

A history spans several windows of the model. Row 0 of a batch is one episode; the other rows are reset at random.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from src_pure.algos.base import Algorithm
from src_pure.algos.ppo import PPO
from src_pure.bits import in_32_bits
from src_pure.errors import WRONG_INPUT
from src_pure.models.base import WithWindow, precision_of
from src_pure.models.encoders import Flatten
from src_pure.models.policy import ActorCritic
from src_pure.train import make_train
from src_pure.types import Actor, Array, Carry, Key, Params, Timestep, TrainState

NUM_STEPS, WINDOWS = 130, 4  # a history has at least this many steps and this many of the model's windows
CHUNK = 13  # steps; odd, so that chunks and blocks of 2^n steps end at different times
BATCH, D_IN, NUM_ACTIONS = 3, 6, 4
RESET_RATE = 0.05
# Limits of |a - b| / (1 + |b|) and |log ratio|. Between two programs they depend on the model's precision.
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}
SAME_PROGRAM = 1e-5
NUM_UPDATES = 3


class ModelError(ValueError):
    """A model that cannot be called as models/base.py requires."""

    exit_code = WRONG_INPUT


class Check(NamedTuple):
    """One property: the largest error found, and the largest allowed."""

    name: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance  # False if the error is NaN


class Subject(NamedTuple):
    """A model with random parameters and a history [T, B, ...] to run it on."""

    model: nn.Module
    params: Params
    fresh: Carry
    inputs: Array  # [T, B, D_IN]
    reset: Array  # [T, B]
    run: Callable[[int, Carry, Array, Array], tuple[Carry, Array]]  # (length of chunks, carry, inputs, reset)


def random_params(module: nn.Module, *args: Any, seed: int = 0) -> Params:
    """Normal parameters, without running initialisers; matrices are scaled to keep the size of their inputs."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *args)
    leaves, structure = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    scale = [x.shape[0] ** -0.5 if len(x.shape) > 1 else 0.5 for x in leaves]
    values = [s * jax.random.normal(key, x.shape) for s, key, x in zip(scale, keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, values)


def history_len(model: nn.Module) -> int:
    """Steps enough to show what a model remembers and forgets: several times its `memory_len`, if it has one."""
    return max(NUM_STEPS, WINDOWS * model.memory_len if isinstance(model, WithWindow) else 0)


def subject(model: nn.Module, num_steps: int | None = None) -> Subject:
    """The model with a history of num_steps (history_len if None), rounded up to whole chunks.

    Raises ModelError if the model cannot be called on it.
    """
    num_steps = num_steps or history_len(model)
    num_steps += -num_steps % CHUNK
    key_inputs, key_reset = jax.random.split(jax.random.key(0))
    inputs = jax.random.normal(key_inputs, (num_steps, BATCH, D_IN))
    reset = jax.random.bernoulli(key_reset, RESET_RATE, (num_steps, BATCH)).at[:, 0].set(False)
    fresh = model.initialize_carry(BATCH)
    try:
        params = random_params(model, fresh, inputs[:1], reset[:1])
    except (TypeError, ValueError) as error:
        name = type(model).__name__
        raise ModelError(f"{name} must be callable as model(carry, inputs [T, B, D], reset [T, B]): {error}") from error
    run = jax.jit(partial(in_chunks, partial(model.apply, params)), static_argnums=0)
    return Subject(model, params, fresh, inputs, reset, run)


def in_chunks(apply, length: int, carry: Carry, inputs: Array, reset: Array) -> tuple[Carry, Array]:
    """(carry, outputs [T, B, D]) of calls with `length` steps each; length divides T."""

    def split(x):
        return x.reshape(-1, length, *x.shape[1:])  # [T / length, length, ...]

    carry, outputs = lax.scan(lambda carry, x: apply(carry, *x), carry, (split(inputs), split(reset)))
    return carry, outputs.reshape(-1, *outputs.shape[2:])


def difference(a: Array, b: Array) -> float:
    """The largest |a - b| / (1 + |b|)."""
    return float(jnp.max(jnp.abs(a - b) / (1.0 + jnp.abs(b))))


def largest(errors: Iterable[float]) -> float:
    """The maximum, or NaN if one of the errors is NaN."""
    return float(np.max(list(errors)))


def steps_error(s: Subject) -> float:
    """(a) T single steps, and chunks of CHUNK, against one sequence of T: outputs, and what follows from the carry."""

    def outputs(length: int) -> tuple[Array, Array]:
        carry, first = s.run(length, s.fresh, s.inputs, s.reset)
        return first, s.run(CHUNK, carry, s.inputs, s.reset)[1]

    expected = outputs(len(s.inputs))
    return largest(difference(*pair) for length in (1, CHUNK) for pair in zip(outputs(length), expected, strict=True))


def reset_error(s: Subject) -> float:
    """(b) A reset against a fresh carry, at the first step of a call; and within a call, after two different pasts.

    One past has an odd number of steps: an even one would hide an error that cancels every second step.
    """
    half, never = len(s.inputs) // 2, jnp.zeros_like(s.reset)
    without, with_first = s.reset.at[0].set(False), s.reset.at[0].set(True)
    within, other_past = s.reset.at[half].set(True), s.inputs.at[:half].multiply(-2.0)
    errors = []
    for length in (1, len(s.inputs)):
        run = partial(s.run, length)
        used = run(s.fresh, s.inputs, never)[0]
        errors.append(difference(run(used, s.inputs, with_first)[1], run(s.fresh, s.inputs, without)[1]))
        errors.append(difference(run(s.fresh, other_past, within)[1][half:], run(s.fresh, s.inputs, within)[1][half:]))
    few = s.run(1, s.fresh, s.inputs[:3], never[:3])[0]
    errors.append(difference(s.run(1, few, s.inputs, with_first)[1], s.run(1, s.fresh, s.inputs, without)[1]))
    return largest(errors)


def future_error(s: Subject) -> float:
    """(c) Outputs of the first half when inputs and resets of the second half change."""
    length, half = len(s.inputs), len(s.inputs) // 2
    changed = s.run(length, s.fresh, s.inputs.at[half:].multiply(-2.0), s.reset.at[half:].set(~s.reset[half:]))[1]
    return difference(changed[:half], s.run(length, s.fresh, s.inputs, s.reset)[1][:half])


def row_error(s: Subject) -> float:
    """(d) Outputs of the other rows when row 0 sees other inputs and resets."""
    inputs, reset = s.inputs.at[:, 0].multiply(-2.0), s.reset.at[::2, 0].set(True)
    return largest(
        difference(s.run(n, s.fresh, inputs, reset)[1][:, 1:], s.run(n, s.fresh, s.inputs, s.reset)[1][:, 1:])
        for n in (1, len(s.inputs))
    )


def form_error(s: Subject) -> float:
    """(e) The number of leaves of the carry, and of outputs, with a wrong shape or type, for one step and for T."""
    wrong = 0
    for length in (1, len(s.inputs)):
        carry, outputs = jax.eval_shape(s.model.apply, s.params, s.fresh, s.inputs[:length], s.reset[:length])
        wrong += outputs.shape[:2] != (length, BATCH) or outputs.dtype != jnp.float32
        if jax.tree.structure(carry) != jax.tree.structure(s.fresh):
            return float(wrong + 1)
        for new, old in zip(jax.tree.leaves(carry), jax.tree.leaves(s.fresh), strict=True):
            wrong += new.shape != old.shape or new.dtype != old.dtype or new.shape[0] != BATCH
    return float(wrong)


class NoiseEnv(NamedTuple):
    """A vectorised environment of noise. The episode of row 0 never ends; the others end at random."""

    num_envs: int = BATCH

    def reset(self, key: Key) -> tuple[tuple[()], Timestep]:
        return (), self._timestep(key, jnp.ones(self.num_envs, bool))

    def refresh(self, key: Key, state: tuple[()]) -> tuple[()]:
        return state

    def step(self, key: Key, state: tuple[()], action: Array) -> tuple[tuple[()], Timestep]:
        key_end, key_obs = jax.random.split(key)
        ended = jax.random.bernoulli(key_end, RESET_RATE, (self.num_envs,)).at[0].set(False)
        return state, self._timestep(key_obs, ended)

    def _timestep(self, key: Key, started: Array) -> Timestep:
        never = jnp.zeros(self.num_envs, bool)
        return Timestep(
            obs=jax.random.normal(key, (self.num_envs, D_IN)),
            reset=started,
            reward=jnp.ones(self.num_envs),
            terminated=started,
            truncated=never,
            ignored=never,
            finished=started,
            info={},
        )


def ratio_error(model: nn.Module, num_steps: int | None = None, algo: Algorithm | None = None) -> float:
    """(f) The largest |log ratio| of NUM_UPDATES updates with learning rate 0: acting and learning are one function."""
    num_steps = num_steps or history_len(model)
    env: Any = NoiseEnv()  # without spaces, which training does not read
    policy = ActorCritic(Flatten(), model, NUM_ACTIONS)
    algo = algo or PPO(learning_rate=0.0, num_steps=num_steps, update_epochs=1, num_minibatches=1)
    _, update = make_train(env, policy)
    key_env, key_run = jax.random.split(jax.random.key(0))
    env_state, timestep = env.reset(key_env)
    carry = policy.initialize_carry(env.num_envs)
    params = random_params(policy, carry, timestep.obs[None], timestep.reset[None])
    state = TrainState(algo.init(params), Actor(env_state, timestep, carry), key_run, jnp.int32(0))
    _, metrics = jax.jit(lambda state: lax.scan(lambda s, _: update(s, algo), state, length=NUM_UPDATES))(state)
    return float(jnp.max(metrics["max_abs_log_ratio"]))


STEPS = "steps, chunks and sequence agree"
RESET = "a reset is a fresh start"
CAUSAL = "outputs do not depend on the future"
ROWS = "rows of a batch do not mix"
FORM = "the carry keeps its form"
RATIO = "PPO's ratio stays 1 without learning"


@in_32_bits
def check_model(model: nn.Module, num_steps: int | None = None) -> list[Check]:
    """One check per promise. A carry that changes its form cannot be run, so the other checks fail with it."""
    s = subject(model, num_steps)
    form = Check(FORM, form_error(s), 0.0)
    rounding = TOLERANCE[precision_of(model)]
    errors = {STEPS: steps_error, RESET: reset_error, CAUSAL: future_error, ROWS: row_error}
    checks = [
        Check(name, error(s) if form.passed else np.inf, rounding if name == STEPS else SAME_PROGRAM)
        for name, error in errors.items()
    ]
    ratio = ratio_error(model, num_steps) if form.passed else np.inf
    return [*checks, form, Check(RATIO, ratio, rounding)]
