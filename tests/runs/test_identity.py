"""Files of another run in a run folder are refused by name, and nothing is touched."""

import json
import shutil
from functools import cache

import pandas as pd
import pyarrow.parquet as pq
import pytest

import trainer_pure
from scripts import export, plot
from src_pure.runs.columns import to_arrow
from src_pure.runs.identity import config_digest, read_identity
from tests.runs.conftest import OPTIONS
from tests.runs.frames import write_part, write_table

FILES = ("checkpoints", "metrics.parquet", "evaluation.parquet", "summary.json", "run.json", "config.yaml")


@pytest.fixture(scope="module")
def others(unbroken, tmp_path_factory):
    """A function from a name to the folder of the same run again, or of one that differs in its seed."""

    @cache
    def folder_of(name):
        folder = tmp_path_factory.mktemp("runs") / name
        options = {"same command": OPTIONS, "another seed": [*OPTIONS, "seed=4"]}[name]
        assert trainer_pure.main([*options, f"run_dir={folder}"]) == 0
        return folder

    return folder_of


def snapshot(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def put(source, folder, name):
    """Puts the file or folder of another run in place of this one's."""
    remove(folder / name)
    (shutil.copytree if (source / name).is_dir() else shutil.copy)(source / name, folder / name)


@pytest.mark.parametrize("unfinished", [True, False])
@pytest.mark.parametrize("other", ["another seed", pytest.param("same command", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_run_is_refused(unbroken, others, tmp_path, capsys, name, other, unfinished):
    if name == "summary.json" and unfinished:
        pytest.skip("an unfinished run has none")
    if name == "config.yaml" and other == "same command":
        pytest.skip("it is the same file")
    folder = shutil.copytree(unbroken, tmp_path / "run")
    if unfinished:
        (folder / "summary.json").unlink()
    put(others(other), folder, name)
    before = snapshot(folder)
    for end in ([], ["total_steps=1280"]):
        assert trainer_pure.main([*OPTIONS, *end, f"run_dir={folder}"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert name == "run.json" or name in error or "another configuration: seed" in error
        assert snapshot(folder) == before


@pytest.mark.parametrize("name", ["metrics.parquet", "evaluation.parquet", "checkpoints/10", "run.json"])
def test_what_a_finished_folder_lacks_is_named(unbroken, tmp_path, capsys, name):
    folder = shutil.copytree(unbroken, tmp_path / "run")
    remove(folder / name)
    before = snapshot(folder)
    assert trainer_pure.main([*OPTIONS, f"run_dir={folder}"]) == 2
    captured = capsys.readouterr()
    wanted = "checkpoint of update 10" if name == "checkpoints/10" else name
    assert wanted in captured.err and captured.err.count("\n") == 1 and "is finished" not in captured.out
    assert snapshot(folder) == before


@pytest.mark.parametrize(
    "content", ['{"env_steps": "x", "runs": 2}', "[]", "{", "7", '{"run_id": 3, "config_sha256": null}', "[" * 100_000]
)
@pytest.mark.parametrize("name", ["summary.json", "run.json", "checkpoints/10/checkpoint.json"])
def test_json_of_other_types_is_one_line(unbroken, tmp_path, capsys, name, content):
    folder = shutil.copytree(unbroken, tmp_path / "run")
    (folder / name).write_text(content)
    assert trainer_pure.main([*OPTIONS, f"run_dir={folder}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and ("checkpoint" if "/" in name else name) in error


def test_every_json_file_says_whose_it_is(unbroken):
    identity = json.loads((unbroken / "run.json").read_text())
    for file in [unbroken / "summary.json", *unbroken.glob("checkpoints/*/checkpoint.json")]:
        assert identity.items() <= json.loads(file.read_text()).items()


def test_a_digest_is_of_what_changes_numbers():
    config = {"seed": 1, "total_steps": 5, "wandb": {"name": "a"}, "task": {"name": "x", "corridor_len": 3}}
    same = {"seed": 1, "total_steps": 6, "wandb": {"name": "b"}, "task": {"name": "y", "corridor_len": 3}}
    other = {"seed": 1, "total_steps": 5, "wandb": {"name": "a"}, "task": {"name": "x", "corridor_len": 4}}
    assert config_digest(config) == config_digest(same) != config_digest(other)


def test_scripts_look_whose_files_they_are(unbroken, others, tmp_path, capsys):
    """Also those that only read."""
    for script, name in ((export, "checkpoints"), (export, "evaluation.parquet"), (plot, "metrics.parquet")):
        folder = shutil.copytree(unbroken, tmp_path / name)
        put(others("another seed"), folder, name)
        assert script.main([str(folder)]) == 2
        error = capsys.readouterr().err
        assert name in error and "belongs to another run" in error and error.count("\n") == 1


def test_a_table_that_another_program_wrote_is_not_the_runs(to_continue, capsys):
    """That program knows neither the names of parts nor what a part says about its run."""
    path = to_continue / "metrics.parquet"
    frame = pd.read_parquet(path)
    shutil.rmtree(path)
    for content in ("part", "folder"):
        if content == "part":
            write_part(path, to_arrow(frame), 1, 10, None)
        else:
            frame.to_parquet(path, partition_cols=["run"])
        assert trainer_pure.main([*OPTIONS, f"run_dir={to_continue}"]) == 2
        error = capsys.readouterr().err
        assert ("does not say which run it belongs to" in error) == (content == "part") and error.count("\n") == 1


@pytest.mark.parametrize("name", ["update", "episodes", "run"])
def test_a_table_without_a_column_is_one_line(to_continue, capsys, name):
    path = to_continue / "metrics.parquet"
    rows = pq.read_table(path)
    shutil.rmtree(path)
    write_part(path, rows.drop_columns([name]), 1, 10, read_identity(to_continue))
    for main, arguments in ((trainer_pure.main, [*OPTIONS, f"run_dir={to_continue}"]), (plot.main, [str(to_continue)])):
        assert main(arguments) == 2
        assert f"it has no column {name}" in capsys.readouterr().err


def test_files_of_two_copies_of_a_run_do_not_mix(to_continue, capsys):
    """They have one identity, but may have continued differently."""
    path = to_continue / "metrics.parquet"
    rows = pd.read_parquet(path)
    rows.loc[rows["update"] == 9, "loss"] += 1e-9
    write_table(path, rows)
    before = snapshot(to_continue)
    assert trainer_pure.main([*OPTIONS, f"run_dir={to_continue}"]) == 2
    assert "has other rows of update 9 than checkpoint 9 was saved with" in capsys.readouterr().err
    assert snapshot(to_continue) == before
