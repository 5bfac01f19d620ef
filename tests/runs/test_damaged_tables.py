"""Every reader refuses tables that are not what their run wrote."""

import os

import numpy as np
import pytest

from src_pure.errors import DamagedError, ForeignError, OddFileError
from src_pure.runs import parquet, tables
from src_pure.runs.columns import to_arrow
from src_pure.runs.identity import Identity
from src_pure.runs.tables import Table
from tests.runs.frames import IDENTITY, metrics_frame, parts, three_parts, write_content, write_part

OTHER = Identity(run_id="2" * 32, config_sha256="1" * 64)


@pytest.fixture
def path(tmp_path):
    """A table of updates 1 to 9 in three parts."""
    return three_parts(tmp_path / "metrics.parquet").path


def refused(path, error=DamagedError):
    """The line with which every reader of the whole table refuses it."""
    lines = []
    for read in (Table.check, Table.frame):
        with pytest.raises(error, match=r"^[^\n]*metrics\.parquet[^\n]*$") as caught:
            read(Table(path, path, IDENTITY))
        lines.append(str(caught.value))
    assert lines[0] == lines[1]
    return lines[0]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_other_bytes_are_noticed(path, number):
    part, rng = parts(path)[number], np.random.default_rng(number)
    content = part.read_bytes()
    for offset in rng.integers(0, len(content), size=30):
        damaged = bytearray(content)
        damaged[offset] ^= rng.integers(1, 256)
        part.write_bytes(damaged)
        assert "its bytes are not those that were written" in refused(path)
    for length in (0, 1, *rng.integers(len(content), size=10)):
        part.write_bytes(content[:length])
        assert "its bytes are not those that were written" in refused(path)
    part.write_bytes(content)
    Table(path, path, IDENTITY).check()


@pytest.mark.parametrize(("number", "update"), [(0, 1), (1, 4)])
def test_a_part_that_is_missing_is_noticed(path, number, update):
    parts(path)[number].unlink()
    assert f"has no rows of update {update}; restore the part that has them" in refused(path)


def test_a_part_that_vanishes_after_it_was_listed_is_noticed(path):
    table = Table(path, path, IDENTITY)
    parts(path)[2].unlink()
    with pytest.raises(DamagedError, match="lacks the rows of updates 7 to 9; restore them"):
        table.frame()


@pytest.mark.parametrize("updates", [[9], [6, 7], [1, 2]])
def test_parts_that_overlap_are_noticed(path, updates):
    write_part(path, to_arrow(metrics_frame(updates)), updates[0], updates[-1], IDENTITY)
    assert "has updates that another part has as well; remove one" in refused(path)


@pytest.mark.parametrize(("first", "last"), [(10, 12), (10, 10), (10, 9_999_999_999)])
def test_a_part_with_the_name_of_another_is_noticed(path, first, last):
    write_part(path, to_arrow(metrics_frame([10, 11])), first, last, IDENTITY)
    assert "holds other updates than its name says" in refused(path)


def test_a_part_that_lacks_an_update_is_noticed(path):
    write_part(path, to_arrow(metrics_frame([10, 12], num_runs=1)), 10, 12, IDENTITY)
    assert "holds other updates than its name says" in refused(path)


@pytest.mark.parametrize(("first", "last"), [(10, 12), (11, 13), (10, 14), (12, 13)])
def test_a_part_of_means_with_the_name_of_another_is_noticed(path, first, last):
    content = parquet.encode(to_arrow(metrics_frame([13])), IDENTITY, first=10)
    part = write_content(path, content, 10, 13)
    Table(path, path, IDENTITY).check()
    part.rename(path / part.name.replace("0000000010-0000000013", f"{first:010}-{last:010}"))
    wanted = "holds other updates than its name says" if first == 10 else "has no rows of update 10"
    assert wanted in refused(path)


@pytest.mark.parametrize("first", ["ten", "", "9" * 5000])
def test_a_part_of_means_from_no_number_is_refused(path, first):
    write_content(path, parquet.encode(to_arrow(metrics_frame([13])), IDENTITY, first=first), 10, 13)
    assert "cannot be read" in refused(path)


def test_parts_of_other_columns_are_noticed(path):
    frame = metrics_frame([10])
    write_part(path, to_arrow(frame.rename(columns={"policy_loss": "entropy"})), 10, 10, IDENTITY)
    assert "its columns are not those of the other parts" in refused(path)


@pytest.mark.parametrize("name", ["run", "seed", "update", "env_steps", "episodes"])
def test_a_part_without_a_column_of_every_row_is_noticed(path, name):
    write_part(path, to_arrow(metrics_frame([10])).drop_columns([name]), 10, 10, IDENTITY)
    assert f"it has no column {name}" in refused(path)


@pytest.mark.parametrize(("identity", "line"), [(OTHER, "belongs to another run"), (None, "does not say which run")])
def test_a_part_of_another_run_is_refused(path, identity, line):
    write_part(path, to_arrow(metrics_frame([10])), 10, 10, identity)
    assert line in refused(path, ForeignError)


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "part.parquet",
        f"0000000010-0000000009.{'0' * 64}.parquet",
        f"0000000000-0000000009.{'0' * 64}.parquet",
        f"0000000010-0000000010.{'A' * 64}.parquet",
        f"10-10.{'0' * 64}.parquet",
        f"000000001²-0000000019.{'0' * 64}.parquet",
    ],
)
def test_other_names_are_refused(path, name):
    (path / name).touch()
    with pytest.raises(OddFileError, match="is not a part of a table; remove it"):
        Table(path, path, IDENTITY)


@pytest.mark.parametrize("name", ["own", "another.parquet", ".another.partial"])
@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_what_is_not_a_file_is_refused(path, tmp_path, name, kind):
    odd = parts(path)[1] if name == "own" else path / name
    if name == "own":
        odd.rename(tmp_path / "elsewhere")
    {"pipe": os.mkfifo, "link": lambda odd: odd.symlink_to(tmp_path / "elsewhere"), "folder": os.mkdir}[kind](odd)
    with pytest.raises(OddFileError, match=r"must be a file, found a (pipe|symbolic link|folder)"):
        Table(path, path, IDENTITY)


def test_content_with_the_right_digest_that_is_no_table_is_refused(path):
    write_content(path, b"PAR1 no table PAR1", 10, 10)
    assert "cannot be read" in refused(path)


def test_a_table_that_cannot_fit_in_memory_is_not_read(path, monkeypatch):
    size = sum(part.stat().st_size for part in parts(path))
    monkeypatch.setattr(tables, "host_memory", lambda: 2 * (size - 1))
    with pytest.raises(OddFileError, match=f"must have at most {size - 1:,} bytes, it has {size:,}"):
        Table(path, path, IDENTITY).frame()


def test_a_folder_that_was_replaced_by_a_link_gets_nothing(path, tmp_path):
    table = Table(path, path, IDENTITY)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OddFileError, match=r"metrics\.parquet must be a folder, found a symbolic link"):
        table.append(metrics_frame([10]))
    assert len(parts(tmp_path / "elsewhere")) == 3
