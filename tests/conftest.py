"""Fixtures shared by the tests."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

REPOSITORY = Path(__file__).parents[1]
ORACLES = REPOSITORY.parent / "shared" / "oracles"  # next to the repository, not part of it
SAMPLES = REPOSITORY / "tests" / "data"  # a few recorded episodes, part of every clone


for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:  # nohup ignores signals, but tests send them to their processes
        signal.signal(number, handler)
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "1")  # the same numbers, whichever test starts jax
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")  # tests compile longer than they compute


def pytest_addoption(parser):
    parser.addoption("--model", help="check this memory model alone: a file of configs/model, or my.module.Class")


@pytest.fixture(scope="session")
def recording() -> Callable[[str], dict[str, np.ndarray]]:
    """A function from a file's stem to its arrays: the full recording, else its sample; else skips the test."""

    def load(name: str) -> dict[str, np.ndarray]:
        for folder in (ORACLES / "envs", ORACLES, SAMPLES):
            if (folder / f"{name}.npz").exists():
                with np.load(folder / f"{name}.npz") as arrays:
                    return dict(arrays)
        pytest.skip(f"no recording {name}.npz in ../shared/oracles or tests/data")

    return load


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """Compiles a program once, even if several tests, workers or processes started by tests need it.

    JAX_COMPILATION_CACHE_DIR names a folder that several test runs share.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # shared: contains the folders of all workers
    path = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "compilation_cache"))
    seconds = os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    jax.config.update("jax_compilation_cache_dir", path)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", float(seconds))
