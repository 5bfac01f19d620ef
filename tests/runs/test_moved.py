"""A run folder that is moved, deleted or replaced under a training: it ends with one line, and writes nothing more."""

import shutil
from datetime import datetime
from unittest.mock import MagicMock

import pytest

import trainer_pure
from src_pure.errors import ConfigError
from src_pure.runs import loop, programs, resume, training
from src_pure.runs.rundir import RunDir
from tests.runs.conftest import OPTIONS
from tests.runs.disturbing import assert_same_run, disturbed

LINE = "was moved, deleted or replaced meanwhile; nothing more is written; what was saved before stays\n"


def snapshot(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def moved(folder, elsewhere):
    folder.rename(elsewhere)


def replaced_by_an_empty_one(folder, elsewhere):
    folder.rename(elsewhere)
    folder.mkdir()


def replaced_by_another_run(folder, elsewhere):
    folder.rename(elsewhere)
    shutil.copytree(elsewhere, folder)
    (folder / ".lock").write_text("of another process")


def replaced_by_a_link(folder, elsewhere):
    shutil.copytree(folder, elsewhere.with_name("third"))
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere.with_name("third"))


def checkpoints_replaced(folder, elsewhere):
    if elsewhere.exists():
        return
    (folder / "checkpoints").rename(elsewhere)
    (folder / "checkpoints").mkdir()


@pytest.mark.slow
@pytest.mark.parametrize("update", [1, 4, 10])
@pytest.mark.parametrize("change", [moved, replaced_by_an_empty_one, replaced_by_another_run, replaced_by_a_link])
def test_nothing_is_written_once_it_is_another_folder(tmp_path, monkeypatch, capsys, change, update):
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    after = {}

    def disturb():
        if not after:
            change(folder, elsewhere)
            after.update(new=snapshot(folder) if folder.exists() else {}, old=snapshot(elsewhere))

    assert disturbed(monkeypatch, folder, update, disturb) == 4
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(folder) in error and error.endswith(LINE)
    assert (snapshot(folder) if folder.exists() else {}) == after["new"]
    kept = {path: content for path, content in after["old"].items() if path.name != ".lock"}
    found = snapshot(elsewhere)
    assert {path: content for path, content in found.items() if path.parts[0] != "checkpoints"} == {
        path: content for path, content in kept.items() if path.parts[0] != "checkpoints"
    }


@pytest.mark.slow
def test_checkpoints_never_go_into_another_folder(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    assert disturbed(monkeypatch, folder, 4, lambda: checkpoints_replaced(folder, tmp_path / "elsewhere")) == 4
    assert "checkpoints was moved, deleted or replaced" in capsys.readouterr().err
    assert list((folder / "checkpoints").iterdir()) == []


@pytest.mark.slow
def test_it_goes_on_in_its_new_place(unbroken, tmp_path, monkeypatch):
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    assert disturbed(monkeypatch, folder, 4, lambda: moved(folder, elsewhere)) == 4
    assert trainer_pure.main([*OPTIONS, f"run_dir={elsewhere}"]) == 0
    assert_same_run(unbroken, elsewhere)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["metrics.parquet", "evaluation.parquet", "checkpoints/10", "config.yaml"])
def test_a_folder_that_lost_something_does_not_end_with_0(tmp_path, monkeypatch, capsys, name):
    """It is deleted after it was last written, and then the training ends."""
    folder = tmp_path / "run"
    summary = loop.summarise

    def lose(*arguments):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        return summary(*arguments)

    monkeypatch.setattr(loop, "summarise", lose)
    assert trainer_pure.main([*OPTIONS, f"run_dir={folder}"]) == 4
    error = capsys.readouterr().err
    wanted = "checkpoint of update 10" if name == "checkpoints/10" else name
    assert "lacks" in error and wanted in error and error.count("\n") == 1


def test_a_start_that_is_interrupted_removes_only_what_it_made(tmp_path, monkeypatch, capsys):
    """A user's file in a new run folder stays, and so does the folder; without one the name is free again."""
    for notes in ("notes.txt", "checkpoints/notes.txt", None):
        folder = tmp_path / "run"

        def interrupt(*_, notes=notes, folder=folder):
            if notes:
                (folder / notes).write_text("mine")
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(programs, "compile_program", interrupt)
            assert trainer_pure.main([*OPTIONS, f"run_dir={folder}"]) == 130
        assert folder.exists() == bool(notes)
        if notes:
            assert (folder / notes).read_text() == "mine"
            (folder / notes).unlink()
            assert trainer_pure.main([*OPTIONS, f"run_dir={folder}", "total_steps=64"]) == 2  # it is a run of 640 steps
            shutil.rmtree(folder)


def test_an_empty_folder_of_the_user_stays(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(programs, "compile_program", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert trainer_pure.main([*OPTIONS, f"run_dir={tmp_path / 'run'}"]) == 130
    assert list((tmp_path / "run").iterdir()) == []


def test_starts_of_the_same_second_get_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(programs, "compile_program", lambda *_: (_ for _ in ()).throw(ConfigError("stop")))
    seen = []
    monkeypatch.setattr(training, "open_sinks", lambda *arguments: seen.append(arguments[2].path) or [])
    monkeypatch.setattr(resume, "datetime", MagicMock(now=lambda: datetime(2026, 1, 2, 3, 4, 5)))
    monkeypatch.setattr(RunDir, "discard", lambda self: None)
    for _ in range(3):
        assert trainer_pure.main(OPTIONS) == 2
    assert [path.name for path in seen] == ["2026-01-02_03-04-05", "2026-01-02_03-04-05_2", "2026-01-02_03-04-05_3"]
