"""Fields that an environment declares as numbers: nothing static depends on them, so they may be traced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.config.names import known_names
from src_pure.envs.optional import numbers

VARIANTS = {
    "tmaze": ["", "task.variant=v1"],
    "bsuite": ["", "task.env_name=distributed_memory"],
    "mysterypath": ["task.observation=symbolic", "task.observation=symbolic task.env_name=MysteryPath-Easy-v0"],
    "gymnax": ["", "task.env_name=Pendulum-v1"],
    "craftax": ["task.env_name=Craftax-Classic-Symbolic-v1"],
}
CASES = [
    pytest.param(task, variant, marks=[pytest.mark.slow] * (task == "craftax"), id=f"{task} {variant}")
    for task in known_names("task")
    for variant in VARIANTS.get(task, [""])
]
NUM_STEPS = 40


def build_env(task, variant, *options):
    return build(compose([f"task={task}", "encoder=mlp", "num_envs=8", *variant.split(), *options])).env


def other_value(env, variant, name):
    """Another value of a field, of the type that it has in the parameters; None where the variant fixes it."""
    if name == "agent_speed" and env.env.variant == "grid":
        return None
    old = getattr(env.params, name, None)
    if old is None:  # a name of its own in the parameters of the package
        return 9
    return old + 3 if isinstance(old, int) else old + 0.75


@jax.jit
def play(env):
    """(first timestep, timesteps [T, B]) of random actions."""
    state, first = env.reset(jax.random.key(0))

    def step(state, key):
        key_action, key_step = jax.random.split(key)
        keys = jax.random.split(key_action, env.num_envs)
        return env.step(key_step, state, jax.vmap(env.action_space.sample)(keys))

    return first, jax.lax.scan(step, state, jax.random.split(jax.random.key(1), NUM_STEPS))[1]


@pytest.mark.parametrize(("task", "variant"), CASES)
def test_a_traced_number_is_what_an_environment_built_with_it_is(task, variant):
    """Spaces, structure and dtypes stay; the trajectories are the same."""
    env = build_env(task, variant)
    values = {name: other_value(env, variant, name) for name in numbers(env.env)}
    values = {name: value for name, value in values.items() if value is not None}
    assert values
    for name, value in values.items():
        other = build_env(task, variant, f"task.{name}={value}")
        assert (other.observation_space, other.action_space) == (env.observation_space, env.action_space)
        own, changed = jax.tree.map(jnp.asarray, (env.params, other.params))
        assert jax.tree.structure(own) == jax.tree.structure(changed)
        assert [x.dtype for x in jax.tree.leaves(own)] == [x.dtype for x in jax.tree.leaves(changed)]
        traced = env.replace(params=changed)
        jax.tree.map(np.testing.assert_array_equal, play(traced), run_alone(other))


def run_alone(env):
    """The same with the numbers as constants of the program."""
    return jax.jit(lambda: play.__wrapped__(env))()
