"""Every script gives one line and an exit code for a wrong command or path, or if interrupted."""

import errno
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from src_pure.runs.atomic import replacing
from src_pure.runs.columns import to_arrow
from tests.conftest import REPOSITORY
from tests.runs.frames import metrics_frame, write_part

FOLDER = REPOSITORY / "scripts"
NAMES = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))
READERS = ["plot", "watch", "export", "bsuite_score", "sweep_report"]  # scripts that read run folders
HUGE = "9" * 30


@pytest.fixture(scope="module")
def scripts():
    """The main function of every script."""
    mains = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        for name in NAMES:
            specification = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
            module = importlib.util.module_from_spec(specification)
            specification.loader.exec_module(module)
            mains[name] = module.main
    return mains


@pytest.fixture
def run(tmp_path):
    """A run folder that holds metrics."""
    path = tmp_path / "run"
    path.mkdir()
    write_part(path / "metrics.parquet", to_arrow(metrics_frame(range(1, 7))), 1, 6, None)
    return path


def refused(main, command_line, capsys, code=2):
    """The error line of a rejected command."""
    assert main([*map(str, command_line)]) == code
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1 and not printed.out
    assert printed.err[:-1].isprintable()
    return printed.err


@pytest.mark.parametrize("name", NAMES)
def test_every_script_explains_itself_and_refuses_what_it_does_not_know(scripts, capsys, name):
    assert scripts[name](["--help"]) == 0
    assert "usage: " in capsys.readouterr().out
    assert "--nope" in refused(scripts[name], ["x", "--nope"], capsys)


@pytest.mark.parametrize(
    ("name", "option"),
    [("plot", "--bins")]
    + [("watch", option) for option in ("--seed", "--run", "--episodes", "--max-steps")]
    + [(f"bench_{name}", "--calls") for name in ("envs", "models", "train")]
    + [("bench_checkpoint", option) for option in ("--repeats", "--seconds")]
    + [("bench_device", option) for option in ("--seconds", "--calls")]
    + [("check_model", "--steps"), ("sweep_report", "--rerun")],
)
@pytest.mark.parametrize("value", [HUGE, "1e12", "-1", "nan", "", "1" + "0" * 5000])
def test_numbers_that_cannot_be_meant_are_refused(scripts, capsys, name, option, value):
    line = refused(scripts[name], [*(["run"] if name in READERS else []), f"{option}={value}"], capsys)
    assert "number from" in line and len(line) < 200


def test_a_gif_of_too_many_frames_is_refused(scripts, capsys):
    line = refused(scripts["watch"], ["run", "--episodes", 101, "--max-steps", 100], capsys)
    assert "--episodes times --max-steps must be at most 10,000 frames, got 101 times 100" in line


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("path", ["loop", "file", "file/x", "x" * 300, "\x1b[2J\n\u202e\udce4", "empty", "dangling"])
def test_what_is_not_a_run_folder_is_refused(scripts, tmp_path, capsys, name, path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    refused(scripts[name], [tmp_path / path], capsys)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("out", ["loop/a.png", "file/a.png", "x" * 300 + ".png", "folder.png"])
def test_an_out_that_cannot_be_is_refused_and_nothing_is_left(scripts, run, capsys, out):
    (run / "loop").symlink_to("loop")
    (run / "file").write_text("")
    (run / "folder.png").mkdir()
    before = sorted(run.rglob("*"))
    refused(scripts["plot"], [run, "--out", run / out], capsys)
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_picture_that_cannot_be_written_leaves_the_old_one(scripts, run, monkeypatch, capsys, number):
    assert scripts["plot"]([str(run)]) == 0
    picture = Path(capsys.readouterr().out.strip())
    before = picture.read_bytes()

    def fail(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    assert os.strerror(number) in refused(scripts["plot"], [run, "--bins", 3], capsys, code=4)
    assert picture.read_bytes() == before and os.listdir(picture.parent) == [picture.name]


@pytest.mark.parametrize(
    "backend",
    [
        "TkAgg",
        *(pytest.param(x, marks=pytest.mark.slow) for x in ("module://matplotlib_inline.backend_inline", "nonsense")),
    ],
)
def test_plots_use_no_display(run, backend):
    environment = os.environ | {"MPLBACKEND": backend}
    command = [sys.executable, FOLDER / "plot.py", run]
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(done.stdout.strip()).stat().st_size > 1000


INTERRUPTING = """
import os, runpy, signal, sys
module, *sys.argv = sys.argv[1:]
class Interrupting:
    def find_spec(name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("module", [pytest.param("pandas", marks=pytest.mark.slow), "matplotlib.backends.backend_agg"])
def test_ctrl_c_is_one_line(run, module):
    """Both during the imports and while drawing."""
    command = [sys.executable, "-c", INTERRUPTING, module, FOLDER / "plot.py", run]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")
    assert not list(run.rglob("*.png*"))


def test_two_pictures_of_one_name_are_both_whole(scripts, run, monkeypatch):
    """Draws one while another process is about to write the same file."""
    command, savefig = [sys.executable, FOLDER / "plot.py", run], Figure.savefig

    def meanwhile(figure, file, **options):
        file.write(b"half a picture")
        file.seek(0)
        assert subprocess.run(command, cwd=REPOSITORY).returncode == 0
        assert imread(run / "plots" / "success_rate.png").size
        savefig(figure, file, **options)

    monkeypatch.setattr(Figure, "savefig", meanwhile)
    assert scripts["plot"]([str(run)]) == 0
    assert imread(run / "plots" / "success_rate.png").size
    assert os.listdir(run / "plots") == ["success_rate.png"]


def test_a_folder_in_place_of_a_file_is_called_by_its_name(tmp_path):
    (tmp_path / "picture.png").mkdir()
    with pytest.raises(IsADirectoryError) as caught, replacing(tmp_path / "picture.png") as file:
        file.write(b"0")
    assert caught.value.filename == str(tmp_path / "picture.png") and ".partial" not in str(caught.value)


@pytest.mark.parametrize("options", [["--run", ""], ["--run", "first"], ["run=0"], ["--run", "0", "--metric", "loss"]])
def test_options_of_export_are_flags(scripts, options, tmp_path, capsys):
    refused(scripts["export"], [tmp_path, *options], capsys)
