"""Compiling ahead of time: what the compilation cache held, and whether a program fits into memory."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import jax

from src_pure.device import check_fits

REQUEST, HIT = (f"/jax/compilation_cache/{name}" for name in ("compile_requests_use_cache", "cache_hits"))


@dataclass
class CacheUse:
    """How many programs the compilation cache held, and how many it lacked; both 0 where it is switched off."""

    hits: int = 0
    misses: int = 0

    def as_dict(self) -> dict[str, int]:
        return asdict(self)

    def count(self, event: str, **_: Any) -> None:
        """Counts one event of jax: a request, which counts as a miss, or afterwards its hit."""
        self.hits += event == HIT
        self.misses += (event == REQUEST) - (event == HIT)


@contextmanager
def counting() -> Generator[CacheUse]:
    """Counts the programs that are compiled in the block."""
    use = CacheUse()
    jax.monitoring.register_event_listener(use.count)
    try:
        yield use
    finally:
        jax.monitoring.unregister_event_listener(use.count)


def compile_fitting(
    program: jax.stages.Lowered, others: int, num_runs: int, what: str, sizes: str
) -> jax.stages.Compiled:
    """The compiled program; raises ConfigError if it needs more memory than the device has.

    others: bytes that are on the device besides what the program takes and gives.
    """
    compiled = program.compile()
    check_fits(bytes_needed(compiled) + others, num_runs, what, sizes)
    return compiled


def bytes_needed(compiled: jax.stages.Compiled) -> int:
    """Bytes of the arguments, results and temporaries of a call; what results take over from arguments counts once."""
    needed: Any = compiled.memory_analysis()  # jax types it loosely
    total = needed.argument_size_in_bytes + needed.output_size_in_bytes + needed.temp_size_in_bytes
    return total - needed.alias_size_in_bytes
