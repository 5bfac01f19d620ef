"""Products of float32 ask for full precision, forward and backward, in every model, encoder and head."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.extend.core import jaxprs_in_params

from src_pure.algos.ppo import PPO
from src_pure.config.compose import compose
from src_pure.config.names import known_names
from src_pure.config.targets import instantiate
from src_pure.models.encoders import ConvEncoder, Flatten, MLPEncoder
from src_pure.models.policy import ActorCritic
from src_pure.models.rnn import MLP
from src_pure.types import Trajectory

T, B = 35, 2  # steps: several chunks of the recurrences, the last one shorter
SMALL = {"num_layers": 1, "memory_len": 9, "max_iterations": 2, "d_model": 8, "d_head": 4, "d_ffc": 8, "size": 8}
FULL = (lax.Precision.HIGHEST, lax.Precision.HIGHEST)
ABLATIONS = [  # of GaLiTe: what no file of configs/model uses
    {"decay": "released"},
    {"implementation": "scan", "residual": "pre_norm"},
    {"gating": "scalar"},
]


def small_model(name, **options):
    component = compose([f"model={name}"])["model"]
    small = {key: value for key, value in SMALL.items() if key in component}
    return instantiate(component | small | options, "model")


def products(jaxpr):
    """Every product of two float32 arrays in a jaxpr, also in the bodies of loops, calls and custom gradients."""
    for equation in jaxpr.eqns:
        is_product = equation.primitive.name in ("dot_general", "conv_general_dilated")
        if is_product and all(x.aval.dtype == jnp.float32 for x in equation.invars):
            yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from products(inner)


def products_of_training(policy, obs_shape=(5,)):
    """The products of the loss with its gradient and of a single step, traced with jax's own default."""
    obs, reset, carry = jnp.zeros((T, B, *obs_shape)), jnp.zeros((T, B), bool), policy.initialize_carry(B)
    params = jax.eval_shape(policy.init, jax.random.key(0), carry, obs[:1], reset[:1])
    number, flag = jnp.zeros((T, B)), jnp.zeros((T, B), bool)
    batch = Trajectory(obs, reset, jnp.zeros((T, B), jnp.int32), number, number, number, flag, flag, flag)
    algo = PPO(num_steps=T)

    def loss(params):
        return algo.loss(params, policy.apply, carry, batch, number)

    def step(params):
        return policy.apply(params, carry, obs[:1], reset[:1])

    traced = [jax.make_jaxpr(function)(params) for function in (jax.value_and_grad(loss, has_aux=True), step)]
    return [list(products(x.jaxpr)) for x in traced]


def assert_full(found, at_least):
    assert [str(equation) for equation in found if equation.params["precision"] != FULL] == []
    assert len(found) >= at_least


@pytest.mark.parametrize("name", known_names("model"))
def test_of_every_model(name):
    learning, acting = products_of_training(ActorCritic(Flatten(), small_model(name), num_actions=3))
    assert_full(learning, at_least=3 * len(acting) // 2)
    assert_full(acting, at_least=5)


@pytest.mark.parametrize("options", ABLATIONS, ids=lambda x: "-".join(x.values()))
def test_of_ablations(options):
    learning, acting = products_of_training(ActorCritic(Flatten(), small_model("galite", **options), num_actions=3))
    assert_full(learning + acting, at_least=20)


@pytest.mark.parametrize("encoder", [MLPEncoder((4, 4)), ConvEncoder((4, 4), (4, 3), (2, 1))])
def test_of_encoders_and_heads(encoder):
    policy = ActorCritic(encoder, MLP(8, 1), num_actions=3)
    learning, acting = products_of_training(policy, obs_shape=(12, 12, 3))
    assert_full(acting, at_least=7)  # two layers of the encoder, one of the memory, four of the heads
    assert_full(learning, at_least=20)


def test_importing_changes_nothing_in_the_process():
    code = "import jax, src_pure, src_pure.types, src_pure.train; print(jax.config.jax_default_matmul_precision)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"
