"""The configuration: every file builds, and wrong input gives a one-line error before anything compiles."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
import yaml

from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.config.names import COMPONENTS, CONFIG_DIR, known_names
from src_pure.errors import ConfigError
from tests.partners import algo_of, policy_of

EXPERIMENTS = [f"{folder.name}={path.stem}" for folder in sorted(CONFIG_DIR.iterdir()) if folder.is_dir()
               and folder.name not in COMPONENTS for path in sorted(folder.glob("*.yaml"))]  # fmt: skip
CHOICES = [f"{group}={name}" for group in COMPONENTS for name in known_names(group)]
NEEDS = {  # what else a choice requires
    "encoder=conv": ["task=mysterypath"],
    "encoder=impala": ["task=memorymaze"],
    "encoder=craftax": ["task=craftax", "task.observation=packed"],
}
NEEDS |= {f"algo={name}": [f"policy={policy_of(name)}"] for name in known_names("algo")}
NEEDS |= {f"policy={name}": [f"algo={algo_of(name)}"] for name in known_names("policy")}


@pytest.mark.parametrize("override", [*(f"+{name}" for name in EXPERIMENTS), *CHOICES])
def test_every_file_builds_and_is_not_changed_by_it(override):
    config = compose([override, *NEEDS.get(override, [])])
    before = yaml.safe_dump(config)
    experiment = build(config)
    assert yaml.safe_dump(config) == before
    assert build(yaml.safe_load(experiment.config_yaml)).config_yaml == experiment.config_yaml


@pytest.mark.parametrize(
    ("experiment", "learning_rate", "ent_coef", "size"),
    [
        ("agalite", 1e-4, 0.001, None),
        ("arelit", 1e-4, 0.001, None),
        ("gru", 5e-4, 0.01, 680),
        ("lstm", 1e-4, 0.001, 600),
    ],
)
def test_published_tmaze_hyperparameters(experiment, learning_rate, ent_coef, size):
    built = build(compose([f"+tmaze={experiment}", "task.corridor_len=160"]))
    settings, algo = built.settings, built.algo
    assert (settings.num_envs, settings.num_steps, settings.total_steps) == (8, 256, 5_000_000)
    assert type(algo).__name__ == "A2C"
    assert (algo.learning_rate, algo.ent_coef) == (learning_rate, ent_coef)
    assert (algo.gamma, algo.gae_lambda, algo.vf_coef, algo.max_grad_norm, algo.adam_eps) == (
        0.99,
        0.95,
        0.5,
        0.5,
        1e-8,
    )
    assert not algo.anneal_lr
    assert built.env.params == (160, 1000)
    assert (built.env.env.variant, built.env.env.num_distractors) == ("v2", 6)
    assert (built.policy.head_size, built.policy.head_activation) == (128, "tanh")
    if size:
        assert built.policy.memory.size == size


@pytest.mark.parametrize(("experiment", "sizes"), [("agalite4", {"eta": 4}), ("arelit4", {"eta": 4}),
                         ("agalite8", {"eta": 8}), ("gtrxl64", {"memory_len": 64})])  # fmt: skip
def test_published_mystery_path_hyperparameters(experiment, sizes):
    built = build(compose([f"+mysterypath={experiment}", "task.env_name=MysteryPath-Easy-v0"]))
    settings, algo, memory = built.settings, built.algo, built.policy.memory
    assert (settings.num_envs, settings.num_steps, settings.total_steps) == (128, 128, 150_000_000)
    assert (algo.learning_rate, algo.ent_coef, algo.gamma, algo.gae_lambda) == (2.5e-4, 3e-4, 0.99, 0.95)
    assert (algo.update_epochs, algo.num_minibatches, algo.clip_eps, algo.clip_value) == (3, 8, 0.2, False)
    assert (algo.vf_coef, algo.max_grad_norm, algo.adam_eps, algo.anneal_lr) == (0.5, 5.0, 1e-8, False)
    assert (built.policy.head_size, built.policy.head_activation) == (256, "tanh")
    assert built.env.observation_space.shape == (84, 84, 3) and built.env.action_space.n == 9
    assert type(built.policy.encoder).__name__ == "ConvEncoder"
    assert {name: getattr(memory, name) for name in sizes} == sizes
    assert (memory.num_layers, memory.num_heads, memory.d_model, memory.d_head, memory.d_ffc) == (4, 4, 128, 64, 128)


def test_published_craftax_hyperparameters():
    built = build(compose(["+craftax=agalite"]))
    settings, algo = built.settings, built.algo
    assert (settings.num_envs, settings.num_steps, settings.total_steps) == (1024, 128, 1_000_000_000)
    assert (algo.learning_rate, algo.ent_coef, algo.gamma, algo.gae_lambda) == (4e-4, 0.01, 0.99, 0.8)
    assert (algo.update_epochs, algo.num_minibatches, algo.clip_eps, algo.clip_value) == (4, 8, 0.2, True)
    assert (algo.vf_coef, algo.max_grad_norm, algo.adam_eps, algo.anneal_lr) == (0.5, 1.0, 1e-5, True)
    assert (built.policy.head_size, built.policy.head_activation) == (128, "relu")
    assert built.policy.encoder.sizes == (128,) and built.policy.memory.eta == 8
    assert (built.env.reset_ratio, built.evaluation_env.reset_ratio) == (16, 16)
    assert build(compose(["task=mysterypath", "vector.resets=pool"])).env.resets == "pool"


@pytest.mark.parametrize("task", ["memory_length", "memory_size", "distributed_memory"])
def test_published_bsuite_hyperparameters(task):
    built = build(compose(["+bsuite=gtrxl", f"task.env_name={task}"]))
    algo, memory = built.algo, built.policy.memory
    assert (algo.learning_rate, algo.ent_coef, algo.gamma, algo.gae_lambda) == (1e-3, 0.0, 0.99, 1.0)
    assert algo.max_grad_norm == float("inf")
    assert built.policy.encoder.sizes == (64, 64) and built.policy.head_size is None
    assert (memory.num_layers, memory.num_heads, memory.d_model, memory.d_ffc, memory.memory_len) == (1, 1, 64, 32, 100)


def test_linear_heads():
    policy = build(compose(["policy.head_size=null", "model=gru"])).policy
    obs, reset = jnp.zeros((1, 2, 16)), jnp.zeros((1, 2), bool)
    params = jax.eval_shape(lambda: policy.init(jax.random.key(0), policy.initialize_carry(2), obs, reset))["params"]
    assert {name for name in params if name != "memory"} == {"actor", "critic"}
    assert params["actor"]["kernel"].shape == (128, 4)


def test_the_algorithm_knows_its_length():
    assert build(compose(["total_steps=100000"])).algo.num_updates == 100_000 // (64 * 128)


WRONG = {
    "task.corridr_len=3": "unknown key task.corridr_len; did you mean task.corridor_len?",
    "+task.corridr_len=3": "did you mean task.corridor_len?",
    "mdel=gru": "did you mean model?",
    "nun_envs=3": "did you mean num_envs?",
    "+nun_envs=3": "did you mean num_envs?",
    "+tmaze=agalit": "must be one of agalite, arelit, ",
    "+model=gru": "so write model=gru",
    "hydra.run.dir=x": "Hydra's own settings have no meaning here",
    "~task.corridor_len": "nothing can be deleted",
    "algo.num_steps=64": "algo.num_steps follows from num_steps: set that",
    "+algo.num_updates=7": "algo.num_updates follows from total_steps: set that",
    "task.time_limit=1e10": "task.time_limit must be less than 2147483648",
    "num_seeds=true": "num_seeds must be a number, got True",
    "task.num_distractors=true": "task.num_distractors must be a number, got True",
    "task.time_limit=true": "task.time_limit must be a number, got True",
    "wandb=offline": "wandb is a section: set its values as wandb.NAME=VALUE, got 'offline'",
    "run_dir=": "run_dir: ",
    "tmaze=agalite": "write +tmaze=agalite",
    "model=grru": "did you mean model=gru?",
    "model=null": "model must be one of",
    "~model": "nothing can be deleted",
    "model._target_=no.such.Class": "add --trust no (in Python trust=('no',))",
    "model._target_=src_pure.envs.tmaze.TMaze": "must be a memory model of src_pure.models",
    "num_envs=63": "num_envs must be a multiple of algo.num_minibatches, got 63 and 8",
    "num_envs=0": "num_envs must be greater than 0, got 0",
    "num_envs=1.5": "num_envs must be a valid integer",
    "total_steps=100": "total_steps must be at least num_envs * num_steps = 8,192, got 100",
    "task.corridor_len=257": "corridor_len must be at most 256 in variant v2",
    "task.corridor_len=far": "task.corridor_len must be a valid integer",
    "task.variant=v3": "task.variant must be 'v1' or 'v2', got 'v3'",
    "model.r=0": "model.r must be greater than 0, got 0",
    "model.frequencies=none": "model.frequencies must be 'released', 'paper' or 'delta', got 'none'",
    "algo.gamma=1.5": "algo.gamma must be less than or equal to 1, got 1.5",
    "algo.gamma=nan": "algo.gamma must be",
    "algo.learning_rate=inf": "algo.learning_rate must be",
    "vector.truncation=stop": "vector.truncation must be 'terminate' or 'bootstrap', got 'stop'",
    "algo.truncation=bootstrap": "unknown key algo.truncation; did you mean vector.truncation?",
    "task=craftax task.reset_ratio=4": "unknown key task.reset_ratio; did you mean vector.reset_ratio?",
    "seed=-1": "seed must be greater than or equal to 0, got -1",
    "seed=4294967296": "seed must be less than 2147483648",
    "seed=1,2": "seed must be one value, got 1,2",
    "just words": "just words",
    "wandb.mode=on": "wandb.mode must be 'disabled', 'offline' or 'online', got 'on'",
    "task=mysterypath task.env_name=MysteryPath-Grid-Esay-v0": "env_name must be one of MysteryPath-Grid-Easy-v0, "
    "MysteryPath-Easy-v0, MysteryPath-Grid-v0, MysteryPath-v0, got 'MysteryPath-Grid-Esay-v0'; did you mean "
    "MysteryPath-Grid-Easy-v0?",
    "task=mysterypath +task.variant=grid": "unknown key task.variant",
    "task=mysterypath task.agent_speed=5": "task: agent_speed belongs to the continuous variant",
    "task=mysterypath task.env_name=MysteryPath-v0 task.agent_speed=-1": "task.agent_speed must be greater than",
    "task=mysterypath task.reward_goal=nan": "task.reward_goal must be less than inf, got nan",
    "task=mysterypath task.reward_step=inf": "task.reward_step must be less than inf, got inf",
    "task=mysterypath task.origin_sides=[4]": "origin_sides must name at least one of the sides 0 to 3",
    "task=bsuite task.env_name=memory_len": "distributed_memory, got 'memory_len'; did you mean memory_length?",
    "task=bsuite task.env_name=distributed_memory task.num_bits=4": "num_bits must be odd",
    "task=bsuite task.corridor_len=4": "unknown key task.corridor_len",
    "task=gymnax task.env_name=Cartpole-v0": "got 'Cartpole-v0'; did you mean CartPole-v1?",
    "task=gymnax task.options=3": "task.options must be a valid dictionary, got 3",
    "task=gymnax task.env_name=MemoryChain-bsuite task.options={bits:3}": "task: options of MemoryChain-bsuite must be "
    "one of num_bits, got 'bits'; did you mean num_bits?",
    "task=gymnax task.env_name=MemoryChain-bsuite +task.params.length=3": "must be one of memory_length, got 'length'",
    "task=gymnax task.time_limit=0": "task.time_limit must be greater than 0, got 0",
    "task=craftax task.env_name=Craftax-Classic-v1": "Craftax-Classic-Symbolic-v1, Craftax-Classic-Pixels-v1, got",
    "task=craftax vector.resets=none": "vector.resets must be 'on_demand', 'optimistic' or 'pool', got 'none'",
    "task=craftax vector.reset_ratio=0": "vector.reset_ratio must be greater than 0, got 0",
    "encoder=conv": "encoder: conv needs pixels [width, height, channels], but the task's observation has shape [16]",
    "encoder=craftax": "craftax needs the observation of Craftax-Symbolic-v1, [8268] or packed [843], but the task's",
    "task=craftax task.env_name=Craftax-Classic-Symbolic-v1 encoder=craftax": "observation has shape [1345]; choose",
    "task=craftax task.env_name=Craftax-Classic-Symbolic-v1 task.observation=packed": "set observation=full",
    "task=mysterypath task.observation=symbolic encoder=conv": "observation has shape [152]; choose encoder=mlp",
    "task=mysterypath encoder=conv encoder.kernels=[8,4,10]": "a kernel of 10 is larger than what is left",
    "task=mysterypath encoder=conv encoder.strides=[4,2]": "channels, kernels and strides need one number per layer",
    "task.corridor_len=200 task.time_limit=100": "corridor_len must be at most time_limit",
    "task=mysterypath task.time_limit=5": "time_limit must be at least 6, the steps of the shortest path, got 5",
    "task=gymnax task.env_name=MemoryChain-bsuite +task.params.memory_length=1000": "time_limit must be at least 1001",
    "task=gymnax task.env_name=DeepSea-bsuite +task.options.size=100000": "option size must be at most 100, got",
    "task=bsuite task.env_name=distributed_memory task.num_bits=2147483647": "task.num_bits must be less than 1000",
    "model.num_layers=2147483647": "model.num_layers must be less than 1000",
    "policy=q_network": "algo ppo learns the probabilities of actions, and this policy has none: set policy="
    "actor_critic",
    "policy=q_network algo=a2c": "set policy=actor_critic",
    "algo=pqn": "algo pqn learns the values of discrete actions, and this policy has none: set policy=q_network",
    "task=gymnax task.env_name=Pendulum-v1 policy=q_network algo=pqn": "set policy=actor_critic and algo=ppo or a2c",
    "policy.num_actions=3": "policy.num_actions follows from task: set that",
    "+policy.memory=3": "policy.memory follows from model: set that",
    "policy.head_activation=gelu": "policy.head_activation must be 'tanh' or 'relu', got 'gelu'",
}


@pytest.mark.parametrize("override", WRONG)
def test_wrong_input_is_one_line(override):
    with pytest.raises(ConfigError) as error:
        build(compose(override.split() if "=" in override else [override]))
    message = str(error.value)
    assert WRONG[override] in message
    assert "\n" not in message


def test_keys_of_another_choice_are_unknown():
    """The known keys depend on the groups chosen on the command line."""
    for overrides in (["algo=a2c", "algo.num_minibatches=4"], ["+tmaze=agalite", "algo.clip_eps=0.1"]):
        with pytest.raises(
            ConfigError, match=r"unknown key algo\..*known: algo.adam_eps, algo.anneal_lr, algo.ent_coef"
        ):
            compose(overrides)
    with pytest.raises(ConfigError, match=r"\(known: model.precision, model.size\)"):
        compose(["model=gru", "model.num_layers=2"])


def test_a_resolved_configuration_has_no_groups(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(build(compose([])).config_yaml)
    assert build(compose(["seed=7"], file)).settings.seed == 7
    with pytest.raises(ConfigError, match="a resolved configuration has no groups"):
        compose(["model=gru"], file)


def test_heads_that_do_not_divide():
    with pytest.raises(ConfigError, match=r"d_model must be a multiple of num_heads .* got 128 and 3"):
        build(compose(["model.num_heads=3", "model.d_head=null"]))


def test_algorithm_numbers_are_leaves():
    """Numbers may be traced, sizes may not, so replacing every leaf keeps the structure."""
    algo = build(compose([])).algo
    leaves, structure = jax.tree.flatten(algo)
    assert jax.tree.unflatten(structure, leaves) == algo
    assert len(leaves) == 9
    assert all(a != b for a, b in itertools.pairwise([structure, jax.tree.structure(replace(algo, num_steps=7))]))


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        (["task=tmaze"], 1000),
        (["task=tmaze", "task.variant=v1", "observation.last_action=true"], 5000),
        (["task=tmaze", "task.corridor_len=3", "task.time_limit=7"], 7),
        (["task=mysterypath"], 128),
        (["task=bsuite", "task.memory_length=20000"], 20001),
        (["task=bsuite", "task.env_name=distributed_memory", "task.memory_length=30"], 30),
        (["task=gymnax", "task.env_name=BernoulliBandit-misc"], 100),
        (["task=gymnax", "task.time_limit=20000"], 20000),
        (["task=tmaze", "task._target_=tests.probes.ForeverTMaze"], 10_000),
        (["task=tmaze", "evaluation.max_steps=3"], 3),
    ],
)
def test_evaluation_waits_for_the_end_of_every_episode(options, steps):
    assert build(compose([*options, "model=mlp"]), trust=("tests",)).evaluation_steps == steps
