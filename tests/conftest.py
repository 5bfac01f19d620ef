"""Fixtures shared by the tests."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).parents[1]
RECORDINGS = REPOSITORY.parent / "shared" / "oracles" / "envs"  # beside the repository, not in it
SAMPLES = REPOSITORY / "tests" / "data"  # a few recorded episodes that every clone has


@pytest.fixture(scope="session")
def recording() -> Callable[[str], dict[str, np.ndarray]]:
    """A function from a file's stem to its arrays: the whole recording, else its sample, else the test is skipped."""

    def load(name: str) -> dict[str, np.ndarray]:
        for folder in (RECORDINGS, SAMPLES):
            if (folder / f"{name}.npz").exists():
                with np.load(folder / f"{name}.npz") as arrays:
                    return dict(arrays)
        pytest.skip(f"no recording {name}.npz in ../shared/oracles/envs or tests/data")

    return load
