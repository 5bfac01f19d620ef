"""Trainings whose rows of metrics are means over updates: ten updates, and rows that end at 4, 8 and 10."""

import os
import shutil
import signal
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import trainer_pure
from src_pure.errors import DamagedError, ForeignError
from src_pure.runs import parquet
from src_pure.runs import pending as pending_file
from src_pure.runs.columns import to_arrow
from src_pure.runs.pending import read_pending
from src_pure.runs.rundir import read_metrics
from tests.runs.conftest import OPTIONS
from tests.runs.disturbing import arrays, assert_same_run, disturbed, interrupted
from tests.runs.frames import IDENTITY, metrics_frame, write_content
from tests.runs.test_averaging import averaged_slowly
from tests.runs.test_checkpoint import newest
from tests.test_command_line import TINY

MEANS = [*OPTIONS, "metrics.rows_per_run=3"]  # checkpoints after 3, 6, 9 and 10


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a training with MEANS that nothing disturbed; not to be written into."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert trainer_pure.main([*MEANS, f"run_dir={folder}"]) == 0
    return folder


@pytest.fixture
def at_nine(whole, tmp_path):
    """A copy of that folder as it is after its checkpoint of update 9, with the table of a training that went on."""
    folder = shutil.copytree(whole, tmp_path / "run")
    (folder / "summary.json").unlink()
    shutil.rmtree(folder / "checkpoints" / "10")
    return folder


def pending(folder, update):
    """The updates that wait for the end of their row in a checkpoint."""
    path = folder / "checkpoints" / str(update) / "pending.parquet"
    return pd.read_parquet(path)["update"].unique().tolist() if path.exists() else []


def test_the_table_has_means_of_the_updates_and_nothing_else_changes(whole, unbroken):
    wanted = averaged_slowly(pd.read_parquet(unbroken / "metrics.parquet"), 4, 10)
    found = read_metrics(whole)
    assert found["update"].tolist() == [4, 4, 8, 8, 10, 10]
    pd.testing.assert_frame_equal(found, wanted[list(found)], check_dtype=False, rtol=1e-12)
    tables = [pd.read_parquet(folder / "evaluation.parquet") for folder in (whole, unbroken)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    states = [arrays(folder)[1] for folder in (whole, unbroken)]
    for name in states[0]:
        np.testing.assert_array_equal(states[0][name], states[1][name])
    scores = [[newest(folder / "checkpoints")[0].score] for folder in (whole, unbroken)]
    assert scores[0] == scores[1]  # of the updates, before they are averaged
    assert pending(whole, 9) == [9] and pending(whole, 10) == [] == pending(unbroken, 9)


@pytest.mark.parametrize("died", [7, *(pytest.param(update, marks=pytest.mark.slow) for update in (1, 4, 8, 10))])
def test_it_continues_exactly_in_the_middle_of_a_row(whole, tmp_path, monkeypatch, died):
    folder = interrupted(monkeypatch, tmp_path / "run", died, MEANS)
    assert pending(folder, died // 3 * 3) == {1: [], 4: [1, 2, 3], 7: [5, 6], 8: [5, 6], 10: [9]}[died]
    assert trainer_pure.main([*MEANS, "log_seconds=0.001", f"run_dir={folder}"]) == 0
    assert_same_run(whole, folder)


@pytest.mark.slow
@pytest.mark.parametrize("told", [1, 6, 7])
def test_a_signal_saves_the_updates_of_an_unfinished_row(whole, tmp_path, monkeypatch, told):
    folder = tmp_path / "run"

    def signal_myself():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)

    assert disturbed(monkeypatch, folder, told, signal_myself, MEANS) == 75
    saved = newest(folder / "checkpoints")[0].update
    assert pending(folder, saved) == list(range(saved // 4 * 4 + 1, saved + 1))
    assert trainer_pure.main([*MEANS, f"run_dir={folder}"]) == 0
    assert_same_run(whole, folder)


@pytest.mark.parametrize(
    ("rows", "ends"), [("null", [4, 8, 9, 10]), pytest.param("1", [4, 8, 10], marks=pytest.mark.slow)]
)
def test_it_may_change_when_the_training_is_continued(whole, at_nine, rows, ends):
    assert trainer_pure.main([*OPTIONS, f"metrics.rows_per_run={rows}", f"run_dir={at_nine}"]) == 0
    frame = read_metrics(at_nine)
    assert frame["update"].tolist() == np.repeat(ends, 2).tolist()
    assert frame["episodes"].sum() == read_metrics(whole)["episodes"].sum()
    assert trainer_pure.main([*MEANS, f"run_dir={at_nine}"]) == 0  # finished


def test_a_table_of_another_copy_is_refused(at_nine, capsys):
    path = at_nine / "metrics.parquet"
    part = next(part for part in path.iterdir() if "-0000000008." in part.name)
    content = part.read_bytes()
    rows = pd.read_parquet(part)
    rows["loss"] += 1e-9
    part.unlink()
    assert trainer_pure.main([*MEANS, f"run_dir={at_nine}"]) == 2
    assert "metrics.parquet has no rows of update" in capsys.readouterr().err
    first = int(part.name[:10])
    write_content(path, changed(content, rows), first, 8)
    assert trainer_pure.main([*MEANS, f"run_dir={at_nine}"]) == 2
    error = capsys.readouterr().err
    assert "has other rows of update 8 than checkpoint 9 was saved with" in error and error.count("\n") == 1


def changed(content, rows):
    """The content of a part with other rows and the same metadata."""
    schema = pq.read_schema(pa.BufferReader(content))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pandas(rows, schema), sink)
    return sink.getvalue().to_pybytes()


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["flip", "remove"])
def test_damaged_updates_of_an_unfinished_row_are_a_damaged_checkpoint(whole, at_nine, capsys, damage):
    path = at_nine / "checkpoints" / "9" / "pending.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink() if damage == "remove" else path.write_bytes(content)
    assert trainer_pure.main([*MEANS, f"run_dir={at_nine}"]) == 0
    assert "checkpoints/9 is damaged" in capsys.readouterr().err
    assert_same_run(whole, at_nine)


@pytest.mark.slow
def test_a_failure_in_the_middle_of_a_row_is_seen(tmp_path, capsys):
    broken = ["--trust", "tests", "task._target_=tests.probes.BrokenTMaze", "+task.broken=reward"]
    options = [*TINY, *broken, "task.corridor_len=200", "checkpoint.updates=1", "metrics.rows_per_run=3"]
    for _ in ("trained", "continued after update 2"):
        assert trainer_pure.main([*options, f"run_dir={tmp_path / 'run'}"]) == 3
        assert "seed 0 failed at update 3: 4 observations or rewards are NaN" in capsys.readouterr().err
        frame = read_metrics(tmp_path / "run")
        assert frame["update"].tolist() == [3] and frame["nonfinite_inputs"].tolist() == [4]
        assert frame["env_steps"].tolist() == [3 * 64]


@pytest.mark.slow
def test_rows_are_longer_after_total_steps_was_raised(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "run")
    assert trainer_pure.main([*MEANS, "total_steps=1280", f"run_dir={folder}"]) == 0
    assert read_metrics(folder)["update"].tolist() == np.repeat([4, 8, 10, 14, 20], 2).tolist()


def test_nothing_is_said_to_be_lost_before_the_first_row(tmp_path, monkeypatch, capsys):
    """A checkpoint may be there before the first row is."""
    folder = interrupted(monkeypatch, tmp_path / "run", 4, [*OPTIONS, "metrics.rows_per_run=1"])
    assert "what was saved is in" in capsys.readouterr().err
    assert not (folder / "metrics.parquet").exists() and pending(folder, 3) == [1, 2, 3]


@pytest.mark.parametrize(("updates", "missing"), [([8], []), ([9, 10], []), ([0, 9], []), ([9], ["seed"])])
def test_other_updates_than_those_before_a_checkpoint_are_refused(tmp_path, updates, missing):
    rows = to_arrow(metrics_frame(updates)).drop_columns(missing)
    (tmp_path / "pending.parquet").write_bytes(parquet.encode(rows, IDENTITY))
    with pytest.raises(DamagedError, match=r"pending\.parquet cannot be read: it does not hold updates up to 9$"):
        read_pending(tmp_path, 9, IDENTITY)


def test_updates_that_wait_come_back_as_they_were(tmp_path):
    frame = metrics_frame([7, 8, 9])
    (tmp_path / "pending.parquet").write_bytes(pending_file.encode(frame, IDENTITY))
    pd.testing.assert_frame_equal(read_pending(tmp_path, 9, IDENTITY), frame, check_exact=True)
    with pytest.raises(ForeignError, match="belongs to another run"):
        read_pending(tmp_path, 9, IDENTITY._replace(run_id="2" * 32))
    (tmp_path / "pending.parquet").unlink()
    assert read_pending(tmp_path, 9, IDENTITY) is None
