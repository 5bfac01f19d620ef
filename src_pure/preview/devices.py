"""Accelerators that need not be there: what their data sheets say, and what XLA must know to compile for them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from src_pure.device import GIB
from src_pure.errors import ConfigError

ALLOCATED = 0.75  # of a GPU's memory, which jax sets aside for arrays unless it is asked for another part
LAUNCH_SECONDS = 3e-6  # from one small kernel to the next on a GPU: typical; data sheets do not say
FULL, ROUNDED, BFLOAT16, ELEMENTWISE = "float32", "rounded float32", "bfloat16", "elementwise"


@dataclass(frozen=True)
class Device:
    """One kind of accelerator; rates are the highest that its data sheet promises, without sparsity."""

    name: str  # as jax calls it
    platform: str  # as jax calls it: gpu or tpu
    memory: int  # bytes that arrays may take
    bandwidth: float  # bytes per second, of its memory
    rates: Mapping[str, float]  # operations per second of each kind
    launch_seconds: float
    cache: int  # bytes that it keeps between kernels without being asked to
    topology: str  # of several devices; of a GPU its text for the compiler


@dataclass(frozen=True)
class Target:
    """What to compile for: a number of devices of one kind."""

    text: str  # as it was typed
    device: Device
    topology: str
    number: int | None  # None: all of the topology


@dataclass(frozen=True)
class Chip:
    """What XLA wants to know of an NVIDIA GPU, beside its memory."""

    capability: int
    cores: int  # streaming multiprocessors
    float32_units: int  # of each core
    shared_memory: int  # bytes of each core
    clock: float  # GHz
    cache: int  # bytes of level 2

    def described(self, name: str, memory: int, bandwidth: float) -> str:
        """XLA's GpuTargetConfig of a GPU, as text."""
        return f"""
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: {self.shared_memory}
  shared_memory_per_block_optin: {self.shared_memory - 1024}
  core_count: {self.cores} fpus_per_core: {self.float32_units} clock_rate_ghz: {self.clock}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth:.0f} l2_cache_size: {self.cache} device_memory_size: {memory}
  cuda_compute_capability {{ major: {self.capability} }}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 8 }}
device_description_str: "{name}"
"""


AMPERE = Chip(capability=8, cores=108, float32_units=64, shared_memory=167936, clock=1.41, cache=41943040)
HOPPER = Chip(capability=9, cores=132, float32_units=128, shared_memory=233472, clock=1.98, cache=52428800)
AMPERE_RATES = {FULL: 19.5e12, ROUNDED: 156e12, BFLOAT16: 312e12, ELEMENTWISE: 19.5e12}
HOPPER_RATES = {FULL: 67e12, ROUNDED: 494e12, BFLOAT16: 989e12, ELEMENTWISE: 67e12}


def _gpu(name: str, chip: Chip, rates: Mapping[str, float], memory: int, bandwidth: float) -> Device:
    text = chip.described(name, memory, bandwidth)
    return Device(name, "gpu", int(memory * ALLOCATED), bandwidth, rates, LAUNCH_SECONDS, chip.cache, text)


def _tpu(name: str, gib: float, bandwidth: float, bfloat16: float, vector_units: int, clock: float, topology: str):
    """gib: of memory that the compiler allows; vector_units: of the chip, each 8 x 128 lanes wide; clock in Hz.

    A product of float32 in full precision is six of bfloat16. A program is one sequence of instructions on the chip: no
    host launches its kernels.
    """
    rates = {FULL: bfloat16 / 6, ROUNDED: bfloat16, BFLOAT16: bfloat16, ELEMENTWISE: 8 * 128 * vector_units * clock}
    return Device(name, "tpu", int(gib * GIB), bandwidth, rates, 0.0, 0, topology)


# GPUs: NVIDIA's data sheets of the SXM boards. TPUs: docs.cloud.google.com/tpu; vector units: 4 of each core, from
# "How to Scale Your Model" (jax-ml.github.io/scaling-book).
DEVICES = {
    "a100": _gpu("NVIDIA A100-SXM4-80GB", AMPERE, AMPERE_RATES, 84987740160, 2.039e12),
    "h100": _gpu("NVIDIA H100 80GB HBM3", HOPPER, HOPPER_RATES, 84942979072, 3.352e12),
    "h200": _gpu("NVIDIA H200", HOPPER, HOPPER_RATES, 150754820096, 4.8e12),
    "v4": _tpu("TPU v4", 30.75, 1.228e12, 275e12, 8, 1.05e9, "2x2x1"),
    "v5e": _tpu("TPU v5 lite", 15.75, 0.819e12, 197e12, 4, 1.5e9, "2x2"),
    "v5p": _tpu("TPU v5", 95.74, 2.765e12, 459e12, 8, 1.75e9, "2x2x1"),
    "v6e": _tpu("TPU v6 lite", 31.25, 1.64e12, 918e12, 4, 1.75e9, "2x2"),
}


def target_of(text: str) -> Target:
    """The target that a user named, such as h100, h100:8, v5e or v5e:2x2; raises ConfigError that lists the kinds."""
    kind, colon, size = text.partition(":")
    device = DEVICES.get(kind)
    pattern = r"[1-9]\d{0,2}" if device and device.platform == "gpu" else r"[1-9]\d?(x[1-9]\d?){1,2}"
    if device is None or (colon and not re.fullmatch(pattern, size)):
        raise ConfigError(
            f"the device must be one of {', '.join(DEVICES)}; several GPUs are such as h100:8, several TPU chips such "
            f"as v5e:2x2 or v4:2x2x1; got {text[:100]!r}"
        )
    if device.platform == "gpu":
        return Target(text, device, f"1x1x{size or 1}", int(size or 1))
    return Target(text, device, f"{kind}:{size or device.topology}", None if size else 1)
