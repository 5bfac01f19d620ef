"""Run folders and sweep folders as tables."""

import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import src_pure
from src_pure.errors import ConfigError, DamagedError
from src_pure.results.reading import config_of_run, read_run, read_runs
from src_pure.runs.folder import Folder
from src_pure.runs.lock import locked
from tests.conftest import REPOSITORY
from tests.results.sweeps import grid, make_sweep

POINTS = grid(algo__learning_rate=[1e-4, 1e-3], model__size=[8, 16])


def score(values, seed):
    return values["algo.learning_rate"] * 100 + values["model.size"] / 100 + seed / 1000


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """12 runs in four batches of three: two finished, one stopped, one waiting; run 4 failed."""
    folder = tmp_path_factory.mktemp("sweeps") / "sweep"
    return make_sweep(folder, POINTS, score, per_batch=3, failed=[4], states={2: "stopped", 3: "waiting"})


def test_metrics_of_all_batches_know_their_run(sweep):
    rows = src_pure.read_run(sweep)
    counts = rows.groupby("run").size()
    assert counts.to_dict() == {0: 10, 1: 10, 2: 10, 3: 10, 4: 3, 5: 10, 6: 5, 7: 5, 8: 5}
    assert list(rows).count("seed") == 1 and not [name for name in rows if name.endswith(("_x", "_y"))]
    for run, members in rows.groupby("run"):
        values = POINTS[int(run) // 3]
        assert set(members["point"]) == {int(run) // 3} and set(members["seed"]) == {int(run) % 3}
        assert set(members["algo.learning_rate"]) == {values["algo.learning_rate"]}
        assert set(members["model.size"]) == {values["model.size"]}
    assert rows["success_rate"].notna().all() and sorted(set(rows["update"])) == list(range(1, 11))


def test_the_evaluation_has_both_modes_of_finished_runs(sweep):
    rows = read_run(str(sweep), table="evaluation")
    assert sorted(set(rows["run"])) == [0, 1, 2, 3, 5] and set(rows["mode"]) == {"sampled", "greedy"}
    sampled = rows[rows["mode"] == "sampled"].set_index("run")["success_rate"]
    assert sampled[5] == pytest.approx(score(POINTS[1], 2))


def test_states_are_those_of_the_batches(sweep, tmp_path):
    assert read_runs(sweep)["state"].tolist() == (
        ["finished"] * 4 + ["failed", "finished"] + ["stopped"] * 3 + ["waiting"] * 3
    )
    copy = shutil.copytree(sweep, tmp_path / "copy")
    runs = pd.read_parquet(copy / "runs.parquet").assign(state="waiting")  # as before any batch ended
    runs.to_parquet(copy / "runs.parquet")
    shutil.rmtree(copy / "batches" / "000")
    with Folder(copy / "batches" / "002") as batch, locked(batch):
        assert read_runs(copy)["state"].tolist() == (
            ["waiting"] * 3 + ["finished", "failed", "finished"] + ["running"] * 3 + ["waiting"] * 3
        )


def test_runs_of_a_run_folder_come_from_its_lanes(sweep):
    runs = read_runs(sweep / "batches" / "001")
    assert runs["run"].tolist() == [3, 4, 5] and runs["seed"].tolist() == [0, 1, 2]
    assert runs["state"].tolist() == ["finished", "failed", "finished"] and set(runs["point"]) == {0}
    assert set(runs["model.size"]) == {16}
    assert read_runs(sweep / "batches" / "002")["state"].tolist() == ["stopped"] * 3
    assert read_runs(sweep / "batches" / "003")["state"].tolist() == ["waiting"] * 3
    published = REPOSITORY / "docs" / "results" / "pqn" / "ppo"  # seeds alone, and no identity
    runs = read_runs(published)
    assert runs[["run", "seed", "point"]].to_numpy().tolist() == [[0, 0, 0], [1, 1, 0], [2, 2, 0]]
    assert set(runs["state"]) == {"finished"} and len(read_run(published)) == 3 * 244


def test_the_configuration_of_a_run_trains_it_alone(sweep):
    config = config_of_run(sweep / "batches" / "001", 4)
    assert config["seed"] == 1 and config["num_seeds"] == 1
    assert config["model"]["size"] == 16 and config["algo"]["learning_rate"] == 1e-4
    assert "lanes" not in config and "run" not in config
    with pytest.raises(DamagedError, match="has no run 7"):
        config_of_run(sweep / "batches" / "001", 7)


def damage_nothing_yet(folder):
    shutil.rmtree(folder / "batches")


def damage_bytes(folder):
    (folder / "runs.parquet").write_bytes(b"PAR1")


def damage_columns(folder):
    pd.read_parquet(folder / "runs.parquet").drop(columns="state").to_parquet(folder / "runs.parquet")


def damage_rows(folder):
    pd.read_parquet(folder / "runs.parquet").iloc[[0, 0]].to_parquet(folder / "runs.parquet")


def damage_runs(folder):
    pd.read_parquet(folder / "runs.parquet").iloc[1:].to_parquet(folder / "runs.parquet")


@pytest.mark.parametrize(
    ("damage", "kind", "message"),
    [
        (damage_nothing_yet, FileNotFoundError, "batches"),
        (damage_bytes, DamagedError, "runs.parquet cannot be read"),
        (damage_columns, DamagedError, "it has no column state"),
        (damage_rows, DamagedError, "every run must have one row"),
        (damage_runs, DamagedError, "holds run 0, which .* lacks"),
        (lambda folder: (folder / "runs.parquet").unlink(), DamagedError, "runs.parquet is missing"),
        (shutil.rmtree, FileNotFoundError, "no run folder"),
    ],
)
def test_a_damaged_sweep_is_one_error(sweep, tmp_path, damage, kind, message):
    copy = shutil.copytree(sweep, tmp_path / "copy")
    damage(copy)
    with pytest.raises(kind, match=message):
        read_run(copy)


def test_a_sweep_without_rows_is_one_error(tmp_path):
    folder = make_sweep(tmp_path / "sweep", POINTS, score, states={0: "waiting"})
    with pytest.raises(FileNotFoundError, match=r"no metrics.parquet in .*batches yet"):
        read_run(folder)


def test_an_unknown_table_is_refused(sweep):
    with pytest.raises(ConfigError, match="table must be one of metrics, evaluation, got 'losses'"):
        read_run(sweep, table="losses")


def test_importing_the_package_stays_cheap():
    code = "import sys, src_pure; src_pure.read_run; print('pandas' in sys.modules or 'jax' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=REPOSITORY, text=True) == "False\n"


def test_values_of_every_kind_survive(tmp_path):
    points = [{"algo.anneal_lr": True, "model": "gru", "algo.learning_rate": 1e-3, "x": None},
              {"algo.anneal_lr": False, "model": "lstm", "algo.learning_rate": 2e-3, "x": 4.0}]  # fmt: skip
    folder = make_sweep(tmp_path / "sweep", points, lambda values, seed: 0.5, seeds=[0])
    rows = read_run(folder, "evaluation")
    assert rows.groupby("run")["model"].first().tolist() == ["gru", "lstm"]
    assert rows.groupby("run")["algo.anneal_lr"].first().tolist() == [True, False]
    assert np.isnan(rows.loc[rows["run"] == 0, "x"]).all()
