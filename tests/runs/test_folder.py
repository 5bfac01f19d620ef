"""Run folders that another program made, with links, pipes, devices or absurd sizes: one line, nothing read outside."""

import json
import os
import shutil

import numpy as np
import orbax.checkpoint as ocp
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flax import serialization

import trainer_pure
from src_pure import load_policy
from src_pure.errors import CheckpointError, DamagedError, OddFileError
from src_pure.runs import folder as folder_module
from src_pure.runs.atomic import write_whole
from src_pure.runs.checkpoint import KIND, STATE
from src_pure.runs.columns import IN_METRICS
from src_pure.runs.folder import append_line, files_below, read_file
from src_pure.runs.policies import export_policy, read_trained
from src_pure.runs.rundir import read_metrics
from tests.runs.conftest import OPTIONS
from tests.runs.frames import write_content, write_part
from tests.runs.test_identity import remove, snapshot

FILES = ("config.yaml", "run.json", "summary.json", "log.txt", ".lock")
TABLES = ("metrics.parquet", "evaluation.parquet")
FOLDERS = (*TABLES, "checkpoints", "wandb", ".wandb", "tensorboard", "plots", "policies", "checkpoints/10")


def make_odd(path, kind, elsewhere):
    """Something else in place of a file or folder: a link out of the folder, one to itself, a pipe, a device."""
    if os.path.lexists(path):
        if kind == "link" and path.exists():
            shutil.move(path, elsewhere)
        else:
            remove(path)
    if kind == "link":
        path.symlink_to(elsewhere)
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero, which never ends


NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may make devices")
KINDS = ["link", "loop", "pipe", pytest.param("device", marks=NEEDS_ROOT)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*FILES, *FOLDERS, "checkpoints/10/checkpoint.json", "checkpoints/10/state/_METADATA"])
def test_what_is_neither_file_nor_folder_is_refused(unbroken, tmp_path, capsys, name, kind):
    folder = shutil.copytree(unbroken, tmp_path / "run")
    make_odd(folder / name, kind, tmp_path / "elsewhere")
    assert trainer_pure.main([*OPTIONS, f"run_dir={folder}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and (name in error or "is not empty" in error)
    assert os.path.lexists(folder / name) and not list(folder.rglob("*.damaged"))


@pytest.mark.parametrize("name", ["notes", "-3", "1e3", " 7", "10 "])
def test_names_that_are_not_numbers_are_not_checkpoints(unbroken, tmp_path, name, capsys):
    folder = shutil.copytree(unbroken, tmp_path / "run")
    (folder / "checkpoints" / name).mkdir()
    assert trainer_pure.main([*OPTIONS, f"run_dir={folder}"]) == 0
    assert "is finished" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["²", "01", "9" * 30, ".x.partial", "9.damaged"])
def test_odd_names_in_checkpoints_are_refused_before_anything_is_compiled(to_continue, tmp_path, name, capsys):
    (to_continue / "checkpoints" / name).symlink_to(tmp_path)
    before = snapshot(to_continue)
    assert trainer_pure.main([*OPTIONS, f"run_dir={to_continue}"]) == 2
    error = capsys.readouterr().err
    assert name in error and error.count("\n") == 1 and snapshot(to_continue) == before


def test_a_renamed_checkpoint_is_refused_and_not_thrown_away(to_continue, capsys):
    (to_continue / "checkpoints" / "9").rename(to_continue / "checkpoints" / "8")
    assert trainer_pure.main([*OPTIONS, f"run_dir={to_continue}"]) == 2
    assert "8 is of update 9; give it that name" in capsys.readouterr().err


@pytest.mark.parametrize("name", [".lock", "log.txt"])
def test_a_file_that_is_written_in_place_has_one_name(to_continue, tmp_path, name, capsys):
    (tmp_path / "victim").write_text("precious")
    (to_continue / name).unlink(missing_ok=True)
    (to_continue / name).hardlink_to(tmp_path / "victim")
    assert trainer_pure.main([*OPTIONS, f"run_dir={to_continue}"]) == 2
    assert f"{name} must have one name" in capsys.readouterr().err
    assert (tmp_path / "victim").read_text() == "precious"


def test_reading_never_waits_and_never_follows(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/passwd")
    for name in ("pipe", "link"):
        with pytest.raises(OddFileError, match=f"{name} must be a file, found a"):
            read_file(tmp_path / name)
        with pytest.raises(OddFileError, match=f"{name} must be a file, found a"):
            append_line(tmp_path / name, "x")
    (tmp_path / "large").write_bytes(b"12345")
    with pytest.raises(OddFileError, match="large must have at most 4 bytes, it has 5"):
        read_file(tmp_path / "large", most=4)


def test_files_of_absurd_sizes_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "host_memory", lambda: 1000)
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1001)
    with pytest.raises(OddFileError, match="must fit in memory, 1,000 bytes, it has 1,001"):
        files_below(tmp_path)
    with pytest.raises(OddFileError, match="sparse must have at most 500 bytes, it has 1,001"):
        read_file(tmp_path / "sparse")
    (tmp_path / "sparse").unlink()
    monkeypatch.setattr(folder_module, "MAX_ENTRIES", 10)
    for number in range(11):
        (tmp_path / str(number)).touch()
    with pytest.raises(OddFileError, match="at most 10 files and folders"):
        files_below(tmp_path)


def checkpoint_with(checkpoint, folder, arrays):
    """Writes a checkpoint like another one, with right digests, that holds these arrays."""
    description = json.loads((checkpoint / f"{KIND}.json").read_text())
    with write_whole(folder / checkpoint.name, KIND, description) as partial:
        ocp.Checkpointer(ocp.StandardCheckpointHandler()).save(partial / STATE, args=ocp.args.StandardSave(arrays))


def test_shapes_are_compared_before_anything_is_read(unbroken, tmp_path, capsys):
    """Digests do not protect from whoever made the folder, and a few bytes can declare terabytes of zeros."""
    folder = shutil.copytree(unbroken, tmp_path / "run")
    (folder / "summary.json").unlink()
    shutil.rmtree(folder / "checkpoints")
    (folder / "checkpoints").mkdir()
    checkpoint_with(unbroken / "checkpoints" / "10", folder / "checkpoints", {"update": np.zeros(2, np.int32)})
    assert trainer_pure.main([*OPTIONS, f"run_dir={folder}"]) == 4
    assert "does not hold this training's state: actor" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match=r"learner\.params.*is missing"):
        read_trained(folder)


def table_of(num_rows, **options):
    """The content of a parquet file with the columns of ours, whatever else it says."""
    numbers = np.ones(num_rows, np.int64)
    table = pa.table(dict.fromkeys(IN_METRICS, numbers))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (table_of(3_000_000, compression="zstd"), "it declares 15,000,000 values in"),
        (table_of(10, compression="gzip"), "it is compressed in another way than snappy"),
    ],
)
def test_tables_that_declare_more_than_they_hold_are_refused(tmp_path, content, error):
    write_content(tmp_path / "metrics.parquet", content, 1, 1)
    with pytest.raises(DamagedError, match=error):
        read_metrics(tmp_path)


def test_other_columns_than_numbers_are_refused(tmp_path):
    for column in (pa.array(["x" * 1000]), pa.array([[1]]), pa.array([b"x"]), pa.array([1], pa.timestamp("s"))):
        shutil.rmtree(tmp_path / "metrics.parquet", ignore_errors=True)
        write_part(tmp_path / "metrics.parquet", pa.table({"loss": column}), 1, 1, None)
        with pytest.raises(DamagedError, match="its column loss is of type"):
            read_metrics(tmp_path)


@pytest.fixture(scope="module")
def policy(unbroken, tmp_path_factory):
    folder = tmp_path_factory.mktemp("policies") / "policy"
    export_policy(read_trained(unbroken), 0, folder)
    return folder


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xc1",
        b"[" * 1000,
        b"\x91" * 100_000,
        serialization.msgpack_serialize([1, 2]),
        serialization.msgpack_serialize({"a": np.zeros(3)}),
        serialization.msgpack_serialize({"a": np.zeros(3)})[:-5],
        b"\xdf\xff\xff\xff\xff",
        serialization.msgpack_serialize({"params.actor.kernel": np.zeros(3)}).replace(b"\x91\x03", b"\x91\x7f"),
    ],
)
def test_parameters_that_say_something_else_are_refused(policy, tmp_path, content):
    description = json.loads((policy / "policy.json").read_text())
    with write_whole(tmp_path / "policy", "policy", description) as partial:
        (partial / "params.msgpack").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        load_policy(tmp_path / "policy")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["policy.json", "params.msgpack", "sha256.json"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_odd_policy_is_refused(policy, tmp_path, name, kind):
    folder = shutil.copytree(policy, tmp_path / "policy")
    make_odd(folder / name, kind, tmp_path / "elsewhere")
    with pytest.raises((CheckpointError, FileNotFoundError)):
        load_policy(folder)
