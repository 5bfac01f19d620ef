import io
import subprocess
import sys
import types
from pathlib import Path
from unittest.mock import MagicMock

import pandas as pd
import pytest
from rich.console import Console

from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.runs import training
from src_pure.runs.loggers import PlainLines, ProgressBar, TensorBoardSink, WandbSink, points, progress
from tests.runs.frames import IDENTITY, metrics_frame, new_run
from tests.test_command_line import TINY


def segment(success_rate: list, episodes: list, update: int = 40, **columns) -> pd.DataFrame:
    """One update, one row per run."""
    runs = range(len(episodes))
    steps = {"run": runs, "seed": runs, "update": update, "env_steps": 8192 * update, "episodes": episodes}
    returns = {"episode_return": [0.5 if count else None for count in episodes]}
    return pd.DataFrame({**steps, **returns, "success_rate": success_rate, **columns})


def test_plain_lines_say_where_training_stands():
    stream = io.StringIO()
    sink = PlainLines(total_updates=122, stream=stream)
    first = pd.concat([segment([1.0], [100], update=1), segment([0.75], [300], update=40)])
    sink.log(first, elapsed=20.0)
    sink.log(segment([None], [0], update=80), elapsed=32.0)
    sink.log(segment([1.0], [1], update=122), elapsed=61.0)
    sink.close()
    assert stream.getvalue().splitlines() == [
        "update 40/122  327,680 steps  16,384 steps/s  success_rate 0.81 (400 episodes)  left 0:41",
        "update 80/122  655,360 steps  20,480 steps/s  no episode ended  left 0:17",
        "update 122/122  999,424 steps  16,384 steps/s  success_rate 1.00 (1 episode)  left 0:00",
    ]


def test_several_runs_are_weighted_by_episodes_and_their_steps_add_up():
    stream = io.StringIO()
    frames = [segment([0.0, 1.0, None], [30, 10, 0], update=update) for update in (1, 2)]
    PlainLines(4, stream).log(pd.concat(frames), elapsed=2.0)
    line = "update 2/4  16,384 steps x 3 runs  24,576 steps/s  success_rate 0.25 (80 episodes)  left 0:02\n"
    assert stream.getvalue() == line


def test_a_continued_training_counts_its_own_speed():
    stream = io.StringIO()
    frames = [segment([0.5], [2], update=update) for update in (101, 102)]
    PlainLines(4000, stream).log(pd.concat(frames), elapsed=2.0)
    assert "8,192 steps/s" in stream.getvalue() and "left 1:04:58" in stream.getvalue()


def test_without_success_the_return_is_shown():
    stream = io.StringIO()
    PlainLines(40, stream).log(segment([None], [3]).drop(columns="success_rate"), elapsed=1.0)
    assert "episode_return 0.50 (3 episodes)" in stream.getvalue()


def test_the_bar_is_for_terminals_only(monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert isinstance(progress(10, io.StringIO()), PlainLines)
    monkeypatch.setenv("TERM", "xterm")
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    sink = progress(10, terminal)
    sink.close()
    assert isinstance(sink, ProgressBar)


def test_the_bar_shows_score_speed_and_time_left():
    stream = io.StringIO()
    sink = ProgressBar(80, Console(file=stream, force_terminal=True, width=120))
    sink.log(pd.concat([segment([0.5], [2], update=1), segment([0.5], [2])]), elapsed=10.0)
    sink.close()
    for words in ("40/80", "success_rate 0.50 (4 episodes)", "32,768 steps/s", "left 0:10"):
        assert words in stream.getvalue()


def test_points_average_episodes_over_episodes_and_losses_over_runs():
    losses = {"policy_loss": [1.0, 2.0, 6.0], "episode_fails": [4.0, 0.0, None]}
    [point] = points(segment([0.0, 1.0, None], [30, 10, 0], **losses))
    assert point["update"] == 40 and point["env_steps"] == 8192 * 40
    assert point["success_rate"] == 0.25 and point["episode_fails"] == 3.0 and point["policy_loss"] == 3.0
    assert point["run_1/success_rate"] == 1.0 and point["run_2/policy_loss"] == 6.0
    assert "run_2/success_rate" not in point


def test_points_leave_out_what_no_run_has_and_many_separate_runs():
    [point] = points(segment([None] * 9, [0] * 9, policy_loss=1.0))
    assert set(point) == {"update", "env_steps", "episodes", "policy_loss"}
    [alone] = points(segment([0.5], [4]))
    assert not [name for name in alone if name.startswith("run_")]


def test_points_are_one_per_update():
    assert [point["env_steps"] for point in points(metrics_frame([3, 4, 5]))] == [3000, 4000, 5000]


def test_wandb_offline_needs_no_key_and_writes_under_the_run_folder(tmp_path, monkeypatch):
    home, run = tmp_path / "home", tmp_path / "run"
    for folder in (home, run):
        folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    for name in ("WANDB_API_KEY", "WANDB_DIR", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    sink = WandbSink(run, "0abc", "offline", "memory", "tmaze", "agalite", {"task": {"corridor_len": 160}})
    sink.log(segment([0.25, 0.5], [2, 2]), elapsed=1.0)
    sink.close()
    WandbSink(run, "0abc", "offline", "memory", "tmaze", "agalite", {}).close()
    import wandb

    wandb.teardown()  # waits for the process that writes, as the end of a program does
    record, continued = sorted(run.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime)
    assert record.name == continued.name == "run-0abc.wandb"
    for word in (b"corridor_len", b"agalite", b"success_rate", b"run_1/success_rate"):
        assert word in record.read_bytes()
    assert not (Path.home() / "wandb").exists()


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_continued_training_has_the_wandb_run_of_before(tmp_path, monkeypatch, mode):
    started = []
    fake = types.ModuleType("wandb")
    fake.Settings, fake.Error, fake.init = dict, RuntimeError, lambda **options: started.append(options) or MagicMock()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    experiment = build(compose([*TINY, f"wandb.mode={mode}", "wandb.project=memory"]))
    run_dir = new_run(tmp_path / "run", "", IDENTITY)
    for _ in ("start", "the same command again"):
        for sink in training.open_sinks(experiment, experiment.config, run_dir):
            sink.close()
    first, again = started
    assert first["id"] == again["id"] == IDENTITY.run_id[:8]
    assert first["resume"] == again["resume"] == "allow"
    assert first["mode"] == again["mode"] == mode and first["project"] == again["project"] == "memory"


def test_tensorboard_writes_under_the_run_folder(tmp_path):
    sink = TensorBoardSink(tmp_path)
    sink.log(metrics_frame([1, 2]), elapsed=1.0)
    sink.close()
    [events] = (tmp_path / "tensorboard").iterdir()
    assert b"success_rate" in events.read_bytes()


def test_heavy_packages_are_imported_only_when_used():
    modules = "{'wandb', 'tensorboardX', 'matplotlib', 'jax'}"
    code = f"import sys, src_pure.runs.loggers, src_pure.runs.scores; sys.exit(bool({modules} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
