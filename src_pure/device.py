"""What this process computes with: whether it can be used, and how much fits."""

import os
import resource
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from src_pure.errors import ConfigError, DeviceError

GIB = 2**30
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # version 2, 1
# settings for debugging that break a training which is one program, and what they must be
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
    """Raises ConfigError, with what to change, where jax has no device to compute with or may not compile."""
    import jax  # here, so that reading results starts nothing

    for name, allowed in DEBUGGING.items():
        value = jax.config.values.get(name, allowed[0])
        if value not in allowed:
            raise ConfigError(f"{name.upper()}={value} does not work with a training, which is one program; unset it")
    try:
        jax.devices()
    except (RuntimeError, ValueError) as error:
        platforms = jax.config.jax_platforms
        wanted = f"JAX_PLATFORMS={platforms}" if platforms else "jax"
        raise ConfigError(
            f"{wanted} finds no device: {error}; unset JAX_PLATFORMS or set it to cpu, cuda or tpu, with that extra "
            "of this package installed"
        ) from error


def host_memory() -> int:
    """Bytes of memory that this process may use: what the machine has, or the limit of its container."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    limits += [limit for limit in resource.getrlimit(resource.RLIMIT_AS) if limit > 0]
    for file in CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # "max" is no limit
            limits.append(int(Path(file).read_text()))
    return min(limits)


def device_memory() -> int:
    """Bytes that arrays may take on the device: what its allocator may use, or the memory of the machine."""
    import jax  # as above

    stats = jax.devices()[0].memory_stats() or {}
    return stats.get("bytes_limit", host_memory())


def bytes_of(tree) -> int:
    """Bytes of the arrays of a pytree, or of what ShapeDtypeStructs describe."""
    import jax  # as above

    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def check_fits(needed: int, num_runs: int, what: str, sizes: str = "num_envs, num_steps or model") -> None:
    """Raises ConfigError for more bytes than the device has, with the number of runs that would fit.

    sizes: what makes it large, besides the number of runs.
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
    """What jax raises in the block, while it compiles or runs, becomes an error that says what to change."""
    import jax  # as above

    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        raise device_error(error) from error


def device_error(error: Exception) -> Exception:
    """What jax raised while it compiled or ran, as an error that says what to change."""
    text = str(error)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text or "Out of memory" in text:
        return ConfigError(
            f"out of memory ({device_memory() / GIB:,.1f} GiB in all): {text or 'the machine has no more'}; choose a "
            "smaller num_seeds, num_envs, num_steps or model"
        )
    return DeviceError(f"the device or its compiler failed: {text}")
