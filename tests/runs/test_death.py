"""Processes that are killed at random moments, and checkpoints damaged at random places."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from src_pure.runs.checkpoint import Checkpoints, newest
from src_pure.runs.sealed import CheckpointError
from tests.conftest import REPOSITORY
from tests.runs.test_checkpoint import assert_equal, make_state, save
from tests.runs.test_resume import assert_same_run
from tests.test_command_line import TINY

LONG = [*TINY, "num_seeds=2", "total_steps=192000", "evaluation.interval=500", "log_seconds=0.3"]  # 3,000 updates
OFTEN = ["checkpoint.minutes=0.005"]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A function that starts a training in a process of its own; all share compiled programs."""
    cache = tmp_path_factory.mktemp("cache")
    small = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}

    def start(folder, *options):
        command = [sys.executable, "trainer_pure.py", *LONG, *OFTEN, f"run_dir={folder}", *options]
        environment = os.environ | {name: str(value) for name, value in small.items()}
        return subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL)

    return start


@pytest.fixture(scope="module")
def unbroken(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    assert start(folder).wait(600) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("number", "times"), [(signal.SIGKILL, 20), (signal.SIGTERM, 10)])
def test_a_training_killed_again_and_again_equals_an_unbroken_one(start, unbroken, tmp_path, number, times):
    """The first half at any moment, of the start too; the other half in training, where checkpoints are written."""
    folder, rng = tmp_path / "run", random.Random(int(number))
    for attempt in range(times):
        process = start(folder)
        if attempt >= times // 2:
            wait_for_metrics(folder, process)
        time.sleep(rng.uniform(0, 10 if attempt < times // 2 else 2))
        process.send_signal(number)
        told = time.monotonic()
        code = process.wait(60)
        assert time.monotonic() - told < 30
        assert code in (-number, 75, 0)
    assert start(folder).wait(600) == 0
    assert_same_run(unbroken, folder)


def wait_for_metrics(folder, process):
    """Returns when metrics are written anew, or nothing is left to do."""
    file = folder / "metrics.parquet"
    before = file.stat().st_mtime if file.exists() else 0
    while process.poll() is None and not (file.exists() and file.stat().st_mtime > before):
        time.sleep(0.05)


@pytest.mark.slow
def test_damage_anywhere_is_never_restored(tmp_path):
    """One byte, or the end of a file, of 50 copies: the state is exact or the checkpoint is refused."""
    rng = np.random.default_rng(0)
    checkpoints = Checkpoints(tmp_path / "whole", keep=1)
    checkpoints.folder.mkdir()
    state = save(checkpoints, 1)
    for attempt in range(50):
        folder = tmp_path / str(attempt)
        shutil.copytree(checkpoints.folder, folder)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
        sizes = np.array([path.stat().st_size for path in files])
        path = files[rng.choice(len(files), p=sizes / sizes.sum())]
        content = bytearray(path.read_bytes())
        place = rng.integers(len(content))
        if attempt % 5:
            content[place] ^= rng.integers(1, 256)
        else:
            del content[place:]
        path.write_bytes(content)
        try:
            found, problems = newest(folder)
        except CheckpointError:  # the byte was the number of the format
            continue
        assert bool(found) != bool(problems)
        if found:
            assert_equal(state, found.restore(make_state(0)))
    checkpoints.close()
