"""A search that dies, at any step and in any way: nothing gets lost, and nothing is done twice."""

import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import trainer_pure
from src_pure.runs.checkpoint import Checkpoints
from src_pure.runs.program import Program
from src_pure.runs.rundir import RunDir
from src_pure.sweeps import folder as sweep_folder
from src_pure.sweeps import search, search_batch, search_folder
from src_pure.sweeps.folder import read_runs
from src_pure.sweeps.trials import Trials
from tests.conftest import REPOSITORY
from tests.sweeps.searches import SEARCH, assert_same_search

pytestmark = pytest.mark.usefixtures("one_program")

# every step of a search that changes something outside this process
STEPS = [
    (Trials, "begin"), (sweep_folder, "write_identity"), (search, "begin_search"), (Trials, "ask"),
    (RunDir, "begin"), (search_folder, "write_runs"), (RunDir, "append_metrics"), (RunDir, "append_evaluation"),
    (Trials, "report"), (Trials, "goes_on"), (Trials, "is_pruned"), (Trials, "ends"), (search_batch, "write_runs"),
    (Program, "refill"), (Program, "segment"), (Checkpoints, "_write"), (Checkpoints, "_prune"),
    (RunDir, "write_summary"), (search, "write_best"), (search, "write_runs"),
]  # fmt: skip
QUICK = ("_write",)


def steps():
    """After each step, which is before the next; and before a segment, because several steps may come before it."""
    cases = [(owner, name, "after") for owner, name in STEPS] + [(Program, "segment", "before")]
    return [
        pytest.param(owner, name, moment, id=f"{moment} {owner.__name__}.{name}",
                     marks=() if name in QUICK else pytest.mark.slow)
        for owner, name, moment in cases
    ]  # fmt: skip


@pytest.mark.parametrize(("owner", "name", "moment"), steps())
def test_a_search_that_dies_anywhere_continues_exactly(searched, tmp_path, monkeypatch, owner, name, moment):
    """It dies again and again, each time at the next call of this step, until it comes through."""
    folder, deaths = tmp_path / "search", 0
    for number in (1, 2, 5):
        calls, original = 0, getattr(owner, name)

        def dying(*arguments, original=original, number=number, **options):
            nonlocal calls
            calls += 1
            if calls == number and moment == "before":
                raise KeyboardInterrupt
            result = original(*arguments, **options)
            if calls == number:
                raise KeyboardInterrupt
            return result

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, staticmethod(dying) if name == "begin" and owner is RunDir else dying)
            deaths += trainer_pure.main([*SEARCH, f"run_dir={folder}"]) == 130
        if calls < number:
            break
    assert deaths
    assert trainer_pure.main([*SEARCH, f"run_dir={folder}"]) == 0
    assert_same_search(folder, searched)


def test_a_torn_line_of_the_journal_is_dropped(searched, tmp_path):
    folder = shutil.copytree(searched, tmp_path / "search")
    with (folder / "optuna.journal").open("ab") as file:
        file.write(b'{"op_code":4,"worker')
    assert trainer_pure.main([*SEARCH, f"run_dir={folder}"]) == 0
    assert (folder / "optuna.journal").read_bytes() == (searched / "optuna.journal").read_bytes()


def test_without_a_checkpoint_a_batch_repeats_what_the_journal_says(searched, tmp_path):
    folder = shutil.copytree(searched, tmp_path / "search")
    batch = folder / "batches" / "000"
    (batch / "summary.json").unlink()
    for checkpoint in (batch / "checkpoints").iterdir():
        shutil.rmtree(checkpoint)
    assert trainer_pure.main([*SEARCH, f"run_dir={folder}"]) == 0
    assert_same_search(folder, searched)


def test_a_signal_saves_everything(searched, tmp_path, monkeypatch, capsys):
    folder, segment, calls = tmp_path / "search", Program.segment, []

    def signalled(self, state, number):
        calls.append(number)
        if len(calls) == 4:
            signal.raise_signal(signal.SIGTERM)
        return segment(self, state, number)

    with monkeypatch.context() as patch:
        patch.setattr(Program, "segment", signalled)
        assert trainer_pure.main([*SEARCH, f"run_dir={folder}"]) == 75
    assert f"the same command with run_dir={folder} continues" in capsys.readouterr().err
    assert "stopped" in set(read_runs(folder)["state"])
    assert trainer_pure.main([*SEARCH, f"run_dir={folder}"]) == 0
    assert_same_search(folder, searched)


@pytest.mark.slow
def test_a_search_that_is_killed_again_and_again_continues_exactly(searched, tmp_path):
    """kill -9, each time once it has come further than before, four times."""
    folder, codes, random = tmp_path / "search", [], np.random.default_rng(0)
    while codes[-1:] != [0] and len(codes) < 30:
        with subprocess.Popen(
            [sys.executable, "-u", "trainer_pure.py", *SEARCH, f"run_dir={folder}"],
            cwd=REPOSITORY, stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            for line in process.stdout:
                if len(codes) < 4 and "of 8 trials: " in line and random.random() < 0.4:
                    time.sleep(random.uniform(0, 0.3))
                    process.kill()
        codes.append(process.returncode)
    assert len(codes) > 2 and codes[-1] == 0
    assert_same_search(folder, searched)
