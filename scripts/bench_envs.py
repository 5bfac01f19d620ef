"""Speed of the environments alone: python scripts/bench_envs.py [--calls N] [--only TEXT]

Plays random actions in one jitted scan of 128 steps: without resets as the baseline, then with every reset method of
the task, all in the same process. Reports medians of several calls after a warm-up. The variants of a task take turns,
so that other load on the machine affects all of them alike.
"""

if __name__ == "__main__":
    from src_pure.interrupt import imported  # first: from here on Ctrl-C prints one line instead of a traceback

import statistics
import sys
import time
from collections.abc import Callable, Sequence

import jax
from jax import lax

from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.device import check_device
from src_pure.envs.optional import Observes
from src_pure.envs.vector import VectorEnv
from src_pure.errors import ConfigError, Parser, between, guarded
from src_pure.types import Array, Key

NUM_STEPS = 128
RESETS = ("on_demand", "optimistic", "pool")
CASES = {
    "T-Maze v2, 160": ["task=tmaze", "task.corridor_len=160", "num_envs=1024"],
    "MemoryChain": ["task=bsuite", "num_envs=1024"],
    "Mystery Path grid, pixels": ["task=mysterypath", "encoder=conv", "num_envs=1024"],
    "Mystery Path, pixels": [
        "task=mysterypath",
        "task.env_name=MysteryPath-Easy-v0",
        "encoder=conv",
        "num_envs=1024",
    ],
    "Memory Maze 9x9, pixels": ["task=memorymaze", "encoder=conv", "num_envs=256"],
    "Memory Maze 9x9, flat colours": ["task=memorymaze", "task.textures=false", "encoder=conv", "num_envs=256"],
    "Memory Maze 9x9, symbolic": ["task=memorymaze", "task.observation=symbolic", "num_envs=256"],
    "Craftax-Classic-Symbolic": ["task=craftax", "task.env_name=Craftax-Classic-Symbolic-v1", "num_envs=64"],
    "Craftax-Symbolic": ["task=craftax", "num_envs=64"],
}


def step_without_resets(env: VectorEnv, key: Key, state, action: Array):
    """(state, obs [B, ...], reward [B]) after a step that ignores whether episodes have ended."""
    keys = jax.random.split(key, env.num_envs)
    obs, env_state, reward, *_ = jax.vmap(env.env.step_env, in_axes=(0, 0, 0, None))(
        keys, state.env, action, env.params
    )
    if isinstance(env.env, Observes):
        obs = jax.vmap(env.env.observe, in_axes=(0, None))(env_state, env.params)
    return state._replace(env=env_state), obs, reward


def step_with_resets(env: VectorEnv, key: Key, state, action: Array):
    """(state, obs [B, ...], reward [B]) after a step as training takes it."""
    state, timestep = env.step(key, state, action)
    return state, timestep.obs, timestep.reward


def prepare(env: VectorEnv, env_step: Callable) -> tuple[float, Callable[[], float]]:
    """(compile seconds, a function that plays 128 more steps and returns environment steps per second)."""

    def step(loop, key):
        state, _ = loop
        key_action, key_step = jax.random.split(key)
        action = jax.random.randint(key_action, (env.num_envs,), 0, env.action_space.flat.shape[0])
        state, obs, reward = env_step(env, key_step, state, action)
        return (state, obs), reward.sum()

    def rollout(loop, key):
        key_refresh, key_steps = jax.random.split(key)
        state, obs = loop
        loop = env.refresh(key_refresh, state), obs
        return lax.scan(step, loop, jax.random.split(key_steps, NUM_STEPS))

    state, timestep = jax.jit(env.reset)(jax.random.key(0))
    loop, key = (state, timestep.obs), jax.random.key(1)
    start = time.perf_counter()
    program = jax.jit(rollout, donate_argnums=0).lower(loop, key).compile()
    compile_seconds = time.perf_counter() - start

    def play() -> float:
        nonlocal loop, key
        key, key_rollout = jax.random.split(key)
        start = time.perf_counter()
        loop, _ = jax.block_until_ready(program(loop, key_rollout))
        return env.num_envs * NUM_STEPS / (time.perf_counter() - start)

    return compile_seconds, play


@guarded
def main(command_line: Sequence[str] | None = None) -> int:
    """0 once everything is measured."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=between(int, 1, 10_000), default=5, help="timed calls of 128 steps each (5)")
    parser.add_argument("--only", default="", help="tasks whose name contains this")
    options = parser.parse_args(command_line)
    names = [name for name in CASES if options.only.lower() in name.lower()]
    if not names:
        raise ConfigError(f"--only must be part of one of: {'; '.join(CASES)}; got {options.only!r}")
    check_device()
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}, random actions")
    print(f"{'':38}{'envs':>6}{'compile s':>10}{'steps/s':>12}{'of the baseline':>16}")
    for name in names:
        env = build(compose(CASES[name])).env
        variants = {"no resets": prepare(env, step_without_resets)}
        for resets in RESETS if env.reset_ratio > 1 else ("on_demand",):
            variants[resets] = prepare(env.replace(resets=resets), step_with_resets)
        speeds = {variant: [] for variant in variants}
        for _ in range(1 + options.calls):
            for variant, (_, play) in variants.items():
                speeds[variant].append(play())
        median = {variant: statistics.median(speed[1:]) for variant, speed in speeds.items()}
        for variant, (seconds, _) in variants.items():
            ratio = median[variant] / median["no resets"]
            label = f"{name}, {variant}"
            print(f"{label:38}{env.num_envs:6}{seconds:10.1f}{median[variant]:12,.0f}{ratio:16.2f}", flush=True)
    return 0


if __name__ == "__main__":
    imported()
    sys.exit(main())
