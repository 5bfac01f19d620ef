"""scripts/submit.py without Slurm: trained here, shown, refused."""

import os
import shutil

import numpy as np
import pandas as pd
import pytest

from scripts import submit
from src_pure.errors import ConfigError
from src_pure.sweeps import slurm
from tests.runs.disturbing import assert_same_run
from tests.sweeps.conftest import SWEEP, refused
from tests.test_command_line import TINY

NAMES = ("000", "001", "002")


@pytest.mark.slow
def test_trained_here_a_sweep_is_what_the_trainer_makes_of_it(swept, tmp_path):
    assert submit.main([*SWEEP, f"run_dir={tmp_path / 'other'}", "--local", "--workers", "2"]) == 0
    for name in NAMES:
        assert_same_run(tmp_path / "other" / "batches" / name, swept / "batches" / name)
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "other/runs.parquet"), pd.read_parquet(swept / "runs.parquet")
    )


def test_the_same_command_again_trains_nothing(swept, trainer, capsys):
    trainer("sys.exit(1)")
    assert submit.main([*SWEEP, f"run_dir={swept}", "--local"]) == 0
    assert capsys.readouterr().out == "batches: 0 to train, 3 finished\n"


def test_status_is_read_from_the_folders(swept, capsys):
    assert submit.main(["status", str(swept)]) == 0
    header, *rows, counts = capsys.readouterr().out.splitlines()
    assert header.split() == ["batch", "state", "runs", "update", "success_rate"]
    assert [row.split()[:4] for row in rows] == [
        [name, "finished", runs, "5/5"] for name, runs in zip(NAMES, "233", strict=True)
    ]
    assert counts == "3 finished"
    for row, name in zip(rows, NAMES, strict=True):
        metrics = pd.read_parquet(swept / "batches" / name / "metrics.parquet")
        last = metrics[(metrics["update"] == 5) & (metrics["episodes"] > 0)]
        mean = np.average(last["success_rate"], weights=last["episodes"])
        assert float(row.split()[4]) == pytest.approx(mean, abs=5e-3)


def test_collect_writes_the_states_again(begun, capsys):
    assert submit.main(["collect", str(begun)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 finished, 2 stopped"
    assert states(begun) == {"000": "finished", "001": "stopped", "002": "stopped"}


def states(sweep):
    """The states in runs.parquet, by batch."""
    runs = pd.read_parquet(sweep / "runs.parquet")
    assert (runs.groupby("batch")["state"].nunique() == 1).all()
    return dict(zip(runs["batch"], runs["state"], strict=True))


def test_only_what_failed_is_trained_again(swept, begun, trainer, capsys):
    command = [*SWEEP, f"run_dir={begun}", "--local"]
    trainer("(batch / 'begun').touch(); sys.exit('error: the disk is on fire' if batch.name == '001' else 0)")
    assert submit.main(command) == 1
    assert "batches: 2 to train, 1 finished\n" in capsys.readouterr().out
    assert [(batch / "begun").exists() for batch in sorted((begun / "batches").iterdir())] == [False, True, True]
    shutil.copy(swept / "batches/002/summary.json", begun / "batches/002/summary.json")
    assert submit.main(["status", str(begun)]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[-3].split()[:2] == ["001", "failed"] and rows[-3].endswith("  the disk is on fire")
    assert rows[-1] == "2 finished, 1 failed"
    assert states(begun) == {"000": "finished", "001": "failed", "002": "stopped"}
    trainer("print('trained', batch.name)")
    assert submit.main(command) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if "trained" in line] == ["001  trained 001"]


def test_a_single_training_is_one_batch(tmp_path, capsys):
    """The real trainer, in a process of its own."""
    folder = tmp_path / "run"
    assert submit.main([*TINY, f"run_dir={folder}", "--local"]) == 0
    assert submit.main([*TINY, f"run_dir={folder}", "--local"]) == 0
    assert capsys.readouterr().out.endswith("batches: 0 to train, 1 finished\n")
    assert submit.main(["status", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:4] == ["run", "finished", "1", "10/10"]


@pytest.mark.parametrize("command", [TINY, SWEEP])
def test_a_dry_run_shows_everything_and_writes_nothing(tmp_path, programs, capsys, command):
    options = ["--dry-run", "--pack", "2", "--time", "1-0", "--gpus", "1", "--partition", "gpu", "--memory", "16G",
               "--cpus", "4", "--sbatch", "exclude=node7", "--setup", "module load cuda", "--at-once", "1"]  # fmt: skip
    assert submit.main([*command, f"run_dir={tmp_path / 'run'}", *options]) == 0
    shown = capsys.readouterr().out.splitlines()
    wanted = [
        "time=1-0",
        "gpus-per-node=1",
        "partition=gpu",
        "mem=16G",
        "cpus-per-task=4",
        "exclude=node7",
        "signal=USR2@45",
        "requeue",
    ]
    assert {f"#SBATCH --{text}" for text in wanted} <= set(shown)
    assert "module load cuda" in shown
    assert any(line.startswith("srun ") and " --cpus-per-task=4 " in line for line in shown)
    if command is SWEEP:
        assert shown[:3] == ["batches: 3 to train", "task 0: 000 001", "task 1: 002"]
        assert "#SBATCH --array=0-1%1" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


def test_a_dry_run_needs_no_time(tmp_path, capsys):
    assert submit.main([*TINY, f"run_dir={tmp_path / 'run'}", "--dry-run"]) == 0
    assert "#SBATCH --time" not in capsys.readouterr().out  # Slurm's own default


def test_without_slurm_nothing_is_written(tmp_path, programs, capsys):
    assert "there is no sbatch on PATH" in refused([*TINY, f"run_dir={tmp_path / 'run'}"], capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["run_dir=null", "--local"], "give run_dir=FOLDER"),
        (["--local", "plan=only"], "plan=only trains nothing"),
        (["--dry-run", "run_dir=runs/%j"], "run_dir must be printable and without %"),
        (["--workers", "2"], "--workers is for --local"),
        (["--local", "--time", "4:00:00"], "--time is for Slurm"),
        (["--local", "--at-once", "2"], "--at-once is for Slurm"),
        (["--local", "--pack", "2"], "--pack is for Slurm"),
        (["--dry-run", "--time", "soon"], "--time must be a time such as 4:00:00"),
        (["--dry-run", "--time", "1"], "--time must be more than 90 seconds"),
        (["--time", "1"], "--time must be more than 90 seconds"),
        (["grace_seconds=soon"], "grace_seconds must be a number of seconds"),
        (["--dry-run", "--pack", "0"], "must be a whole number from 1"),
        (["--dry-run", "--sbatch", "--exclude"], "--sbatch"),
        (["--dry-run", "--sbatch", "exclude"], "--sbatch must be OPTION=VALUE"),
        (["--local", "modle=gru"], "modle"),
        (["--local", "sweep.algo.gama=[0.9]"], "gama"),
        (["--nope"], "--nope"),
        (["--tim", "30"], "--tim"),
    ],
)
def test_wrong_input_is_refused_and_nothing_is_written(tmp_path, monkeypatch, capsys, options, line):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slurm, "require", lambda program: None)
    run_dir = [] if "run_dir=null" in options else ["run_dir=run"]
    assert line in refused([*TINY, *run_dir, *options], capsys)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["status", "collect", "cancel"])
def test_what_is_no_run_is_refused(tmp_path, capsys, name):
    assert "must be the folder of a run or a sweep" in refused([name, tmp_path], capsys)
    assert "the following arguments are required: RUN" in refused([name], capsys)


@pytest.mark.parametrize(
    ("text", "length"),
    [("30", 1800), ("30:15", 1815), ("4:00:00", 14400), ("2-12", 216000), ("1-0:30", 88200), ("1-1:1:1", 90061)],
)
def test_times_are_those_of_sbatch(text, length):
    assert slurm.seconds(text) == length


@pytest.mark.parametrize("text", ["", "1h", "-1", "1:2:3:4", "1-1:2:3:4", "1.5", "infinite"])
def test_other_times_are_refused(text):
    with pytest.raises(ConfigError, match="--time must be a time"):
        slurm.seconds(text)


def test_harmless_settings_of_a_command_reach_every_batch(trainer, tmp_path):
    trainer("(batch / 'got').write_text(' '.join(sys.argv[4:]))")
    options = ["log_seconds=1", "resume_anyway=true", "--local", "--trust", "mine"]
    assert submit.main([*TINY, f"run_dir={tmp_path / 'run'}", *options]) == 0
    assert (tmp_path / "run" / "got").read_text() == "--trust=mine log_seconds=1 resume_anyway=true"
