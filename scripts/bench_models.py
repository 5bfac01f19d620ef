"""Size and speed of every memory model: python scripts/bench_models.py [--calls N] [--only NAME ...] [--skip-training]

Acting is one step of the whole network for 64 environments. Training is one PPO update on T-Maze v2 (64 environments,
128 steps, 4 epochs, 8 minibatches) divided by its environment steps. Reports medians of several calls after a warm-up.
The models take turns, so that other load on the machine affects all of them alike. The baseline is the same GTrXL with
the attention of public implementations: it projects the whole memory to keys and values and shifts it at every step,
and in learning it scores every token against the whole memory and sequence.
"""

if __name__ == "__main__":
    from src_pure.interrupt import imported  # first: from here on Ctrl-C prints one line instead of a traceback

import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from bench_train import medians, prepare
from jax import lax

from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.config.names import known_names
from src_pure.device import check_device
from src_pure.errors import Parser, between, guarded
from src_pure.models import transformer
from src_pure.models.policy import num_parameters
from src_pure.ops.attention import MASKED, Reader
from src_pure.ops.precision import einsum
from src_pure.types import Array

NUM_ENVS, NUM_STEPS = 64, 20
SETTINGS = ["task.corridor_len=160", f"num_envs={NUM_ENVS}", "num_steps=128", "algo.num_minibatches=8"]
BASELINE = "gtrxl, projecting"
CASES = {name: [f"model={name}"] for name in known_names("model")}
CASES |= {
    "galite, released": ["model=galite", "model.decay=released"],
    "gtrxl, memory 256": ["model=gtrxl", "model.memory_len=256"],
    BASELINE: ["model=gtrxl"],
}
RATIOS = (
    (BASELINE, "gtrxl"),
    ("gtrxl, memory 256", "gtrxl"),
    ("gtrxl", "agalite"),
    ("galite", "agalite"),
    ("galite, released", "agalite"),
)


def attend_by_projecting(
    memory: Array, seen: Array, query: Array, tokens: Array, reader: Reader
) -> tuple[Array, Array]:
    """The same as ops.attention.attend, but with the oldest memory first and plain automatic differentiation."""
    num_steps, memory_len = len(tokens), memory.shape[1]
    context = jnp.concatenate([lax.stop_gradient(memory), tokens.swapaxes(0, 1)], axis=1)  # [B, M + T, D]
    y = context * reader.scale + reader.offset
    keys = einsum("bmd,dhk->bmhk", y, reader.key)
    values = einsum("bmd,dhk->bmhk", y, reader.value)
    relative: Any = reader.relative  # never None in the baseline
    content, position = (query + bias for bias in relative[:2])
    scores = einsum("tbhk,bmhk->bhtm", content, keys)
    padded = jnp.pad(relative.distances, ((0, num_steps), (0, 0), (0, 0)))
    by_distance = einsum("tbhk,ehk->bhte", position, padded)  # rereading it in shorter rows is Transformer-XL's shift
    flat = by_distance.reshape(*scores.shape[:2], -1)[..., : num_steps * (memory_len + num_steps)]
    scores += flat.reshape(scores.shape)
    distance = memory_len + jnp.arange(num_steps)[:, None] - jnp.arange(memory_len + num_steps)  # [T, M + T]
    visible = (distance >= 0) & (distance <= jnp.minimum(seen, memory_len).T[..., None])  # [B, T, M + T]
    weights = jax.nn.softmax(jnp.where(visible[:, None], scores * query.shape[-1] ** -0.5, MASKED))
    return context[:, num_steps:], einsum("bhtm,bmhk->tbhk", weights, values)


@contextmanager
def attention_of(name: str) -> Generator[None]:
    """Code traced in the block uses the baseline's attention if `name` is the baseline."""
    attend = attend_by_projecting if name == BASELINE else transformer.attend
    with mock.patch.object(transformer, "attend", attend):
        yield


def prepare_acting(name: str) -> tuple[int, int, Callable[[], float]]:
    """(parameters of the memory, bytes of state per environment, a function that acts and returns us per env step)."""
    experiment = build(compose([*CASES[name], *SETTINGS]))
    policy = experiment.policy
    _, timestep = experiment.env.reset(jax.random.key(0))
    obs, reset = timestep.obs[None], timestep.reset[None]
    carry = jax.jit(lambda: policy.initialize_carry(NUM_ENVS))()
    shapes = jax.eval_shape(policy.init, jax.random.key(0), carry, obs, reset)
    params = jax.tree.map(lambda x: jnp.full(x.shape, 0.01), shapes)  # the values do not affect the time
    state_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(carry)) // NUM_ENVS

    def act(params, carry, keys):
        def step(carry, key):
            carry, output = policy.apply(params, carry, obs, jax.random.bernoulli(key, 0.02, reset.shape))
            return carry, output.value.sum()

        return lax.scan(step, carry, keys)

    keys = jax.random.split(jax.random.key(1), NUM_STEPS)
    with attention_of(name):
        program = jax.jit(act, donate_argnums=1).lower(params, carry, keys).compile()

    def call() -> float:
        nonlocal carry
        start = time.perf_counter()
        carry, _ = jax.block_until_ready(program(params, carry, keys))
        return (time.perf_counter() - start) / (NUM_STEPS * NUM_ENVS) * 1e6

    return num_parameters(params["params"].get("memory", {})), state_bytes, call


def prepare_training(name: str) -> tuple[float, float, Callable[[], float]]:
    """What bench_train.prepare returns, with the attention of this case."""
    with attention_of(name):
        return prepare([*CASES[name], *SETTINGS])


@guarded
def main(command_line: Sequence[str] | None = None) -> int:
    """0 once everything is measured."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=between(int, 1, 10_000), default=5, help="timed calls (5)")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), help="these alone")
    parser.add_argument("--skip-training", action="store_true", help="acting alone")
    options = parser.parse_args(command_line)
    prepared = {name: prepare_acting(name) for name in options.only}
    acting = medians({name: call for name, (_, _, call) in prepared.items()}, options.calls)
    programs = {} if options.skip_training else {name: prepare_training(name) for name in options.only}
    training = medians({name: call for name, (_, _, call) in programs.items()}, options.calls)
    check_device()
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}; us per environment step, temporaries of an update")
    print(f"{'':20}{'parameters':>12}{'state bytes':>13}{'acting us':>11}{'training us':>13}{'temporaries MB':>16}")
    for name, (parameters, state_bytes, _) in prepared.items():
        line = f"{name:20}{parameters:12,}{state_bytes:13,}{acting[name]:11.2f}"
        if name in training:
            line += f"{training[name] * 1e6:13.1f}{programs[name][1]:16.1f}"
        print(line)
    for what, times in (("acting", acting), ("training", training)):
        for slow, fast in RATIOS:
            if slow in times and fast in times:
                print(f"{what}, time of {slow} / {fast}: {times[slow] / times[fast]:.2f}")
    return 0


if __name__ == "__main__":
    imported()
    sys.exit(main())
