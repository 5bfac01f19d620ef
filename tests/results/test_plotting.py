import importlib.util
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from src_pure.results.plotting import COLORS, draw_panel, short_labels
from tests.conftest import REPOSITORY
from tests.runs.frames import IDENTITY, metrics_frame, new_run

specification = importlib.util.spec_from_file_location("plot", REPOSITORY / "scripts" / "plot.py")
plot = importlib.util.module_from_spec(specification)
specification.loader.exec_module(plot)


@pytest.fixture
def make_run(tmp_path):
    def make(name: str, frame) -> Path:
        run = new_run(tmp_path / name, "", IDENTITY)
        run.append_metrics(frame)
        return run.path

    return make


def has_color(picture: Path, color: str) -> bool:
    pixels = matplotlib.image.imread(picture)[..., :3]
    return bool((np.abs(pixels - to_rgb(color)) < 0.01).all(-1).any())


def test_runs_with_rows_without_episodes_are_drawn_and_the_path_is_printed(make_run, capsys):
    runs = [make_run(name, metrics_frame(range(1, 13), seed=seed)) for seed, name in enumerate("ab")]
    assert plot.main([*map(str, runs)]) == 0
    picture = runs[0] / "plots" / "success_rate.png"
    assert capsys.readouterr().out == f"{picture}\n"
    assert has_color(picture, COLORS[0]) and has_color(picture, COLORS[1]) and not has_color(picture, COLORS[2])
    assert not (runs[1] / "plots").exists()


def test_a_run_without_any_episode_is_drawn_empty(make_run):
    run = make_run("a", metrics_frame([1]).drop(columns="success_rate"))
    assert plot.main([str(run)]) == 0
    assert (run / "plots" / "episode_return.png").exists()


def test_several_metrics_share_a_picture(make_run, tmp_path):
    run, out = make_run("a", metrics_frame(range(1, 7))), tmp_path / "new" / "curves.png"
    one, several = (["--metric", "success_rate"], ["--metric", "success_rate", "--metric", "policy_loss"])
    assert plot.main([str(run), *one]) == 0
    assert plot.main([str(run), *several, "--bins", "3", "--out", str(out)]) == 0
    assert matplotlib.image.imread(out).shape[1] > matplotlib.image.imread(run / "plots/success_rate.png").shape[1]


def band_height(num_runs: int) -> float:
    panel = Figure().subplots()
    draw_panel(panel, [metrics_frame(range(1, 13), num_runs=num_runs)], "success_rate", bins=4)
    [band] = panel.collections
    heights = [np.ptp(path.vertices[:, 1]) for path in band.get_paths()]
    return max(heights, default=0.0)


def test_one_seed_gets_no_interval():
    assert band_height(num_runs=1) == 0.0
    assert band_height(num_runs=3) > 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["{run}", "--metric", "sucess_rate"], "did you mean success_rate?); known: episodes, episode_return,"),
        (["{run}", "{run}/none"], "no run folder {run}/none"),
        (["{run}/.."], "no metrics.parquet in {run}/.."),
        (["{run}", "--bins", "0"], "--bins/--smooth: must be a whole number from 1 to 10,000, got '0'; see --help"),
        (["{run}", "--out", "curve.gif"], "--out must end in one of .png, .pdf, .svg, got curve.gif"),
        (["{run}", "--out", "{run}/config.yaml/a.png"], "{run}/config.yaml"),
    ],
)
def test_a_wrong_command_is_one_line_and_code_2(make_run, capsys, options, message):
    run = make_run("a", metrics_frame([1, 2]))
    assert plot.main([option.format(run=run) for option in options]) == 2
    printed = capsys.readouterr()
    assert message.format(run=run) in printed.err and printed.err.count("\n") == 1 and not printed.out


def test_labels_say_where_the_paths_differ():
    folder = Path("/runs")
    assert short_labels([folder / "tmaze-gru/10-00"]) == ["tmaze-gru/10-00"]
    assert short_labels([folder / "a", folder / "b"]) == ["a", "b"]
    assert short_labels([folder / "x/10-00", folder / "y/10-00"]) == ["x/10-00", "y/10-00"]
