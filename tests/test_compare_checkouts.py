"""What counts as a difference between two checkouts; trains nothing."""

import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pandas as pd
import pytest

from scripts.compare_checkouts import CASES, contents, differing_bits, written_for
from src_pure.config.compose import compose
from tests.conftest import REPOSITORY

ONE = np.ones(2, np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint8, ml_dtypes.bfloat16])
def test_equal_arrays_differ_in_no_bit(dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    assert differing_bits({"x": array}, {"x": array.copy()}) == {"x": 0}


def test_every_bit_counts():
    nearly_one = np.nextafter(ONE, np.float32(2))  # 0x3F800001 after 0x3F800000
    assert differing_bits({"x": ONE}, {"x": nearly_one}) == {"x": 2}
    assert differing_bits({"x": np.array([0.0])}, {"x": np.array([-0.0])}) == {"x": 1}
    assert differing_bits({"x": np.array([True])}, {"x": np.array([False])}) == {"x": 1}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16])
def test_nan_equals_nan_and_nothing_else(dtype):
    nan = np.array([np.nan, 1], dtype)
    assert differing_bits({"x": nan}, {"x": -nan * np.array([1, -1], dtype)}) == {"x": 0}
    assert differing_bits({"x": nan}, {"x": np.array([0, 1], dtype)})["x"] > 0


@pytest.mark.parametrize("other", [{}, {"x": ONE[:1]}, {"x": ONE.astype(np.int32)}, {"x": ONE[None]}])
def test_all_bits_of_a_missing_array_and_of_another_form_differ(other):
    assert differing_bits({"x": ONE}, other) == differing_bits(other, {"x": ONE}) == {"x": 64}


def test_text_counts_by_value():
    words = np.array(["greedy", "sampled", np.nan], object)
    assert differing_bits({"mode": words}, {"mode": words.copy()}) == {"mode": 0}
    assert differing_bits({"mode": words}, {"mode": np.array(["greedy", np.nan, np.nan], object)}) == {"mode": 1}


@pytest.mark.parametrize("parts", [False, True])
def test_tables_are_read_as_files_and_as_folders(tmp_path, parts):
    """Of the checkpoints, reads the newest: by number, not by name; a leading dot marks unfinished ones."""
    frame = pd.DataFrame({"update": [1, 2], "loss": [0.5, np.nan]})
    for table in ("metrics.parquet", "evaluation.parquet"):
        if parts:
            (tmp_path / table).mkdir()
        frame.to_parquet(tmp_path / table / "1.parquet" if parts else tmp_path / table)
    for update in (9, 10):
        ocp.Checkpointer(ocp.StandardCheckpointHandler()).save(
            tmp_path / f"checkpoints/{update}/state", args=ocp.args.StandardSave({"x": np.full(2, update)})
        )
    (tmp_path / "checkpoints/.11.partial").mkdir()
    found = contents(tmp_path)
    assert {"metrics.update", "metrics.loss", "evaluation.update", "evaluation.loss", "checkpoint.x"} == set(found)
    np.testing.assert_array_equal(found["checkpoint.x"], [10, 10])
    np.testing.assert_array_equal(found["metrics.loss"], [0.5, np.nan])


def test_keys_are_written_as_a_checkout_knows_them(tmp_path):
    (tmp_path / "configs/model").mkdir(parents=True)
    (tmp_path / "configs/config.yaml").write_text("num_envs: 64\nevaluation:\n  interval: 0\n")
    (tmp_path / "configs/model/galite.yaml").write_text("name: galite\nblock: gtrxl\n")
    overrides = ["model=galite", "model.residual=pre_norm", "vector.truncation=bootstrap", "num_envs=8"]
    written = ["model=galite", "model.block=trxl", "algo.truncation=bootstrap", "num_envs=8"]
    assert written_for(tmp_path, overrides) == written


@pytest.mark.parametrize("name", CASES)
def test_configurations_are_known_here(name):
    compose(written_for(REPOSITORY, CASES[name].split()))
