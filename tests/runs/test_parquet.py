"""Tables that are damaged are refused, wherever the damage is."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from src_pure.errors import DamagedError
from src_pure.runs import parquet
from tests.runs.frames import IDENTITY, metrics_frame


@pytest.fixture
def table():
    return pa.Table.from_pandas(metrics_frame(range(1, 40)))


@pytest.fixture
def path(table, tmp_path):
    path = tmp_path / "metrics.parquet"
    with path.open("wb") as file:
        parquet.write(table, file, IDENTITY)
    return path


def test_a_table_comes_back_and_others_can_read_it(table, path):
    assert parquet.read(path) == (table, IDENTITY)
    assert pq.read_table(path).equals(table)
    pd.testing.assert_frame_equal(pd.read_parquet(path), table.to_pandas())


def assert_exact_or_refused(path, content, table):
    """Whether it is refused; what is read is what was written, up to the names of its columns."""
    path.write_bytes(content)
    try:
        found, identity = parquet.read(path)
    except DamagedError as error:
        assert "metrics.parquet cannot be read: " in str(error) and "\n" not in str(error)
        return True
    assert found.equals(table) and identity == IDENTITY
    return False


@pytest.mark.parametrize("part", ["anywhere", "footer"])
def test_other_bytes_are_noticed(table, path, part):
    """One byte is another, 100 times in the whole file and 100 times in the footer, where parquet notices little."""
    content, rng = path.read_bytes(), np.random.default_rng(1)
    first = 0 if part == "anywhere" else content.rindex(parquet.MARK) + parquet.LENGTH
    refused = 0
    for offset in rng.integers(first, len(content), size=100):
        damaged = bytearray(content)
        damaged[offset] ^= rng.integers(1, 256)
        refused += assert_exact_or_refused(path, damaged, table)
    assert refused == 100 if part == "footer" else refused > 95


def test_an_end_that_is_missing_is_noticed(table, path):
    content, rng = path.read_bytes(), np.random.default_rng(2)
    for length in (0, 1, 7, 8, 12, *rng.integers(len(content), size=50)):
        assert assert_exact_or_refused(path, content[:length], table)


def test_a_table_without_a_digest_is_read(table, path):
    """Published results have been written without."""
    pq.write_table(table, path)
    assert parquet.read(path) == (table, None)
