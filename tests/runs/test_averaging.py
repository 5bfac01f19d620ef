"""A row over several updates equals a slow loop over them, wherever segments end."""

import itertools

import numpy as np
import pandas as pd
import pytest

from src_pure.config.settings import Settings
from src_pure.runs.buffer import RowBuffer
from src_pure.runs.rows import averaged, row_ends
from tests.runs.frames import metrics_frame

INTEGERS = ("run", "seed", "update", "env_steps", "episodes")


def updates_of_runs(end, num_runs=3, failed=None, seed=0):
    """Rows of updates 1 to end; failed: the update at which a run fails."""
    rng = np.random.default_rng(seed)
    frame = metrics_frame(range(1, end + 1), num_runs, seed)
    frame["nonfinite_inputs"] = np.int32(0)
    frame["loss"] = rng.normal(size=len(frame)).astype(np.float32)
    frame["max_abs_log_ratio"] = rng.uniform(size=len(frame)).astype(np.float32)
    for run, update in (failed or {}).items():
        last = (frame["run"] == run) & (frame["update"] == update)
        frame.loc[last, ["loss", "nonfinite_inputs"]] = np.nan, 4
        frame = frame[~((frame["run"] == run) & (frame["update"] > update))]
    return frame.reset_index(drop=True)


def averaged_slowly(frame, updates_per_row, end):
    """The same rows by plain loops over updates and runs."""
    rows = []
    for first in range(1, end + 1, updates_per_row):
        for run in sorted(set(frame["run"])):
            inside = frame["update"].between(first, min(first + updates_per_row - 1, end)) & (frame["run"] == run)
            updates = frame[inside].to_dict("records")
            if updates:
                rows.append(row_of(updates))
    return pd.DataFrame(sorted(rows, key=lambda row: (row["update"], row["run"])))


def row_of(updates):
    """One row for the updates of a run."""
    row = dict(updates[-1])  # run, seed, update, env_steps
    for name in row:
        values = [update[name] for update in updates]
        if name in ("episodes", "nonfinite_inputs"):
            row[name] = sum(values)
        elif name.startswith("episode_") or name == "success_rate":
            known = [update for update in updates if update["episodes"] and not np.isnan(update[name])]
            count = sum(update["episodes"] for update in known)
            row[name] = sum(update[name] * update["episodes"] for update in known) / count if count else np.nan
        elif name == "max_abs_log_ratio":
            row[name] = max(values)
        elif name not in INTEGERS:
            row[name] = sum(values) / len(values)
    return row


def buffered(frame, updates_per_row, end, segments, pending=None):
    """(rows, RowBuffer) after the updates of a frame have come in segments that end at these updates."""
    parts = []
    rows = RowBuffer(lambda rows, first: parts.append((first, rows)), 0, updates_per_row, end, pending)
    for begin, last in zip([0, *segments], [*segments, end], strict=False):
        segment = frame[frame["update"].between(begin + 1, last)]
        if len(segment):
            rows.add(segment.reset_index(drop=True))
    for (first, part), (following, _) in itertools.pairwise(parts):
        assert first <= part["update"].min() and (first is None or following == part["update"].max() + 1)
    return pd.concat([part for _, part in parts], ignore_index=True), rows


@pytest.mark.parametrize("failed", [{}, {1: 6}, {0: 1, 2: 8}, {0: 13, 1: 14}])
@pytest.mark.parametrize("updates_per_row", [2, 4, 5, 30])
def test_rows_equal_a_slow_loop(updates_per_row, failed):
    frame = updates_of_runs(14, failed=failed)
    found = averaged(frame, row_ends(frame["update"].to_numpy(), updates_per_row, 14))
    wanted = averaged_slowly(frame, updates_per_row, 14)
    pd.testing.assert_frame_equal(found, wanted[list(found)], check_dtype=False, rtol=1e-12)
    assert all(found[name].dtype == np.int64 for name in INTEGERS)
    for run, update in failed.items():  # seen in the table, at its update
        last = found[found["run"] == run].iloc[-1]
        assert last["update"] == update and np.isnan(last["loss"]) and last["nonfinite_inputs"] == 4


@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("name", ["loss", "max_abs_log_ratio"])
def test_a_value_that_is_not_finite_is_not_hidden(name, value):
    frame = updates_of_runs(4, num_runs=1)
    frame.loc[1, name] = value
    np.testing.assert_equal(averaged(frame, np.full(4, 4))[name][0], value)


@pytest.mark.parametrize("seed", range(5))
def test_it_does_not_matter_where_segments_end(seed):
    """Bit for bit: a training that continues has other segments."""
    rng = np.random.default_rng(seed)
    frame = updates_of_runs(23, failed={1: 9}, seed=seed)
    whole, _ = buffered(frame, 5, 23, [])
    cuts = sorted(rng.choice(np.arange(1, 23), size=rng.integers(1, 12), replace=False).tolist())
    found, rows = buffered(frame, 5, 23, cuts)
    pd.testing.assert_frame_equal(found, whole, check_exact=True)
    assert found[found["run"] == 0]["update"].tolist() == [5, 10, 15, 20, 23] and rows.pending is None


@pytest.mark.parametrize("updates_per_row", [1, 3, 10])
def test_updates_of_an_unfinished_row_wait(updates_per_row):
    """With other lengths of a row than before, too."""
    frame = updates_of_runs(7)
    _, rows = buffered(frame[frame["update"] <= 6], 4, 100, [2])
    assert rows.pending["update"].unique().tolist() == [5, 6]
    rest = frame[frame["update"] == 7].reset_index(drop=True)
    found, rows = buffered(rest, updates_per_row, 7, [], rows.pending)
    ends = {1: [5, 6, 7], 3: [6, 7], 10: [7]}[updates_per_row]
    assert found["update"].tolist() == np.repeat(ends, 3).tolist() and rows.pending is None
    wanted = averaged_slowly(frame[frame["update"] > 4], updates_per_row, 7)
    pd.testing.assert_frame_equal(found, wanted[list(found)], check_dtype=False, rtol=1e-12)


def test_rows_of_single_updates_stay_as_they_are():
    frame = updates_of_runs(6, failed={0: 2})
    written = []
    with RowBuffer(lambda *rows: written.append(rows), 0) as rows:
        rows.add(frame)
    assert written[0][1] is None and rows.pending is None
    pd.testing.assert_frame_equal(written[0][0], frame, check_exact=True)


def test_the_last_row_of_a_training_in_which_all_runs_failed_is_written():
    frame = updates_of_runs(9, num_runs=2, failed={0: 6, 1: 7})
    written = []
    rows = RowBuffer(lambda *rows: written.append(rows), 0, 4, 100)
    rows.add(frame)
    assert written[0][0]["update"].tolist() == [4, 4]
    rows.finish()
    assert written[1][1] == 5 and written[1][0][["run", "update"]].to_numpy().tolist() == [[0, 6], [1, 7]]
    rows.finish()
    assert len(written) == 2 and rows.pending is None


@pytest.mark.parametrize(("updates", "most"), [(1000, 1000), (1001, 1000), (12_345, 1000), (7, 2), (7, 7), (5, 9)])
def test_a_run_has_at_most_so_many_rows(updates, most):
    metrics = {"rows_per_run": most}
    settings = Settings.model_construct(total_steps=64 * updates + 63, num_envs=4, num_steps=16)
    settings = settings.model_copy(update={"metrics": Settings.model_fields["metrics"].annotation(**metrics)})
    ends = row_ends(np.arange(1, updates + 1), settings.updates_per_row, updates)
    assert len(set(ends)) <= most and ends[-1] == updates
    assert (settings.updates_per_row == 1) == (updates <= most)
