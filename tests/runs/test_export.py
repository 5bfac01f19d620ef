"""Which policy a run folder gives, and what is refused in one line."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from scripts import export
from src_pure import load_policy
from src_pure.errors import CheckpointError, ConfigError
from src_pure.runs import atomic
from src_pure.runs import policies as policies_module
from src_pure.runs.atomic import digests
from src_pure.runs.policies import read_params, read_trained
from tests.runs.frames import write_table


def test_the_best_run_is_said_with_its_metric(unbroken, tmp_path, capsys):
    folder = shutil.copytree(unbroken, tmp_path / "run")
    rows = pd.read_parquet(folder / "evaluation.parquet")
    last = (rows["update"] == 10) & (rows["mode"] == "sampled")
    rows["success_rate"] = np.where(last == (rows["run"] == 1), 0.75, 0.25)  # everywhere else the other run is better
    rows["episode_return"] = -rows["success_rate"]
    write_table(folder / "evaluation.parquet", rows)
    assert export.main([str(folder)]) == 0
    assert capsys.readouterr().out == (
        "run 1 (seed 4) is best: success_rate 0.750, sampled, in the evaluation after update 10\n"
        f"{folder}/policies/run_1_update_10\n"
    )
    assert export.main([str(folder), "--run", "best", "--metric", "episode_return"]) == 0
    assert capsys.readouterr().out.startswith("run 0 (seed 3) is best: episode_return -0.250, sampled")
    rows.loc[last & (rows["run"] == 1), "episodes"] = 1  # of 8: luck
    write_table(folder / "evaluation.parquet", rows)
    assert export.main([str(folder), "--out", str(folder / "x")]) == 0
    assert capsys.readouterr().out.startswith("run 0 (seed 3) is best: success_rate 0.250, sampled")
    write_table(folder / "evaluation.parquet", rows.assign(episodes=7))
    assert export.main([str(folder)]) == 2
    assert "no run has a success_rate over 8 episodes in the last evaluation" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--run", "2"], "run must be one of 0 to 1, got 2"),
        (["--run", "-1"], "argument --run: must be a whole number from 0 to 2,147,483,647, got '-1'"),
        (["--run", "0", "--metric", "episode_return"], "--metric says which run is best: leave it out, or --run 0"),
        (["--run", f"{10**9}"], "run must be one of 0 to 1, got 1000000000"),
        (["--run", f"1{'0' * 5000}"], "argument --run: must be a whole number from 0 to 2,147,483,647, got '1000"),
        (["--metric", "loss"], "metric must be one of episode_return, episode_length, success_rate, got 'loss'"),
        (["run=3"], "unrecognized arguments: run=3; see --help"),
        (["--run"], "argument --run: expected one argument; see --help"),
        (["--run", "0", "--out", "{run}"], "{run} is there already; choose another --out FOLDER or delete it"),
        (["--run", "0", "--out", f"{{run}}/{'x' * 300}"], "{run}/" + "x" * 300 + ": File name too long"),
        (["--run", "0", "--out", "{run}/config.yaml/x"], "{run}/config.yaml: File exists"),
    ],
)
def test_wrong_options_are_one_line_and_write_nothing(unbroken, capsys, options, error):
    before = sorted(unbroken.rglob("*"))
    assert export.main([str(unbroken), *(option.format(run=unbroken) for option in options)]) == 2
    found = capsys.readouterr().err
    assert found.startswith(f"error: {error.format(run=unbroken)}") and found.count("\n") == 1
    assert sorted(unbroken.rglob("*")) == before


def test_what_a_killed_export_left_is_not_in_the_way(unbroken, tmp_path):
    """Nor is what another process writes at the moment."""
    partial = tmp_path / ".policy.partial"
    partial.mkdir()
    assert export.main([str(unbroken), "--run", "0", "--out", str(tmp_path / "policy")]) == 0
    assert read_params(tmp_path / "policy")[0] and partial.exists()


def test_an_export_that_another_one_was_faster_than_is_refused(unbroken, tmp_path, monkeypatch, capsys):
    """In one line, and the first policy stays whole."""
    out, serialize = tmp_path / "policy", policies_module.serialization.msgpack_serialize

    def meanwhile(params):
        monkeypatch.undo()
        assert export.main([str(unbroken), "--run", "1", "--out", str(out)]) == 0
        return serialize(params)

    monkeypatch.setattr(policies_module.serialization, "msgpack_serialize", meanwhile)
    assert export.main([str(unbroken), "--run", "0", "--out", str(out)]) == 2
    assert f"error: {out} is there already; choose another --out FOLDER or delete it\n" == capsys.readouterr().err
    assert json.loads((out / "policy.json").read_text())["run"] == 1 and len(list(tmp_path.iterdir())) == 1


def test_a_folder_without_what_it_needs_is_refused_in_one_line(unbroken, tmp_path, capsys):
    assert export.main([str(tmp_path)]) == 2
    assert f"{tmp_path} is not a run folder with checkpoints\n" in capsys.readouterr().err
    folder = shutil.copytree(unbroken, tmp_path / "run")
    shutil.rmtree(folder / "evaluation.parquet")
    assert export.main([str(folder)]) == 2
    assert "no evaluation yet that says which run is best: name one, --run 0\n" in capsys.readouterr().err
    for path in (folder / "checkpoints").iterdir():
        (path / "sha256.json").write_text("{}")
    assert export.main([str(folder), "--run", "0"]) == 2
    error = capsys.readouterr().err
    assert "damaged" in error and "there is no whole checkpoint" in error and error.count("\n") == 1


def test_a_damaged_checkpoint_is_passed_over_and_left_where_it_is(unbroken, tmp_path, capsys):
    folder = shutil.copytree(unbroken, tmp_path / "run")
    (folder / "checkpoints" / "10" / "sha256.json").write_text("{}")
    (folder / "checkpoints" / ".12.partial").mkdir()  # another process is writing it
    before = sorted(folder.rglob("*"))
    assert export.main([str(folder), "--run", "0", "--out", str(tmp_path / "policy")]) == 0
    assert "10 is damaged" in capsys.readouterr().err
    assert read_params(tmp_path / "policy")[0].update == 9
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("when", ["digests", "copytree"])
def test_a_checkpoint_that_training_removes_makes_place_for_the_next(unbroken, tmp_path, monkeypatch, when):
    """With checkpoint.keep=1: before its digests are compared, or after that, before its arrays are copied."""
    folder = shutil.copytree(unbroken, tmp_path / "run") / "checkpoints"
    for path in folder.iterdir():
        shutil.rmtree(path)
    shutil.copytree(unbroken / "checkpoints" / "9", folder / "9")
    holder = atomic if when == "digests" else shutil
    read = getattr(holder, when)

    def meanwhile(*arguments, **options):
        if (folder / "9").exists():
            (folder / "9").rename(folder / ".9.partial")
            shutil.copytree(unbroken / "checkpoints" / "10", folder / "10")
        return read(*arguments, **options)

    monkeypatch.setattr(holder, when, meanwhile)
    _, found, params, damaged = read_trained(tmp_path / "run")
    assert found.path == folder / "10" and params and not damaged


def test_other_folders_are_refused_in_one_line(unbroken, policies, tmp_path):
    for path in (tmp_path / "nothing", unbroken):
        with pytest.raises(FileNotFoundError, match=rf"{path} is not an exported policy: [^\n]*$"):
            load_policy(path)
    damaged = shutil.copytree(policies[0], tmp_path / "damaged")
    content = bytearray((damaged / "params.msgpack").read_bytes())
    content[len(content) // 2] ^= 1
    (damaged / "params.msgpack").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"policy {damaged} is damaged: [^\n]*$"):
        load_policy(damaged)


@pytest.mark.parametrize(
    ("change", "kind", "error"),
    [
        ({"format": 1}, CheckpointError, "has format 1, this version reads 2; use the version that wrote it"),
        ({"format": None}, CheckpointError, "has format None, this version reads 2"),
        (
            {"model.size": 9},
            CheckpointError,
            r"another version of its model: params.*kernel is float32 .*8\], wanted",
        ),
        ({"model.sizes": 9}, ConfigError, "unknown key model.sizes; did you mean model.size"),
    ],
)
def test_policies_of_other_versions_are_refused_in_one_line(policies, tmp_path, change, kind, error):
    folder = shutil.copytree(policies[0], tmp_path / "policy")
    description = json.loads((folder / "policy.json").read_text())
    for name, value in change.items():
        section, _, key = name.rpartition(".")
        (description["config"][section] if section else description)[key] = value
    (folder / "policy.json").write_text(json.dumps(description))
    (folder / "sha256.json").write_text(json.dumps(digests(folder)))
    with pytest.raises(kind, match=rf"{error}[^\n]*$"):
        load_policy(folder)
