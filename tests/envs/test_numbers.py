"""Fields that an environment declares as numbers: nothing static depends on them, so they may be traced."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.config.names import known_names
from src_pure.envs.optional import numbers
from src_pure.envs.spaces import Box

VARIANTS = {
    "tmaze": ["", "task.variant=v1"],
    "bsuite": ["", "task.env_name=distributed_memory"],
    "mysterypath": ["task.observation=symbolic", "task.observation=symbolic task.env_name=MysteryPath-Easy-v0"],
    "gymnax": ["", "task.env_name=Pendulum-v1"],
    "craftax": ["task.env_name=Craftax-Classic-Symbolic-v1"],
    "memorymaze": ["task.observation=symbolic"],
}
CASES = [(task, variant) for task in known_names("task") for variant in VARIANTS.get(task, [""])]
SLOW = VARIANTS["craftax"] + VARIANTS["mysterypath"][1:]  # to build
QUICK = (("tmaze", ""), ("bsuite", ""), ("gymnax", "task.env_name=Pendulum-v1"))  # to compile: one of each kind
# numbers in gymnax's own parameters; the torque is also a bound of the actions
PARAMS = {
    ("gymnax", ""): ["+task.params.force_mag=12.0"],
    ("gymnax", "task.env_name=Pendulum-v1"): ["+task.params.max_torque=3.5"],
}
NUM_STEPS = 60


def build_env(task, variant, *options):
    return build(compose([f"task={task}", "encoder=mlp", "num_envs=8", *variant.split(), *options])).env


def other_value(env, name):
    """Another value for a field, with the type that the parameters use."""
    if name == "time_limit":
        return 25
    old = getattr(env.params, name)
    return old + 3 if isinstance(old, int) else old + 0.75


def play(env):
    """(first timestep, timesteps [T, B]) under random actions."""
    state, first = env.reset(jax.random.key(0))

    def step(state, key):
        key_action, key_step = jax.random.split(key)
        keys = jax.random.split(key_action, env.num_envs)
        return env.step(key_step, state, random_action(env, keys))

    return first, jax.lax.scan(step, state, jax.random.split(jax.random.key(1), NUM_STEPS))[1]


def random_action(env, keys):
    """Vectors far outside the bounds, so that the batch must clip them to the bounds of its params."""
    if isinstance(env.action_space, Box):
        return 10 * jax.vmap(lambda key: jax.random.normal(key, env.action_space.shape))(keys)
    return jax.vmap(env.action_space.sample)(keys)


def other_options(env, task, variant):
    """Overrides that give every number of the environment another value."""
    fixed = ["params", "agent_speed"] if getattr(env.env, "variant", "") == "grid" else ["params"]
    options = [f"task.{name}={other_value(env, name)}" for name in numbers(env.env) if name not in fixed]
    return options + PARAMS.get((task, variant), [])


def cases(is_slow):
    return [pytest.param(*x, marks=[pytest.mark.slow] * is_slow(x), id=" ".join(x)) for x in CASES]


@pytest.mark.parametrize(("task", "variant"), cases(lambda case: case[1] in SLOW))
def test_another_number_keeps_shapes_structure_and_dtypes(task, variant):
    """Whichever number changes."""
    env = build_env(task, variant)
    options = other_options(env, task, variant)
    for changes in [options, *([option] for option in options)]:
        other = build_env(task, variant, *changes)
        for space, like in ((other.observation_space, env.observation_space), (other.action_space, env.action_space)):
            assert (type(space), space.shape, space.dtype) == (type(like), like.shape, like.dtype)
        own, changed = jax.tree.map(jnp.asarray, (env.params, other.params))
        assert jax.tree.structure(own) == jax.tree.structure(changed)
        assert [x.dtype for x in jax.tree.leaves(own)] == [x.dtype for x in jax.tree.leaves(changed)]


@pytest.mark.parametrize(("task", "variant"), cases(lambda case: case not in QUICK))
def test_a_traced_number_is_what_an_environment_built_with_it_is(task, variant):
    """With all numbers traced, trajectories are the same."""
    env = build_env(task, variant)
    other = build_env(task, variant, *other_options(env, task, variant))
    traced = jax.jit(play)(env.replace(params=jax.tree.map(jnp.asarray, other.params)))
    # gymnax computes physics, which rounds differently if numbers are constants
    same = partial(np.testing.assert_allclose, rtol=0, atol=1e-4 if task == "gymnax" else 0)
    jax.tree.map(same, traced, jax.jit(lambda: play(other))())
