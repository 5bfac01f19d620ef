"""Whether two checkouts train bit for bit alike: python scripts/compare_checkouts.py --before PATH --after PATH

Each checkout trains the same small configurations with its own code, in this Python, and compiles its own programs.
Every column of the tables and every array of the last checkpoint is compared bit by bit; NaN equals NaN. Exit codes: 0
if all bits are equal, 1 if any differs.
"""

if __name__ == "__main__":
    from src_pure.interrupt import imported  # first: from here on Ctrl-C prints one line instead of a traceback

import os
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import pandas as pd

from src_pure.errors import ConfigError, Parser, guarded

SMALL = "num_envs=8 num_steps=16 total_steps=768 policy.head_size=16 checkpoint.metric=null"
# every episode ends by itself, because old commits count episodes that are cut off differently
SMALL_EVALUATION = "evaluation.num_episodes=8 evaluation.interval=3 evaluation.max_steps=40"
PPO, A2C = "algo=ppo algo.num_minibatches=2 algo.update_epochs=2", "algo=a2c"
ONE_LAYER = "model.d_model=16 model.num_heads=2 model.d_head=8 model.d_ffc=16"
LAYERS = f"model.num_layers=2 {ONE_LAYER}"
WINDOW = "model.memory_len=8"
TMAZE = "task=tmaze task.corridor_len=5 task.time_limit=20"
MYSTERY_PATH = "task=mysterypath task.time_limit=24"
CASES = {
    "tmaze v1, agalite, ppo, bootstrap, 2 seeds": (
        f"task=tmaze task.variant=v1 task.corridor_len=5 task.time_limit=6 model=agalite {LAYERS} {PPO} "
        "vector.truncation=bootstrap num_seeds=2"
    ),
    "tmaze v2, agalite paper r 3, a2c": (
        f"{TMAZE} model=agalite model.num_layers=1 {ONE_LAYER} model.frequencies=paper model.r=3 {A2C}"
    ),
    "tmaze v2, galite, a2c, annealed, 2 seeds": (
        f"{TMAZE} model=galite model.num_layers=1 {ONE_LAYER} {A2C} algo.anneal_lr=true num_seeds=2"
    ),
    "tmaze v2, gtrxl, ppo, bfloat16": f"{TMAZE} model=gtrxl {LAYERS} {WINDOW} model.precision=bfloat16 {PPO}",
    "tmaze v2, gru, ppo, no hidden layer in the heads": f"{TMAZE} model=gru model.size=8 {PPO} policy.head_size=null",
    "memory length, trxl, a2c": f"task=bsuite task.memory_length=4 model=trxl {LAYERS} {WINDOW} {A2C}",
    "memory size, transformer, ppo": (
        f"task=bsuite task.env_name=memory_size task.num_bits=3 model=transformer {LAYERS} {WINDOW} {PPO}"
    ),
    "distributed memory, rezero, a2c": (
        f"task=bsuite task.env_name=distributed_memory model=rezero {LAYERS} {WINDOW} {A2C}"
    ),
    "mystery path grid, pixels, gru, ppo, pool": (
        f"{MYSTERY_PATH} encoder=conv encoder.channels=[4] encoder.kernels=[8] encoder.strides=[8] model=gru "
        f"model.size=8 {PPO} vector.resets=pool vector.reset_ratio=4"
    ),
    "mystery path, pixels, mlp, a2c, pool": (
        f"{MYSTERY_PATH} task.env_name=MysteryPath-Easy-v0 encoder=conv encoder.channels=[4] encoder.kernels=[8] "
        f"encoder.strides=[8] model=mlp model.size=8 {A2C} vector.resets=pool vector.reset_ratio=2"
    ),
    "mystery path, symbolic, universal, ppo, optimistic": (
        f"{MYSTERY_PATH} task.env_name=MysteryPath-v0 task.observation=symbolic model=universal {ONE_LAYER} {WINDOW} "
        f"model.max_iterations=3 {PPO} vector.resets=optimistic vector.reset_ratio=4"
    ),
    "mystery path grid, symbolic, integrated, a2c, last action and reward": (
        f"{MYSTERY_PATH} task.env_name=MysteryPath-Grid-v0 task.observation=symbolic model=integrated {ONE_LAYER} "
        f"{WINDOW} model.max_iterations=3 {A2C} observation.last_action=true observation.last_reward=true"
    ),
    "craftax classic, lstm, ppo": (
        "task=craftax task.env_name=Craftax-Classic-Symbolic-v1 task.time_limit=30 encoder=mlp encoder.sizes=[16] "
        f"model=lstm model.size=8 {PPO}"
    ),
    "cartpole, galite released post_norm, ppo, annealed, bootstrap": (
        f"task=gymnax task.env_name=CartPole-v1 task.time_limit=12 model=galite {LAYERS} model.decay=released "
        f"model.residual=post_norm {PPO} algo.anneal_lr=true algo.clip_value=true vector.truncation=bootstrap"
    ),
    # one episode, because old commits sum the returns of several in another order
    "pendulum, mlp, ppo": (
        f"task=gymnax task.env_name=Pendulum-v1 task.time_limit=20 model=mlp {PPO} evaluation.num_episodes=1"
    ),
}
# key: (its name in commits older than this script, {value: its old name})
RENAMED = {
    "vector.truncation": ("algo.truncation", {}),
    "vector.resets": ("task.resets", {}),
    "vector.reset_ratio": ("task.reset_ratio", {}),
    "model.residual": ("model.block", {"gated": "gtrxl", "pre_norm": "trxl", "post_norm": "post-ln"}),
}


@guarded
def main(command_line: Sequence[str] | None = None) -> int:
    """0 if all bits are equal, else 1."""
    parser = Parser(description="Whether two checkouts train bit for bit alike.")
    parser.add_argument("--before", type=Path, help="one checkout")
    parser.add_argument("--after", type=Path, help="the other")
    parser.add_argument("--only", default="", help="configurations whose name holds this text")
    parser.add_argument("--keep", type=Path, help="a new folder for the trained runs (default: they are removed)")
    options = parser.parse_args(command_line)
    if options.before is None or options.after is None:
        parser.error("--before and --after must both name a checkout")
    for checkout in (options.before, options.after):
        if not (checkout / "trainer_pure.py").is_file():
            raise ConfigError(f"{checkout} must be a checkout of this project; it has no trainer_pure.py")
    cases = {name: overrides for name, overrides in CASES.items() if options.only in name}
    if not cases:
        raise ConfigError(f"--only must be part of a configuration's name, got {options.only!r}: {'; '.join(CASES)}")
    total = 0
    for number, (name, overrides) in enumerate(cases.items(), 1):
        with folder_of_runs(options.keep and options.keep / str(number)) as folder:
            runs = train_both([options.before, options.after], overrides.split(), folder)
            found = differing_bits(*(contents(run) for run in runs))
        total += sum(found.values())
        listed = "".join(f"\n    {place}: {bits:,}" for place, bits in found.items() if bits)
        print(f"{sum(found.values()):>12,} differing bits in {len(found)} arrays  {name}{listed}", flush=True)
    print(f"{total:>12,} in all")
    return int(total > 0)


@contextmanager
def folder_of_runs(kept: Path | None) -> Generator[Path]:
    """A new folder; None: a temporary one, deleted afterwards."""
    if kept is not None:
        kept.mkdir(parents=True)
        yield kept.resolve()
        return
    with TemporaryDirectory() as folder:
        yield Path(folder)


def train_both(checkouts: Sequence[Path], overrides: Sequence[str], folder: Path) -> list[Path]:
    """The run folders of both checkouts, which train at the same time."""
    runs = [folder / "before", folder / "after"]
    with ExitStack() as stack:
        processes = [start(checkout, overrides, run) for checkout, run in zip(checkouts, runs, strict=True)]
        for process in processes:
            stack.callback(process.kill)  # also after Ctrl-C
        outputs = [process.communicate()[0] for process in processes]
    for checkout, process, output in zip(checkouts, processes, outputs, strict=True):
        if process.returncode:
            raise ConfigError(f"{checkout} does not train {' '.join(overrides)}: {output.strip()[-1000:]}")
    return runs


def start(checkout: Path, overrides: Sequence[str], run: Path) -> subprocess.Popen:
    """The started training of a checkout, which compiles its own program."""
    checkout = checkout.resolve()
    command = [
        sys.executable,
        "trainer_pure.py",
        *written_for(checkout, [*SMALL.split(), *SMALL_EVALUATION.split(), *overrides]),
        f"run_dir={run}",
    ]
    environment = os.environ | {"PYTHONPATH": str(checkout), "JAX_ENABLE_COMPILATION_CACHE": "false"}
    return subprocess.Popen(
        command, cwd=checkout, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def written_for(checkout: Path, overrides: Sequence[str]) -> list[str]:
    """The overrides, with keys and values renamed to those that a checkout knows."""
    config = (checkout / "configs/config.yaml").read_text()
    written = []
    for override in overrides:
        key, _, value = override.partition("=")
        section, _, field = key.partition(".")
        if section == "model" and field:
            model = next(x for x in overrides if x.startswith("model=")).removeprefix("model=")
            known = f"\n{field}:" in (checkout / f"configs/model/{model}.yaml").read_text()
        else:
            known = not field or f"\n{section}:" in config
        if key in RENAMED and not known:
            key, values = RENAMED[key]
            value = values.get(value, value)
        written.append(f"{key}={value}")
    return written


def contents(run: Path) -> dict[str, np.ndarray]:
    """Every column of a run folder's two tables and every array of its last checkpoint, by name."""
    found = {}
    for table in ("metrics", "evaluation"):
        frame = pd.read_parquet(run / f"{table}.parquet")
        found |= {f"{table}.{name}": column.to_numpy() for name, column in frame.items()}
    last = max(
        (path for path in (run / "checkpoints").iterdir() if path.name.isdigit()), key=lambda path: int(path.name)
    )
    state = ocp.Checkpointer(ocp.StandardCheckpointHandler()).restore((last / "state").absolute())
    return found | {f"checkpoint.{name}": np.asarray(x) for name, x in state.items()}


def differing_bits(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> dict[str, int]:
    """The number of differing bits of each array; all of its bits if a side lacks it or has another shape or dtype.

    NaN equals NaN. Text counts one per differing value.
    """
    found = {}
    for name in sorted(set(before) | set(after)):
        arrays: list[Any] = [side.get(name) for side in (before, after)]
        if any(x is None for x in arrays) or len({(x.shape, x.dtype) for x in arrays}) > 1:
            found[name] = max(8 * x.nbytes or 1 for x in arrays if x is not None)
        elif arrays[0].dtype == object:
            both_missing = pd.isna(arrays[0]) & pd.isna(arrays[1])
            found[name] = int(np.sum((arrays[0] != arrays[1]) & ~both_missing))
        else:
            found[name] = int(np.bitwise_count(bits(arrays[0]) ^ bits(arrays[1])).sum())
    return found


def bits(array: np.ndarray) -> np.ndarray:
    """The bytes of an array, with the same pattern for every NaN."""
    if array.dtype.kind in "fV":  # V is the kind of bfloat16
        array = np.where(array != array, np.array(np.nan, array.dtype), array)
    return np.frombuffer(array.tobytes(), np.uint8)


if __name__ == "__main__":
    imported()
    sys.exit(main())
