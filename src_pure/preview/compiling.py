"""A training compiled for a device that need not be there: XLA wants to know the device, not to have it."""

import os
import re
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import jax
from jax.experimental import topologies
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import NamedSharding, PartitionSpec

from src_pure.device import GIB, bytes_of
from src_pure.errors import ConfigError, one_line
from src_pure.experiment import Experiment
from src_pure.preview.counting import Counted, count
from src_pure.preview.devices import Device, Target
from src_pure.preview.hlo import parse
from src_pure.runs.arrays import numbers_of
from src_pure.runs.blocks import SHARE, Blocks, blocks_on, lanes_in
from src_pure.runs.compilation import bytes_needed
from src_pure.runs.mesh import EACH
from src_pure.runs.program import trace

PACKAGES = {"gpu": ("jax_plugins.xla_cuda12", "nvidia.cuda_nvcc"), "tpu": ("libtpu",)}  # the compilers
LOWERED_FOR = {"gpu": "cuda", "tpu": "tpu"}
# libtpu would ask the cloud's metadata server which machine this is, and wait for an answer
WITHOUT_TPU = {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost", "TPU_ACCELERATOR_TYPE": "v5litepod-4"}
EXHAUSTED = re.compile(r"Used ([\d.]+)([KMG]) of")
UNIT = {"K": 2**10, "M": 2**20, "G": 2**30}


@dataclass(frozen=True)
class Cost:
    """What one compiled program takes and does."""

    compile_seconds: float
    argument_bytes: int
    temporary_bytes: int
    needed_bytes: int  # arguments, results and temporaries together
    counted: Counted


@dataclass(frozen=True)
class Preview:
    """A training on a device that need not be there."""

    name: str
    target: Target
    num_devices: int
    num_lanes: int
    num_blocks: int
    block: int  # lanes of a block on all devices
    width: int  # lanes of a block on each device
    env_steps: int  # of one update of one lane
    lane_bytes: int  # of the state and metrics of a lane that waits for its turn, on its device
    training: Cost | None  # one update of one block
    evaluation: Cost | None  # of one block; loops until episodes end count as one step

    @property
    def lanes_at_once(self) -> int:
        """About how many lanes of one block fit into the memory of a device."""
        assert self.training is not None
        return self.target.device.memory * self.width // self.training.needed_bytes

    @property
    def lanes_in_turns(self) -> int:
        """How many lanes fit into the memory of a device in blocks like this one."""
        assert self.training is not None
        room = self.target.device.memory - self.training.needed_bytes
        return self.width + max(0, room // self.lane_bytes)


class PlacedBlocks(Blocks):
    """Blocks whose arrays have a place on a single device too: jax could not put them anywhere."""

    def place(self, spec: PartitionSpec = EACH) -> NamedSharding:
        return NamedSharding(self.mesh, spec)


def require(device: Device) -> None:
    """Raises ConfigError that names the extra to install if the compiler for a device is missing."""
    if missing := [name for name in PACKAGES[device.platform] if not _is_installed(name)]:
        raise ConfigError(
            f"compiling for {device.name} needs {missing[0]}, which is not installed: uv pip install "
            f"'.[preview-{device.platform}]'"
        )


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # its parent
        return False


def devices_of(target: Target) -> Sequence[jax.Device]:
    """The devices of a target, for which jax can compile but on which it cannot compute."""
    require(target.device)
    try:
        if target.device.platform == "gpu":
            options: Any = {"topology": target.topology, "target_config": target.device.topology}
            found = topologies.get_topology_desc(platform="cuda", topology_name=target.text, **options)
        else:
            os.environ.update({name: value for name, value in WITHOUT_TPU.items() if name not in os.environ})
            found = topologies.get_topology_desc(platform="tpu", topology_name=target.topology)
    except (jax.errors.JaxRuntimeError, NotImplementedError, ValueError) as error:
        raise ConfigError(f"{target.text} cannot be compiled for: {one_line(error)}") from error
    return found.devices[: target.number]


def blocks_for(experiment: Experiment, target: Target) -> Blocks:
    """How the lanes are divided on the devices of a target, as a new training there would do it."""
    most = lanes_in(target.device.memory // SHARE, experiment)
    blocks = blocks_on(devices_of(target), experiment, most=most)
    return PlacedBlocks(blocks.num_lanes, blocks.width, blocks.mesh) if type(blocks) is Blocks else blocks


def preview(experiment: Experiment, target: Target, training: bool = True, evaluation: bool = True) -> Preview:
    """The Preview of an experiment; raises ConfigError, with what would fit, if the device has too little memory.

    training, evaluation: which of the two programs to compile.
    """
    blocks = blocks_for(experiment, target)
    with jax.enable_x64(False):
        traced = trace(experiment, blocks)
    others = traced.bytes_of_block * (len(blocks) - 1)
    check_room(experiment, target, blocks, traced.bytes_of_block + others, 0)
    return Preview(
        name=experiment.name,
        target=target,
        num_devices=blocks.mesh.size,
        num_lanes=blocks.num_lanes,
        num_blocks=len(blocks),
        block=blocks.size,
        width=blocks.width,
        env_steps=experiment.settings.steps_per_update,
        lane_bytes=bytes_of(jax.tree.map(numbers_of, traced.state)) // blocks.shares // blocks.width,
        training=cost(traced.segment, experiment, target, blocks, others, True) if training else None,
        evaluation=cost(traced.evaluate, experiment, target, blocks, others, False) if evaluation else None,
    )


def cost(
    traced: jax.stages.Traced, experiment: Experiment, target: Target, blocks: Blocks, others: int, is_loop: bool
) -> Cost:
    """What a program costs; others: bytes of the blocks that wait; is_loop: count one turn of its loop over updates."""
    started = time.perf_counter()
    lowered = traced.lower(lowering_platforms=(LOWERED_FOR[target.device.platform],))
    try:
        with uncached():
            compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if used := EXHAUSTED.search(str(error)):
            check_room(experiment, target, blocks, int(float(used[1]) * UNIT[used[2]]), others)
        raise
    seconds = time.perf_counter() - started
    needed, memory = bytes_needed(compiled), compiled.memory_analysis()
    check_room(experiment, target, blocks, needed, others)
    memory: Any = memory  # jax types it loosely
    counted = count(parse(compiled.as_text() or ""), is_loop)
    return Cost(seconds, memory.argument_size_in_bytes, memory.temp_size_in_bytes, needed, counted)


@contextmanager
def uncached() -> Generator[None]:
    """Compiles in the block without jax's cache, which cannot load programs for a device that is not there."""
    before = jax.config.jax_enable_compilation_cache
    try:
        jax.config.update("jax_enable_compilation_cache", False)
        compilation_cache.reset_cache()  # jax decides once whether it uses the cache, and forgets it here
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def check_room(experiment: Experiment, target: Target, blocks: Blocks, needed: int, others: int) -> None:
    """Raises ConfigError if a device has fewer bytes than the block and the blocks that wait need; says what fits."""
    memory = target.device.memory
    if needed + others <= memory:
        return
    if others and needed <= memory:
        per_lane = others / (len(blocks) - 1) / blocks.width
        advice = f"about num_seeds={int(blocks.size + blocks.shares * (memory - needed) / per_lane):,} would fit"
    elif (lanes := memory * blocks.width // needed) >= 1:
        advice = f"about lanes_per_block={lanes:,} would fit"
    elif (envs := memory * blocks.width * experiment.settings.num_envs // needed) >= 1:
        advice = f"about num_envs={envs:,} would fit" + (" with lanes_per_block=1" if blocks.width > 1 else "")
    else:
        advice = "choose a smaller num_steps or model"
    found = f"{(needed + others) / GIB:,.1f} GiB for {blocks.num_lanes:,} lanes, {blocks.width:,} of them at a time"
    raise ConfigError(f"{experiment.name} needs {found}, {target.text} has {memory / GIB:,.1f} GiB; {advice}")
