"""Checkpoints are restored bit for bit, or refused with a line that says why."""

import gc
import json
import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from src_pure.errors import CheckpointError
from src_pure.runs import atomic
from src_pure.runs.arrays import named_arrays
from src_pure.runs.checkpoint import Checkpoints, latest, put_aside
from src_pure.types import Actor, Learner, TrainState
from tests.runs.frames import IDENTITY

DESCRIPTION = {
    "seconds": 1.5,
    "wall_seconds": 2.5,
    "config": {"seed": 0},
    "process": {},
    "continued": [],
    "metrics_sha256": "",
    "lanes_per_block": 1,
}


class Counter(NamedTuple):
    count: Any


def make_state(seed: int) -> TrainState:
    """Two runs with a leaf of every kind: half precision, flags, counters, typed keys, nothing at all."""
    keys = jax.random.split(jax.random.key(seed), 2)
    params = {"params": {"kernel": jax.random.normal(keys[0], (2, 3, 4)), "half": jnp.full((2, 3), seed, jnp.bfloat16)}}
    opt_state = (Counter(jnp.array([seed, 7])), (), None)
    actor = Actor({"key": jax.random.split(keys[1], (2, 5)), "empty": jnp.zeros((2, 0))}, jnp.array([True, False]), ())
    return TrainState(Learner(params, opt_state), actor, keys, jnp.full(2, seed, jnp.int32))


def save(checkpoints: Checkpoints, update: int, score: float | None = None) -> TrainState:
    state = make_state(update)
    checkpoints.save(state, update, score=score, **DESCRIPTION)
    checkpoints.wait()
    return state


def newest(folder):
    """(the newest whole checkpoint, lines about damaged ones, which are put aside)."""
    found, damaged = latest(folder)
    put_aside(folder, damaged)
    return found, list(damaged.values())


def assert_equal(left: TrainState, right: TrainState):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    left, right = named_arrays(left), named_arrays(right)
    for name in left:
        assert left[name].dtype == right[name].dtype
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


@pytest.fixture
def checkpoints(tmp_path):
    made = Checkpoints(tmp_path, 2, IDENTITY)
    yield made
    made.close()


def names(checkpoints):
    return sorted(path.name for path in checkpoints.folder.iterdir())


def test_a_state_comes_back_bit_for_bit(checkpoints):
    state = save(checkpoints, 12)
    found, problems = newest(checkpoints.folder)
    assert (found.update, found.seconds, found.wall_seconds, found.config) == (12, 1.5, 2.5, {"seed": 0})
    assert problems == []
    restored = found.restore(make_state(0))
    assert_equal(state, restored)
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(restored))


def test_training_may_reuse_the_buffers_while_the_state_is_written(checkpoints):
    spoil = jax.jit(lambda state: jax.tree.map(lambda x: x[::-1], state), donate_argnums=0)
    state = make_state(3)
    checkpoints.save(state, 3, score=None, **DESCRIPTION)
    jax.block_until_ready(spoil(state))
    checkpoints.wait()
    assert_equal(make_state(3), newest(checkpoints.folder)[0].restore(make_state(0)))


def test_the_last_ones_and_the_best_are_kept(checkpoints):
    for update, score in enumerate([0.1, 0.9, None, 0.5, 0.2]):
        save(checkpoints, update, score)
    assert names(checkpoints) == ["1", "3", "4"]
    save(checkpoints, 10, 0.95)
    assert names(checkpoints) == ["10", "4"]
    assert newest(checkpoints.folder)[0].update == 10


def test_scores_of_two_metrics_are_not_compared(tmp_path):
    """The best by the former metric is removed like any other; the best by the new one is found among its own."""
    before = Checkpoints(tmp_path, 1, IDENTITY, metric="episode_length")
    for update, score in enumerate([90.0, 80.0]):
        save(before, update, score)
    before.close()
    assert names(before) == ["0", "1"]
    after = Checkpoints(tmp_path, 1, IDENTITY, metric="success_rate")
    for update, score in enumerate([0.5, 0.2], start=2):
        save(after, update, score)
    after.close()
    assert names(after) == ["2", "3"]


def test_a_damaged_one_is_never_the_best_and_no_obstacle(checkpoints):
    save(checkpoints, 0, 0.9)
    (checkpoints.folder / "0" / "checkpoint.json").write_text("{")
    for update in (1, 2, 3):
        save(checkpoints, update, 0.1 * update)
    assert names(checkpoints) == ["2", "3"]


@pytest.mark.parametrize("file", ["state/manifest.ocdbt", "state/d/*", "checkpoint.json", "sha256.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_one_is_skipped_for_the_one_before(checkpoints, file, damage):
    state = save(checkpoints, 1)
    save(checkpoints, 2)
    path = next(checkpoints.folder.glob(f"2/{file}"))
    content = path.read_bytes()
    if damage == "remove":
        path.unlink()
    elif damage == "truncate":
        path.write_bytes(content[:-7])
    else:
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    found, problems = newest(checkpoints.folder)
    assert found.update == 1
    assert_equal(state, found.restore(make_state(0)))
    assert len(problems) == 1 and "2 is damaged" in problems[0] and "\n" not in problems[0]
    assert names(checkpoints) == ["1", "2.damaged"]
    save(checkpoints, 2)
    assert newest(checkpoints.folder)[0].update == 2


def test_random_damage_is_never_restored_as_something_else(checkpoints, tmp_path):
    """50 copies with a few bytes of one file changed, or its end missing: each is exact or refused."""
    state, rng = save(checkpoints, 1), np.random.default_rng(0)
    refused = 0
    for copy in range(50):
        folder = tmp_path / "copies" / str(copy)
        shutil.copytree(checkpoints.folder / "1", folder / "1")
        path = rng.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
        content = bytearray(path.read_bytes())
        if copy % 5 == 0:
            del content[rng.integers(len(content)) :]
        for offset in rng.integers(len(content), size=rng.integers(1, 4)) if content else ():
            content[offset] = rng.integers(256)
        path.write_bytes(content)
        found, problems = newest(folder)
        if found is None:
            refused += 1
            assert len(problems) == 1 and "1 is damaged" in problems[0] and "\n" not in problems[0]
        else:
            assert_equal(state, found.restore(make_state(0)))
    assert refused > 40


def test_without_a_whole_one_there_is_none(checkpoints):
    assert newest(checkpoints.folder) == (None, [])
    save(checkpoints, 1)
    shutil.rmtree(checkpoints.folder / "1" / "state")
    found, problems = newest(checkpoints.folder)
    assert found is None and len(problems) == 1


def test_what_a_killed_write_left_is_removed(checkpoints):
    save(checkpoints, 1)
    shutil.copytree(checkpoints.folder / "1", checkpoints.folder / ".2.partial")
    assert newest(checkpoints.folder)[0].update == 1
    assert names(checkpoints) == ["1"]


@pytest.mark.parametrize("form", [1, 2, 4, "3", None])
def test_another_format_is_refused_and_left_alone(checkpoints, form):
    save(checkpoints, 1)
    path = checkpoints.folder / "1" / "checkpoint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": form}))
    with pytest.raises(CheckpointError, match=rf"1 has format {form!r}, this version reads 3; use the version [^\n]*$"):
        newest(checkpoints.folder)
    assert names(checkpoints) == ["1"]


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"update": jnp.zeros(3, jnp.int32)}, r"update is int32 \[2\], wanted int32 \[3\]"),
        ({"update": jnp.zeros(2, jnp.float32)}, r"update is int32 \[2\], wanted float32 \[2\]"),
        ({"key": {"new": jnp.zeros(2)}}, r"key is uint32 \[2, 2\], wanted no such array"),
        ({"actor": Actor({"a": jnp.zeros(2)}, (), ())}, r"actor.env_state.a is missing, wanted float32 \[2\]"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_another_state_is_refused_in_one_line(checkpoints, change, difference, capfd):
    save(checkpoints, 1)
    with pytest.raises(CheckpointError, match=rf"1 does not hold this training's state: {difference}$"):
        newest(checkpoints.folder)[0].restore(make_state(0)._replace(**change))
    gc.collect()  # anything left unfinished complains now
    assert capfd.readouterr() == ("", "")


def test_the_configuration_may_hold_infinite_numbers(checkpoints):
    config = {"algo": {"max_grad_norm": float("inf")}}
    checkpoints.save(make_state(1), 1, score=None, **DESCRIPTION | {"config": config})
    checkpoints.wait()
    assert newest(checkpoints.folder)[0].config == config


def test_a_failed_write_is_raised_by_the_next_call_and_leaves_the_others(checkpoints, monkeypatch):
    save(checkpoints, 1)
    with monkeypatch.context() as patch:
        patch.setattr(atomic, "digests", lambda path: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(CheckpointError, match=r"cannot write .*2: \[Errno 28\] No space left on device$"):
            save(checkpoints, 2)
    assert names(checkpoints) == ["1"]
    save(checkpoints, 2)
    assert newest(checkpoints.folder)[0].update == 2


def test_a_folder_that_vanished_is_not_made_again(checkpoints):
    checkpoints.folder.rmdir()
    with pytest.raises(CheckpointError, match=r"cannot write .*No such file"):
        save(checkpoints, 1)
    assert not checkpoints.folder.exists()
