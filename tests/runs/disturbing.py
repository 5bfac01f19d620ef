"""Trainings that are disturbed, and what two of them must have in common."""

import jax
import numpy as np
import pandas as pd
from orbax.checkpoint import Checkpointer, StandardCheckpointHandler

import trainer_pure
from src_pure.runs import training
from tests.runs.conftest import OPTIONS
from tests.runs.test_checkpoint import newest


class After:
    """A sink that calls a function once an update is written."""

    def __init__(self, update, function):
        self.update = update
        self.function = function

    def log(self, frame, elapsed):
        if frame["update"].max() >= self.update:
            self.function()

    def close(self):
        pass


def disturbed(monkeypatch, folder, update, function, options=OPTIONS):
    """The exit code of a training in which something happens after `update`, before its checkpoint."""
    with monkeypatch.context() as patch:
        patch.setattr(training, "open_sinks", lambda *_: [After(update, function)])
        return trainer_pure.main([*options, f"run_dir={folder}"])


def die():
    raise KeyboardInterrupt


def interrupted(monkeypatch, folder, update, options=OPTIONS):
    """A run folder of a training that died after `update`, before it could save anything there."""
    assert disturbed(monkeypatch, folder, update, die, options) == 130
    return folder


def arrays(folder):
    """Every array of the newest checkpoint, by its name."""
    found, problems = newest(folder / "checkpoints")
    assert not problems
    return found.update, Checkpointer(StandardCheckpointHandler()).restore(found.path / "state")


def assert_same_run(left, right):
    for table in ("metrics", "evaluation"):
        frames = [pd.read_parquet(folder / f"{table}.parquet") for folder in (left, right)]
        pd.testing.assert_frame_equal(*frames, check_exact=True)
    (update, state), (other_update, other_state) = arrays(left), arrays(right)
    assert update == other_update
    jax.tree.map(np.testing.assert_array_equal, state, other_state)
