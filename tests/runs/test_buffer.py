"""Updates become rows, and rows wait until writing them is worth a file."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from src_pure.runs import buffer
from src_pure.runs.buffer import RowBuffer


def written_at(monkeypatch, seconds, steps):
    """When rows that come every `steps` seconds are written, for 1,000 seconds."""
    now, moments = 0.0, []
    monkeypatch.setattr(buffer, "time", SimpleNamespace(monotonic=lambda: now))
    with RowBuffer(lambda frame, _: moments.append((now, frame["update"].tolist())), seconds) as rows:
        for update in range(1, int(1000 / steps) + 1):
            now = update * steps
            rows.add(pd.DataFrame({"update": [update]}))
    assert [update for _, updates in moments for update in updates] == list(range(1, int(1000 / steps) + 1))
    return [moment for moment, _ in moments]


def test_rows_are_written_when_log_seconds_or_a_hundredth_of_the_time_has_passed(monkeypatch):
    moments = written_at(monkeypatch, 5, 1)
    assert moments[0] == 1 and moments[-1] == 1000
    gaps = np.diff(moments[:-1])
    assert (gaps >= np.maximum(5, np.array(moments[1:-1]) / 100)).all()
    assert (gaps <= np.maximum(5, np.array(moments[1:-1]) / 100) + 1).all()
    assert written_at(monkeypatch, None, 100) == [100 * n for n in range(1, 11)]


def test_what_waits_is_written_on_request_and_on_the_way_out():
    frames = []
    with pytest.raises(KeyboardInterrupt), RowBuffer(lambda frame, _: frames.append(frame), 1e9) as rows:
        for update in range(1, 6):
            rows.add(pd.DataFrame({"update": [update]}))
            if update == 3:
                rows.write()
                rows.write()
        raise KeyboardInterrupt
    assert [frame["update"].tolist() for frame in frames] == [[1], [2, 3], [4, 5]]


def test_rows_that_cannot_be_written_are_not_tried_again():
    def full(frame, _):
        tries.append(len(frame))
        raise OSError(28, "No space left on device")

    tries = []
    with pytest.raises(OSError, match="No space"), RowBuffer(full, 0) as rows:
        rows.add(pd.DataFrame({"update": [1]}))
    assert tries == [1]
