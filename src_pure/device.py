"""The device that this process computes on: whether it works, and how much fits into its memory."""

import os
import resource
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from src_pure.errors import ConfigError, DeviceError

GIB = 2**30
DEVICE_COUNT = "xla_force_host_platform_device_count"
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # version 2, 1
# debugging settings that break a training compiled as one program, and their allowed values
DEBUGGING = {
    "jax_disable_jit": (False,),
    "jax_debug_nans": (False,),
    "jax_debug_infs": (False,),
    "jax_debug_key_reuse": (False,),
    "jax_numpy_dtype_promotion": ("standard",),
    "jax_numpy_rank_promotion": ("allow", "warn"),
    "jax_transfer_guard": (None, "allow", "log"),
}


def check_device() -> None:
    """Raises ConfigError if jax finds no device, or if its settings prevent compilation."""
    import jax  # here, because programs that only read results need no jax

    for name, allowed in DEBUGGING.items():
        value = jax.config.values.get(name, allowed[0])
        if value not in allowed:
            raise ConfigError(f"{name.upper()}={value} does not work with a training, which is one program; unset it")
    try:
        jax.local_devices()
    except (RuntimeError, ValueError) as error:
        platforms = jax.config.jax_platforms
        wanted = f"JAX_PLATFORMS={platforms}" if platforms else "jax"
        raise ConfigError(
            f"{wanted} finds no device: {error}; unset JAX_PLATFORMS or set it to cpu, cuda or tpu, with that extra "
            "of this package installed"
        ) from error


def num_cores() -> int:
    """Cores of the machine that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread_over_cores() -> None:
    """Makes each core of a CPU a device of its own, for a training of many runs.

    XLA divides the work of one device between the cores only where arrays are large, so many small runs leave most
    cores idle; docs/results says how much that costs. Nothing happens where the user has set a number of devices
    (JAX_NUM_CPU_DEVICES or XLA_FLAGS), or once jax is in use.
    """
    import jax  # as above

    chosen = jax.config.jax_num_cpu_devices != -1 or DEVICE_COUNT in os.environ.get("XLA_FLAGS", "")
    if not chosen:
        with suppress(RuntimeError):  # too late
            jax.config.update("jax_num_cpu_devices", num_cores())


def host_memory() -> int:
    """Bytes that this process may use: the machine's memory, or a lower limit of the container or process."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    limits += [limit for limit in resource.getrlimit(resource.RLIMIT_AS) if limit > 0]
    for file in CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # "max" means unlimited
            limits.append(int(Path(file).read_text()))
    return min(limits)


def device_memory() -> int:
    """Bytes that arrays may take on each device: the limit of its allocator, or its part of the machine's memory."""
    import jax  # as above

    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit", host_memory() // jax.local_device_count())


def all_memory() -> int:
    """Bytes that arrays may take on all devices of this process together."""
    import jax  # as above

    return device_memory() * jax.local_device_count()


def bytes_of(tree) -> int:
    """Total bytes of the arrays of a pytree; ShapeDtypeStructs count like the arrays that they describe."""
    import jax  # as above

    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def check_fits(needed: int, num_runs: int, what: str, sizes: str = "num_envs, num_steps or model") -> None:
    """Raises ConfigError if the device has fewer bytes than needed; the message names how many runs would fit.

    sizes: the settings, besides the number of runs, that determine how much is needed.
    """
    limit = device_memory()
    if needed <= limit:
        return
    fitting = limit * num_runs // needed
    advice = f"at most num_seeds={fitting} can fit" if 0 < fitting < num_runs else f"choose a smaller {sizes}"
    found = f"{needed / GIB:,.1f} GiB for num_seeds={num_runs:,}, the device has {limit / GIB:,.1f} GiB"
    raise ConfigError(f"{what} needs {found}; {advice}")


@contextmanager
def computing() -> Generator[None]:
    """Turns what jax raises in the block, while compiling or running, into an error that names what to change."""
    import jax  # as above

    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        raise device_error(error) from error


def device_error(error: Exception) -> Exception:
    """The error, naming what to change, for what jax raised while compiling or running."""
    text = str(error)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text or "Out of memory" in text:
        return ConfigError(
            f"out of memory ({all_memory() / GIB:,.1f} GiB in all): {text or 'the machine has no more'}; choose a "
            "smaller num_seeds, num_envs, num_steps or model"
        )
    return DeviceError(f"the device or its compiler failed: {text}")
