"""Everything besides the configuration that affects numbers: versions, the device, settings of jax and XLA."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from src_pure.device import DEVICE_COUNT, num_cores

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "craftax", "gymnax", "src-pure")
FLAGS = (
    "jax_threefry_partitionable",
    "jax_threefry_gpu_kernel_lowering",
    "jax_random_seed_offset",
    "jax_high_dynamic_range_gumbel",
    "jax_default_matmul_precision",
    "jax_enable_x64",
    "jax_numpy_dtype_promotion",
    "jax_allow_f16_reductions",
    "jax_softmax_custom_jvp",
    "jax_use_hlo_logistic_lowering",
    "jax_use_direct_linearize",
    "jax_optimization_level",
    "jax_memory_fitting_level",
    "jax_disable_most_optimizations",
    "jax_compiler_enable_remat_pass",
    "jax_enable_pgle",
)
VARIABLES = ("LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE")
HARMLESS_XLA_FLAGS = ("--xla_dump", "--xla_hlo_profile", f"--{DEVICE_COUNT}")


def numeric_settings() -> dict[str, Any]:
    """Every setting of this process that may affect the numbers of a training, by name; values fit into JSON."""
    device = jax.local_devices()[0]
    values = jax.config.values  # process-wide; attributes also reflect contexts, but some flags have none
    flags = {name: _plain(getattr(jax.config, name, values.get(name))) for name in FLAGS}
    variables = {name: os.environ.get(name) for name in VARIABLES}
    return {
        **{f"version of {name}": _version(name) for name in PACKAGES},
        "platform": device.platform,
        "threads": num_cores() if device.platform == "cpu" else None,  # XLA splits sums by the number of threads
        "device_kind": _cpu_model() if device.platform == "cpu" else device.device_kind,
        **flags,
        **variables,
        "XLA_FLAGS": xla_flags(os.environ.get("XLA_FLAGS", "")),
    }


def xla_flags(text: str) -> str:
    """The flags that may affect numbers, sorted; the last of repeated flags counts."""
    flags = dict(flag.partition("=")[::2] for flag in text.split() if not flag.startswith(HARMLESS_XLA_FLAGS))
    return " ".join(f"{name}={value}" if value else name for name, value in sorted(flags.items()))


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """One line for each setting that has changed."""
    names = sorted(before | now)
    return [f"{name} is {now.get(name)!r}, was {before.get(name)!r}" for name in names
            if now.get(name) != before.get(name)]  # fmt: skip


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    """The model of the processor: XLA compiles for its instruction set, and others round differently."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "CPU part")))
    return next(models, platform.machine())
