"""Tables grow by parts: anyone can read them after a kill at any moment, and damage is refused."""

import hashlib
import itertools
import json
import os
import shutil
import warnings

import pandas as pd
import pyarrow.parquet as pq
import pytest

from src_pure.errors import CheckpointError, DamagedError
from src_pure.runs.columns import to_arrow
from src_pure.runs.rundir import RunDir
from src_pure.runs.tables import Table
from tests.runs.frames import IDENTITY, metrics_frame, new_run, parts, three_parts

CHANGES = ("mkdir", "replace", "rename", "unlink", "rmdir", "fsync")  # of the file system


def open_table(folder, name="metrics.parquet"):
    return Table(folder / name, folder / name, IDENTITY)


def updates_of(path):
    """The updates that a reader finds, in the order of the rows; an empty list without a table."""
    return pd.read_parquet(path)["update"].tolist() if path.exists() else []


@pytest.fixture
def path(tmp_path):
    """A table of updates 1 to 9 in three parts."""
    return three_parts(tmp_path / "metrics.parquet").path


def test_one_call_reads_all_rows_in_order(path, tmp_path):
    wanted = to_arrow(pd.concat([metrics_frame(range(first, first + 3)) for first in (1, 4, 7)])).to_pandas()
    pd.testing.assert_frame_equal(pd.read_parquet(path), wanted)
    pd.testing.assert_frame_equal(open_table(tmp_path).frame(), wanted)
    few = open_table(tmp_path).frame(["episodes", "nothing", "seed"])
    pd.testing.assert_frame_equal(few, wanted[["seed", "episodes"]])


def test_a_part_carries_its_digest_in_its_name_and_its_run_in_its_metadata(path):
    ranges = ("0000000001-0000000003", "0000000004-0000000006", "0000000007-0000000009")
    for part, updates in zip(parts(path), ranges, strict=True):
        assert part.name == f"{updates}.{hashlib.sha256(part.read_bytes()).hexdigest()}.parquet"
        metadata = pq.read_schema(part).metadata
        assert {key.decode(): value.decode() for key, value in metadata.items()} == IDENTITY._asdict()


def test_appending_changes_nothing_that_is_there(path, tmp_path):
    before = {part: (part.read_bytes(), part.stat().st_mtime_ns) for part in parts(path)}
    open_table(tmp_path).append(metrics_frame([10]))
    assert len(parts(path)) == 4
    assert before == {part: (part.read_bytes(), part.stat().st_mtime_ns) for part in before}


@pytest.mark.parametrize("updates", [[9], [11], [10, 12], [1]])
def test_only_rows_that_continue_the_table_are_taken(path, tmp_path, updates):
    with pytest.raises(ValueError, match="rows after update 9 must continue"):
        open_table(tmp_path).append(metrics_frame(updates))
    assert len(parts(path)) == 3


def test_an_evaluation_may_leave_updates_out(tmp_path):
    table = open_table(tmp_path, name="evaluation.parquet")
    for update in (5, 10):
        table.append(metrics_frame([update]).assign(mode="greedy", unfinished=0))
    table = open_table(tmp_path, name="evaluation.parquet")
    assert [update for update in range(12) if table.has_rows_of(update)] == [5, 10]
    assert table.first_missing(range(5, 20, 5)) == 15 and table.first_missing(range(5, 15, 5)) is None


def test_parts_are_rewound_newest_first(path, tmp_path, monkeypatch):
    unlink, seen = os.unlink, []
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", lambda part: seen.append(updates_of(path)[-1]) or unlink(part))
        open_table(tmp_path).rewind(3)
    assert seen == [9, 6] and set(updates_of(path)) == {1, 2, 3}
    open_table(tmp_path).rewind(0)
    assert not path.exists() and list(tmp_path.iterdir()) == []


def test_a_part_is_never_cut(path, tmp_path):
    with pytest.raises(DamagedError, match=r"rows from before and after update 5, .*; restore the parts [^\n]*$"):
        open_table(tmp_path).rewind(5)
    assert len(parts(path)) == 3


def test_the_digest_of_an_update_is_that_of_its_rows_however_parts_are_cut(path, tmp_path):
    whole = open_table(tmp_path, name="whole/metrics.parquet")
    whole.path.parent.mkdir()
    whole.append(pd.read_parquet(path))
    table = open_table(tmp_path)
    assert [table.digest_of(update) for update in range(11)] == [whole.digest_of(update) for update in range(11)]
    assert len({table.digest_of(update) for update in range(11)}) == 10  # 0 and 10 have no rows


def test_one_part_is_read_for_the_digest_of_an_update(path, tmp_path):
    table = open_table(tmp_path)
    wanted = table.digest_of(8)
    for part in parts(path)[:2]:
        part.write_bytes(b"")
    assert open_table(tmp_path).digest_of(8) == wanted


def test_other_columns_later_are_refused(path, tmp_path):
    table = open_table(tmp_path)
    table.check()
    with pytest.raises(CheckpointError, match=r"metrics\.parquet was written by other code.* entropy, policy_loss"):
        table.append(metrics_frame([10]).rename(columns={"policy_loss": "entropy"}))
    table.append(metrics_frame([10])[metrics_frame([10]).columns[::-1]])
    assert open_table(tmp_path).frame()["update"].max() == 10


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    for count in (0, 1):
        table = open_table(tmp_path)
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
            patch.setattr(os, "replace", full)
            table.append(metrics_frame([count + 1]))
        assert [len(list(item.iterdir())) for item in tmp_path.iterdir()] == [count] * count
        table.append(metrics_frame([count + 1]))
    shutil.rmtree(table.path)


# ---------------------------------------------------------------------------------------------------------------------
# rows that are means over several updates


def means(*updates):
    """Rows of two runs with these updates; of a pair, the first is where run 0 failed."""
    pairs = [update if isinstance(update, tuple) else (update, update) for update in updates]
    frames = [metrics_frame([update]).query(f"run == {run}") for pair in pairs for run, update in enumerate(pair)]
    return pd.concat(frames).sort_values(["update", "run"], ignore_index=True)


@pytest.mark.parametrize("rows", [[12], [11, 13], [(10, 12)], [10, (11, 13)]])
def test_a_part_of_means_covers_all_of_their_updates(path, tmp_path, rows):
    table = open_table(tmp_path)
    table.append(means(*rows), averaged_from=10)
    last = table.last
    assert parts(path)[-1].name.startswith(f"0000000010-{last:010}.")
    table = open_table(tmp_path)
    table.check()
    table.append(metrics_frame([last + 1]))  # a part of single updates may follow
    table.append(means(last + 9), averaged_from=last + 2)
    again = open_table(tmp_path)
    assert again.last == last + 9 and again.first_missing(range(1, again.last + 2)) == again.last + 1
    pd.testing.assert_frame_equal(again.frame(), pd.read_parquet(path))
    assert set(again.frame()["update"]) == set(range(1, 10)) | set(means(*rows)["update"]) | {last + 1, last + 9}
    assert again.digest_of(last) == hashlib.sha256(digested(again.frame(), last)).hexdigest()
    again.rewind(last)
    assert again.last == last
    with pytest.raises(DamagedError, match="rows from before and after update 10"):
        again.rewind(10)


def digested(frame, update):
    """The text whose digest stands for the rows of an update."""
    rows = frame[frame["update"] == update].sort_values("run").astype(object)
    return json.dumps(rows.where(rows.notna(), None).to_dict("records"), sort_keys=True).encode()


@pytest.mark.parametrize(("rows", "first"), [([12], 9), ([12], 11), ([9], 10), ([12], 13)])
def test_means_must_continue_the_table(path, tmp_path, rows, first):
    with pytest.raises(ValueError, match="rows after update 9 must continue"):
        open_table(tmp_path).append(means(*rows), averaged_from=first)
    assert len(parts(path)) == 3


# ---------------------------------------------------------------------------------------------------------------------
# kills


def killed_at(step, function):
    """Whether a child process, in a function, was killed before its change number `step` of the file system."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about threads of the parent, which the child does not have
        child = os.fork()
    if child == 0:
        try:
            count = itertools.count(1)
            for name in CHANGES:
                setattr(os, name, killing(getattr(os, name), count, step))
            function()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def killing(change, count, step):
    def change_or_die(*arguments, **options):
        if next(count) == step:
            os._exit(9)  # nothing is tidied up, as after SIGKILL
        return change(*arguments, **options)

    return change_or_die


@pytest.mark.parametrize(
    ("before", "change"),
    [(0, "append"), (3, "append"), (9, "append"), (9, "two parts"), (9, "rewind"), (9, "begin again")],
)
def test_a_kill_at_any_moment_leaves_a_table_without_gaps(tmp_path, before, change):
    def act(run_dir):
        if change in ("append", "two parts"):
            run_dir.append_metrics(metrics_frame(range(before + 1, before + 4)))
        if change == "two parts":
            run_dir.append_metrics(metrics_frame(range(before + 4, before + 7)))
        if change in ("rewind", "begin again"):
            run_dir.rewind(3 if change == "rewind" else 0)

    for step in itertools.count(1):
        run_dir = new_run(tmp_path / str(step), "", IDENTITY)
        for first in range(1, before + 1, 3):
            run_dir.append_metrics(metrics_frame(range(first, first + 3)))
        killed = killed_at(step, lambda run_dir=run_dir: act(run_dir))
        path = run_dir.path / "metrics.parquet"
        found = updates_of(path)
        assert found == [update for update in range(1, len(found) // 2 + 1) for _ in range(2)]
        assert len(found) // 2 in {0, 3, 6, 9, 12, 15}
        again = RunDir.open(run_dir.path)  # the run can be continued
        again.rewind(min(3, len(found) // 2))
        again.append_metrics(metrics_frame([min(3, len(found) // 2) + 1]))
        assert sorted(item.name for item in run_dir.path.iterdir()) == [
            "checkpoints",
            "config.yaml",
            "metrics.parquet",
            "run.json",
        ]
        assert not [part for part in parts(path) if part.name.startswith(".")]
        if not killed:
            break
    assert step > 3
