"""JAX_ENABLE_X64=1 changes nothing: every family is the same program, and policies act in 64-bit programs."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from src_pure import load_policy
from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.config.names import known_names
from src_pure.evaluate import make_evaluate
from src_pure.lanes import training_keys
from src_pure.runs.checkpoint import read
from src_pure.runs.policies import export_policy, read_trained
from src_pure.train import init_runs, make_train, run_updates
from tests.conftest import REPOSITORY

SMALL = {"num_layers": 1, "d_model": 8, "num_heads": 2, "d_head": 4, "d_ffc": 8, "memory_len": 4, "max_iterations": 2,
         "size": 8}  # fmt: skip
TASKS = [
    ["task=tmaze", "task.corridor_len=3"],
    ["task=mysterypath", "task.observation=symbolic"],
    ["task=bsuite", "task.env_name=memory_size"],
    ["task=bsuite", "task.env_name=distributed_memory", "observation.last_action=true", "observation.last_reward=true"],
    ["task=gymnax", "task.env_name=CartPole-v1"],
    ["task=gymnax", "task.env_name=Pendulum-v1"],
    ["task=mysterypath", "task.env_name=MysteryPath-v0", "encoder=conv", "vector.resets=pool", "vector.reset_ratio=2"],
]
ALGOS = [["algo=ppo", "algo.num_minibatches=2"], ["algo=a2c", "vector.truncation=bootstrap"]]
PQN = ["algo=pqn", "policy=q_network", "algo.num_minibatches=2"]
LENGTH = ["num_envs=4", "num_steps=16", "total_steps=192", "num_seeds=2", "policy.head_size=8",
          "evaluation.num_episodes=4", "evaluation.max_steps=16"]  # fmt: skip


def family(model, task, algo):
    model = [f"model={model}"]
    return [*model, *(f"model.{key}={SMALL[key]}" for key in compose(model)["model"] if key in SMALL), *task, *algo]


FAMILIES = [
    [*family(model, TASKS[i % len(TASKS)], ALGOS[i // 4 % 2]), *LENGTH] for i, model in enumerate(known_names("model"))
]
Q_LEARNING = [*family("gru", TASKS[0], PQN), *LENGTH]
FAMILIES.append(Q_LEARNING)
FAMILIES.append([*family("lstm", ["task=memorymaze", "encoder=conv", "task.time_limit=8"], ALGOS[1]), *LENGTH])
FAST = "model=gru"  # the quick tests trace these families
CRAFTAX = [*family("gru", ["task=craftax", "task.env_name=Craftax-Classic-Symbolic-v1"], ALGOS[0]), *LENGTH]
# The programs are the same for all families; what is left is the host's side, and packages with constants of their own.
TRAINED = {"craftax": CRAFTAX, "gymnax": [*family("agalite", TASKS[4], ALGOS[1]), *LENGTH], "pqn": Q_LEARNING}


def program(options):
    """The text of everything that a training computes, with the dtype of every array."""
    experiment = build(compose(options))
    init, update = make_train(experiment.env, experiment.policy)
    evaluate = make_evaluate(experiment.evaluation_env, experiment.policy, 16)
    keys, algo = training_keys(experiment.lanes), experiment.numbers().algo
    start = jax.jit(lambda keys, algo: init_runs(init, keys, algo)).trace(keys, algo)
    segment = jax.jit(lambda *args: run_updates(update, *args, 2)).trace(start.out_info, algo, jnp.int32(2))
    scores = jax.jit(jax.vmap(evaluate, (0, 0, None))).trace(keys, start.out_info.learner.params, jnp.bool_(True))
    return [str(traced.jaxpr) for traced in (start, segment, scores)]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(options, id=options[0], marks=[] if options[0] == FAST else pytest.mark.slow)
        for options in FAMILIES
    ],
)
def test_it_is_the_same_program(options):
    without = program(options)
    with jax.enable_x64(True):
        assert program(options) == without
    assert "64[" not in "".join(without)


CONSTANTS = """
import sys, jax
from src_pure.build import build
from src_pure.config.compose import compose
for options in ("task=craftax", "task=gymnax"):
    env = build(compose([options, "num_envs=8"])).env
    key, action = jax.random.key(0), jax.numpy.zeros(8, int)
    jax.eval_shape(env.step, key, jax.eval_shape(env.reset, key)[0], action)
modules = [module for name, module in sys.modules.items() if name.startswith(("craftax", "gymnax"))]
arrays = [(module.__name__, name) for module in modules for name, x in vars(module).items() if isinstance(x, jax.Array)]
print(len(arrays), [(module, name) for module, name in arrays if getattr(sys.modules[module], name).dtype.itemsize > 4])
"""


@pytest.mark.slow
def test_constants_of_other_packages_have_32_bits():
    environment = os.environ | {"JAX_ENABLE_X64": "1"}
    command = [sys.executable, "-c", CONSTANTS]
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    number, found = done.stdout.split(maxsplit=1)
    assert int(number) > 10 and found == "[]\n"


def test_all_kinds_are_among_the_families():
    words = {word for options in FAMILIES for word in options}
    assert words > {f"task={name}" for name in known_names("task") if name != "craftax"}
    assert words > {f"algo={name}" for name in known_names("algo")}


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_a_training_has_the_same_numbers(name, tmp_path):
    for flag in ("0", "1"):  # one after the other: the second finds the programs of the first
        environment = os.environ | {"JAX_ENABLE_X64": flag}
        command = [sys.executable, "trainer_pure.py", *TRAINED[name], f"run_dir={tmp_path / flag}"]
        subprocess.run(command, env=environment, cwd=REPOSITORY, check=True)
    assert_same_run(*(tmp_path / flag for flag in ("0", "1")), message=" ".join(TRAINED[name]))


def assert_same_run(a: Path, b: Path, message: str) -> None:
    for table in ("metrics.parquet", "evaluation.parquet"):
        pd.testing.assert_frame_equal(pd.read_parquet(a / table), pd.read_parquet(b / table), check_exact=True)
    ours, theirs = (read(path / "checkpoints" / "3").arrays() for path in (a, b))
    assert ours.keys() == theirs.keys()
    for name, x in ours.items():
        assert x.dtype == theirs[name].dtype, f"{name} of {message}"
        np.testing.assert_array_equal(x, theirs[name], err_msg=f"{name} of {message}")


@pytest.fixture(scope="module")
def policy(unbroken, tmp_path_factory):
    folder = tmp_path_factory.mktemp("policies") / "policy"
    export_policy(read_trained(unbroken), 0, folder)
    return folder


def test_a_policy_acts_in_a_64_bit_program(unbroken, policy):
    """Step by step and inside jit, vmap and scan, on observations of either precision."""
    steps, batch = 7, 3
    size = build(read(unbroken / "checkpoints" / "10").config).env.observation_space.shape[0]
    rng = np.random.default_rng(0)
    obs, reset = rng.normal(size=(steps, batch, size)), rng.random((steps, batch)) < 0.3

    def play(act, carry, obs):
        def step(carry, x):
            obs, reset, time = x
            carry, action = act(jax.random.fold_in(jax.random.key(0), time), carry, obs, reset)
            return carry, (action, act(None, carry, obs, reset)[1])

        return jax.lax.scan(step, carry, (obs, reset, np.arange(steps, dtype=np.int32)))

    def everything():
        initialize_carry, act = load_policy(policy)
        carry = initialize_carry(batch)
        first = [
            act(None, carry, x, reset[0]) for x in (obs[0], obs[0].tolist(), np.float32(obs[0]), jnp.array(obs[0]))
        ]
        seeds = jax.vmap(lambda carry: jax.jit(lambda: play(act, carry, jnp.array(obs)))()[1])
        twice = jax.tree.map(lambda x: jnp.stack([x, x]), carry)
        return first, jax.jit(lambda obs: play(act, carry, obs))(obs), seeds(twice)

    without = everything()
    with jax.enable_x64(True):
        assert jnp.array(obs).dtype == jnp.float64
        within = everything()
        assert jnp.zeros(2).dtype == jnp.float64  # the program around it keeps its own precision
    for ours, theirs in zip(*map(jax.tree.leaves, (within, without)), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
