import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from src_pure.runs.rundir import RunDir, read_metrics
from tests.runs.frames import IDENTITY, metrics_frame, new_run


@pytest.fixture
def run(tmp_path) -> RunDir:
    return new_run(tmp_path / "new" / "run", "seed: 0\n", IDENTITY)


def test_a_new_run_holds_its_config_and_nothing_else(run):
    assert {item.name for item in run.path.iterdir()} == {"config.yaml", "run.json", "checkpoints"}
    assert (run.path / "config.yaml").read_text() == "seed: 0\n"


def test_an_empty_folder_is_taken(tmp_path):
    assert new_run(str(tmp_path), "", IDENTITY).path == tmp_path


def test_a_used_folder_is_refused_and_left_alone(run):
    with pytest.raises(
        FileExistsError, match=r"run_dir=.*new/run is not empty \(config.yaml\); choose another"
    ) as caught:
        new_run(run.path, "seed: 1\n", IDENTITY)
    assert "\n" not in str(caught.value)
    assert (run.path / "config.yaml").read_text() == "seed: 0\n"


def test_a_folder_that_cannot_be_made_is_named_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match=r"^cannot make run_dir=.*file/run: Not a directory; choose [^\n]*$"):
        new_run(tmp_path / "file" / "run", "", IDENTITY)


def test_appended_rows_are_all_on_disk_after_every_call(run):
    for last in (4, 8):
        run.append_metrics(metrics_frame(range(last - 3, last + 1)))
        rows = pq.read_table(run.path / "metrics.parquet").to_pylist()
        assert [(row["update"], row["run"]) for row in rows] == [(u, r) for u in range(1, last + 1) for r in (0, 1)]
    assert {item.name for item in run.path.iterdir()} == {"config.yaml", "run.json", "checkpoints", "metrics.parquet"}


def test_columns_have_one_order_and_one_type_whatever_the_frame_has(run):
    frame = metrics_frame([1, 2])
    backwards = frame[frame.columns[::-1]].astype({"env_steps": "int32", "update": "float64", "policy_loss": "float32"})
    run.append_metrics(backwards)
    run.append_metrics(metrics_frame([3]))
    schema = pq.read_table(run.path / "metrics.parquet").schema
    integers = ["run", "seed", "update", "env_steps", "episodes"]
    assert schema.names == [*integers, "episode_return", "episode_length", "success_rate", "policy_loss"]
    assert [str(kind) for kind in schema.types] == ["int64"] * 5 + ["double"] * 4


@pytest.mark.parametrize("missing", [np.nan, None, pd.NA])
def test_missing_values_are_null_and_never_nan(run, missing):
    frame = metrics_frame([1, 2], num_runs=1)
    frame["success_rate"] = pd.Series([missing, 0.5], dtype=object)
    frame["episode_return"] = pd.array([missing, 0.5], dtype="Float64")
    frame["policy_loss"] = np.array([np.nan, 0.5], dtype=np.float32)
    run.append_metrics(frame)
    table = pq.read_table(run.path / "metrics.parquet")
    for name in ("success_rate", "episode_return", "policy_loss"):
        assert table[name].to_pylist() == [None, 0.5]


def test_steps_beyond_32_bits_survive(run):
    run.append_metrics(metrics_frame([1], num_runs=1).assign(env_steps=5 * 10**9))
    assert read_metrics(run.path)["env_steps"].tolist() == [5_000_000_000]


def test_a_row_without_its_update_is_refused(run):
    with pytest.raises(ValueError, match=r"every row needs a value in \['update'\]"):
        run.append_metrics(metrics_frame([1], num_runs=1).assign(update=np.nan))


def test_an_opened_run_continues_its_rows(run):
    run.append_metrics(metrics_frame([1, 2]))
    RunDir.open(run.path).append_metrics(metrics_frame([3]))
    assert read_metrics(run.path)["update"].tolist() == [1, 1, 2, 2, 3, 3]


def test_a_start_that_was_killed_before_its_config_leaves_the_folder_free(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / ".config.yaml.0abc.partial").write_text("se")
    new_run(tmp_path, "seed: 1\n", IDENTITY)
    assert (tmp_path / "config.yaml").read_text() == "seed: 1\n"
    assert not (tmp_path / ".config.yaml.0abc.partial").exists()


def test_tables_are_rewound_to_an_update(run):
    run.append_metrics(metrics_frame([1, 2]))
    run.append_metrics(metrics_frame([3]))
    RunDir.open(run.path).rewind(2)
    assert read_metrics(run.path)["update"].tolist() == [1, 1, 2, 2]
    again = RunDir.open(run.path)
    assert again.metrics.first_missing(range(1, 4)) == 3 and again.evaluation.first_missing(range(4)) == 0
    again.rewind(0)
    assert not (run.path / "metrics.parquet").exists()
    again.append_metrics(metrics_frame([1]))
    assert read_metrics(run.path)["update"].tolist() == [1, 1]


def test_evaluation_is_a_file_of_its_own(run):
    row = {"run": 0, "seed": 3, "update": 7, "env_steps": 70, "mode": "greedy", "episodes": 5, "unfinished": 1}
    run.append_evaluation(pd.DataFrame([{**row, "episode_return": 0.5}, {**row, "mode": "sampled"}]))
    table = pq.read_table(run.path / "evaluation.parquet")
    assert table.to_pylist() == [{**row, "episode_return": 0.5}, {**row, "mode": "sampled", "episode_return": None}]
    assert table.schema.field("unfinished").type == pa.int64()


def test_what_a_killed_write_left_does_not_matter(run):
    run.append_metrics(metrics_frame([1]))
    (run.path / ".config.yaml.0abc.partial").write_bytes(b"half")
    (run.path / "metrics.parquet" / ".0000000002-0000000002.0abc.partial").write_bytes(b"half")
    (run.path / ".evaluation.parquet.0abc.partial").mkdir()
    (run.path / ".evaluation.parquet.0abc.partial" / "part").write_bytes(b"half")
    again = RunDir.open(run.path)
    again.rewind(1)
    again.append_metrics(metrics_frame([2]))
    assert len(list((run.path / "metrics.parquet").iterdir())) == 2
    assert {item.name for item in run.path.iterdir()} == {"config.yaml", "run.json", "checkpoints", "metrics.parquet"}


def test_the_summary_is_strict_json(run):
    final = {"mean": np.float32(0.5), "interval": (np.nan, np.inf), "episodes": np.int64(7), "runs": pd.NA}
    run.write_summary({"final": final, "speeds": np.array([1.0, -np.inf]), 3: float("nan"), "commit": None})

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    read = json.loads((run.path / "summary.json").read_text(), parse_constant=refuse)
    assert read["final"] == {"mean": 0.5, "interval": [None, None], "episodes": 7, "runs": None}
    assert read["speeds"] == [1.0, None] and read["3"] is None and read["commit"] is None


def test_a_summary_that_cannot_be_written_leaves_the_old_one(run):
    run.write_summary({"env_steps": 1})
    with pytest.raises(TypeError):
        run.write_summary({"env_steps": object()})
    assert json.loads((run.path / "summary.json").read_text()) == {**IDENTITY._asdict(), "env_steps": 1}


def test_log_lines_are_appended_with_their_time(run):
    run.log("compiled in 3 s")
    RunDir.open(run.path).log("done")
    lines = (run.path / "log.txt").read_text().splitlines()
    assert [line.split("  ", 1)[1] for line in lines] == ["compiled in 3 s", "done"]


def test_only_a_new_run_is_discarded(tmp_path):
    new = new_run(tmp_path / "new", "seed: 0\n", IDENTITY)
    RunDir.open(tmp_path / "new").discard()
    assert (tmp_path / "new" / "config.yaml").exists()
    new.discard()
    assert not (tmp_path / "new").exists()
