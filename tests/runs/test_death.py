"""Processes that are killed at random moments, and checkpoints damaged at random places."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from src_pure.errors import CheckpointError
from src_pure.runs.checkpoint import Checkpoints, latest
from tests.conftest import REPOSITORY
from tests.runs.disturbing import assert_same_run
from tests.runs.frames import IDENTITY
from tests.runs.test_checkpoint import assert_equal, make_state, newest, save
from tests.test_command_line import TINY

GRACE = 20  # seconds
SMALL = [*TINY, "model.size=4", "policy.head_size=null", "num_envs=2", "num_steps=8", "algo.num_minibatches=1"]
LONG = [*SMALL, "num_seeds=2", "total_steps=32000", "evaluation.interval=300"]  # 2,000 updates
ROWS = {1: "metrics.rows_per_run=null", 7: "metrics.rows_per_run=300"}  # by the updates of a row
OFTEN = ["checkpoint.updates=5", "checkpoint.minutes=null", f"grace_seconds={GRACE}"]
MOST = 40  # updates that a training makes at most before it is killed; together they do not reach its end


class Training:
    """A training in its own process, which prints how far it is and where it continued."""

    def __init__(self, folder, cache, options):
        command = [sys.executable, "trainer_pure.py", *LONG, *options, f"run_dir={folder}"]
        small = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        self.folder = folder
        self.said = folder.with_suffix(".txt")
        with self.said.open("w") as out:
            streams = {"stdout": out, "stderr": subprocess.STDOUT}
            self.process = subprocess.Popen(command, cwd=REPOSITORY, env=os.environ | small, **streams)

    @property
    def output(self):
        return self.said.read_text()

    @property
    def reported(self):
        """The last update that it has reported, 0 before any."""
        return max(map(int, re.findall(r"^update (\d+)/", self.output, re.M)), default=0)

    @property
    def is_writing(self):
        """Whether a checkpoint is unfinished, or was being removed."""
        return any(self.folder.glob("checkpoints/.*.partial"))

    def wait_until_reported(self, update):
        """Returns as soon as it has reported an update, or has ended."""
        while self.reported < update and self.process.poll() is None:
            time.sleep(0.01)

    def wait_until_writing(self):
        """Returns as soon as it begins to write a checkpoint, or has ended."""
        while not self.is_writing and self.process.poll() is None:
            time.sleep(0.0005)

    def kill(self, number):
        """The exit code; fails if it has ended by itself, or does not end in the grace period."""
        assert self.process.poll() is None, f"it ended before it was killed: {self.output}"
        self.process.send_signal(number)
        return self.process.wait(GRACE + 5)  # more, because a busy machine is late

    def finish(self):
        assert self.process.wait(600) == 0, self.output


@pytest.fixture(scope="module", params=ROWS)
def updates_per_row(request):
    return request.param


@pytest.fixture(scope="module")
def start(tmp_path_factory, updates_per_row):
    """A function that starts a training; all of them share compiled programs."""
    started, cache = [], tmp_path_factory.mktemp("cache")

    def start(folder, options=OFTEN):
        started.append(Training(folder, cache, [ROWS[updates_per_row], *options]))
        return started[-1]

    yield start
    for training in started:
        training.process.kill()


@pytest.fixture(scope="module")
def unbroken(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    start(folder, options=[]).finish()
    return folder


def saved(folder):
    """The update of the newest checkpoint, 0 without one."""
    checkpoints = folder / "checkpoints"
    found = latest(checkpoints)[0] if checkpoints.exists() else None
    return found.update if found else 0


def written(folder, updates_per_row):
    """The last update in the metrics and the newest checkpoint, 0 without any; both runs have each row once."""
    last = 0
    if (folder / "metrics.parquet").exists():
        updates = pd.read_parquet(folder / "metrics.parquet")["update"].tolist()
        last = updates[-1]
        assert updates == [update for update in range(updates_per_row, last + 1, updates_per_row) for _ in range(2)]
    pending = folder / "checkpoints" / str(saved(folder)) / "pending.parquet"
    return max(last, pd.read_parquet(pending)["update"].max()) if pending.exists() else last


def finish_and_compare(start, folder, unbroken):
    begin, training = saved(folder), start(folder, options=[])
    training.finish()
    assert f"continues after update {begin}\n" in training.output
    assert_same_run(unbroken, folder)


@pytest.mark.slow
def test_a_training_killed_again_and_again_equals_an_unbroken_one(start, unbroken, tmp_path, updates_per_row):
    """kill -9: twice at any moment of the start, three times in training, seven when a checkpoint is being written."""
    folder, rng, torn = tmp_path / "run", random.Random(9), 0
    for moment in rng.sample(["start"] * 2 + ["training"] * 3 + ["checkpoint"] * 7, k=12):
        before, training = saved(folder), start(folder)
        if moment == "start":
            time.sleep(rng.uniform(0, 5))
        else:
            training.wait_until_reported(before + rng.randint(1, MOST))
        if moment == "training":
            time.sleep(rng.uniform(0, 0.1))
        if moment == "checkpoint":
            training.wait_until_writing()
        assert training.kill(signal.SIGKILL) == -signal.SIGKILL
        torn += training.is_writing
        assert before <= saved(folder) <= written(folder, updates_per_row)
    assert torn >= 4
    finish_and_compare(start, folder, unbroken)


@pytest.mark.slow
def test_a_training_stopped_again_and_again_loses_nothing(start, unbroken, tmp_path, updates_per_row):
    """SIGTERM, twice at any moment of the start and three times in training."""
    folder, rng = tmp_path / "run", random.Random(15)
    for moment in rng.sample(["start"] * 2 + ["training"] * 3, k=5):
        before, training = saved(folder), start(folder)
        if moment == "start":
            time.sleep(rng.uniform(0, 5))
        else:
            training.wait_until_reported(before + rng.randint(1, MOST))
            time.sleep(rng.uniform(0, 0.1))
        code = training.kill(signal.SIGTERM)
        if training.reported:
            assert f"stopped by SIGTERM after update {saved(folder)} of 2000; the same" in training.output
        assert code == 75 or (code == -signal.SIGTERM and not training.reported)  # before it can be noticed
        assert saved(folder) >= training.reported
        assert saved(folder) == written(folder, updates_per_row) and not training.is_writing
    finish_and_compare(start, folder, unbroken)


@pytest.mark.slow
def test_damage_anywhere_is_never_restored(tmp_path):
    """One byte, or the end of a file, of 50 copies: the state is exact or the checkpoint is refused."""
    rng = np.random.default_rng(0)
    whole = tmp_path / "whole"
    whole.mkdir()
    checkpoints = Checkpoints(whole, 1, IDENTITY)
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
