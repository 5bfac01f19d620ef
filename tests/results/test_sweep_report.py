"""scripts/sweep_report.py: the page, the pictures, the best configuration, and fresh seeds."""

import base64
import io
import os
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

import trainer_pure
from scripts import plot, sweep_report
from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.results.ranking import default_point, rank
from src_pure.results.reading import read_run
from src_pure.results.statistics import probability_of_improvement
from src_pure.results.sweep_report import best_config, fresh_point, plan_rerun
from src_pure.runs.identity import new_identity
from src_pure.sweeps.folder import read_sweep
from src_pure.sweeps.sweep import open_sweep
from tests.conftest import REPOSITORY
from tests.results.sweeps import evaluation_of, fill_sweep, grid, make_sweep
from tests.runs.frames import new_run
from tests.test_command_line import TINY

GRID = grid(algo__learning_rate=[1e-4, 1e-3, 1e-2], model__size=[8, 16])
VOID = {"meta"}


def score(values, seed):
    """Best at learning_rate=1e-3, model.size=16."""
    distance = abs(np.log10(values["algo.learning_rate"]) + 3)
    return 0.8 - 0.2 * distance - 0.1 * (values.get("model.size") == 8) + ((7 * seed) % 5 - 2) / 50


class Page(HTMLParser):
    """What a page holds; fails if an element is closed in the wrong place."""

    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.links, self.text, self.rows = [], [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.links += [attributes[name] for name in ("src", "href") if name in attributes]
        if tag == "img":
            self.images.append(attributes)
        elif tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data
        elif "style" not in self.open and "script" not in self.open:
            self.text.append(data)


def report(folder, *options):
    """The page of a report that must succeed."""
    assert sweep_report.main([str(folder), *options]) == 0
    return Page((folder / "report" / "index.html").read_text())


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Six points of five seeds in batches of ten; two runs failed, the last batch is stopped."""
    folder = tmp_path_factory.mktemp("sweeps") / "sweep"
    options = ["algo.learning_rate=1e-4", "model.size=16"]
    return make_sweep(folder, GRID, score, range(5), 10, failed=[0, 7], states={2: "stopped"}, options=options)


@pytest.fixture(scope="module")
def page(sweep):
    return report(sweep)


def test_a_page_needs_nothing_else(page, sweep):
    assert len(page.images) == 7 and page.links == [image["src"] for image in page.images]
    files = sorted(path.read_bytes() for path in (sweep / "report").glob("*.png"))
    embedded = [base64.b64decode(link.removeprefix("data:image/png;base64,")) for link in page.links]
    assert sorted(embedded) == files
    for content in embedded:
        assert np.ptp(imread(io.BytesIO(content))[..., :3]) > 0.5  # not blank
    assert not list(sweep.rglob("*.partial"))


def test_a_page_says_what_its_numbers_are(page):
    text = " ".join(page.text)
    for words in (
        "over 5 seeds of success_rate",
        "8 fresh episodes per run, sampled policy",
        "stratified bootstrap over seeds (2,000 samples, expanded percentiles)",
        "2 runs failed; failed runs count as 0",
        "The sweep is unfinished: 10 stopped, 2 failed",
        "18 of 30",
        "Point 1, with which others are compared, is the default",
        "--rerun N trains it with N fresh seeds",
    ):
        assert words in text


def test_the_table_is_the_ranking(page, sweep):
    head, *rows = page.rows
    assert head == ["rank", "point", "learning_rate", "size", "success_rate", "95 % interval", "mean", "seeds",
                    "failed", "P(> default)"]  # fmt: skip
    ranking = rank(sweep)
    assert (
        [row[1].split()[0] for row in rows] == [str(point.number) for point in ranking.points] == ["3", "2", "1", "0"]
    )
    best, default = ranking.points[0], ranking.points[2]
    wins = probability_of_improvement([best.scores], [default.scores])
    low, high = best.interval
    assert rows[0] == ["1", "3", "1e-3", "16", f"{best.score:.3f}", f"{low:.3f} to {high:.3f}", f"{best.mean:.3f}", "5",
                       "0", f"{wins:.2f}"]  # fmt: skip
    assert rows[2][1] == "1 (default)" and rows[2][-2:] == ["1", ""]


def test_the_best_configuration_is_that_of_its_runs(page, sweep):
    """Every run of the point, alone: the same configuration, objects and seeds as in its batch."""
    experiment = build(compose([], sweep / "report" / "best.yaml"))
    wanted = build(compose([*TINY, "algo.learning_rate=1e-3", "model.size=16", "num_seeds=5"]))
    assert experiment.config == wanted.config and experiment.algo == wanted.algo
    assert [lane.seed for lane in experiment.lanes] == [0, 1, 2, 3, 4]
    assert "Point 3, best of 4: success_rate 0." in (sweep / "report" / "best.yaml").read_text()


def test_a_sweep_over_models_is_ranked_and_reproduced(tmp_path):
    """In the folder that the trainer makes: a program for each model, and lanes for the learning rates."""
    folder, options = tmp_path / "sweep", [*TINY, "num_seeds=2", "algo.learning_rate=2e-3"]
    axes = ["sweep.model=[lstm,gru]", "sweep.algo.learning_rate=[1e-3,2e-3]"]
    open_sweep(compose([*options, *axes, f"run_dir={folder}"]))
    fill_sweep(folder, lambda values, seed: 0.5 + 0.1 * (values["model"] == "lstm") + values["algo.learning_rate"])
    ranking = rank(folder)
    assert [tuple(point.values.values()) for point in ranking.points] == [
        ("lstm", 2e-3), ("lstm", 1e-3), ("gru", 2e-3), ("gru", 1e-3)
    ]  # fmt: skip
    assert default_point(ranking, read_sweep(folder)) == (ranking.points[2], True)
    assert best_config(ranking) == build(compose([*options, "model=lstm"])).config


def test_seeds_that_do_not_follow_each_other_leave_the_first(tmp_path):
    config = best_config(rank(make_sweep(tmp_path / "sweep", GRID[:2], score, seeds=[9, 4])))
    assert (config["seed"], config["num_seeds"]) == (4, 1)


def test_one_key_and_one_seed_have_no_pairs_and_no_interval(tmp_path, capsys):
    folder = make_sweep(tmp_path / "sweep", grid(algo__learning_rate=[1e-4, 1e-3, 1e-2]), score, seeds=[3])
    page = report(folder)
    titles = ["The best 3 points", "Learning curves", "Performance profiles", "Each key by itself"]
    assert [image["alt"] for image in page.images] == titles
    assert "With one seed there is no interval" in " ".join(page.text)
    assert {row[4] for row in page.rows[1:]} == {"none"}
    assert "no interval, 1 seed\n" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("module", ["sweep_plots", "landscape_plots"])
def test_pictures_use_no_display(module):
    command = [sys.executable, "-c", f"import src_pure.results.{module}"]
    environment = os.environ | {"MPLBACKEND": "nonsense"}
    assert subprocess.run(command, env=environment, cwd=REPOSITORY).returncode == 0


def random_points(number):
    rng = np.random.default_rng(0)
    return [
        {
            "algo.learning_rate": float(10 ** rng.uniform(-5, -1)),
            "algo.gamma": float(rng.uniform(0.9, 1)),
            "model": str(rng.choice(["gru", "lstm", "mlp"])),
            "model.size": int(rng.choice([8, 16])),
            "algo.anneal_lr": bool(rng.integers(2)),
        }
        for _ in range(number)
    ]


@pytest.mark.parametrize("number", [30, pytest.param(256, marks=pytest.mark.slow)])
def test_five_keys_of_every_kind_and_a_thousand_runs_take_seconds(tmp_path, number):
    folder = make_sweep(tmp_path / "sweep", random_points(number), score, range(4), 256, num_updates=50)
    before = time.process_time()
    page = report(folder, "--metric", "episode_return")
    assert time.process_time() - before < 30
    assert len(page.rows) == number + 1 and page.rows[0][2:7] == [
        "learning_rate",
        "gamma",
        "model",
        "size",
        "anneal_lr",
    ]
    assert "the median point: no ranked point equals the base" in " ".join(page.text)


def test_all_values_of_the_metric_may_be_equal(tmp_path):
    page = report(make_sweep(tmp_path / "sweep", GRID, lambda values, seed: 1.0))
    assert {row[5] for row in page.rows[1:]} == {"none"}
    assert "Intervals hold 95 %: a t-interval corrected for skewness." in " ".join(page.text)


@pytest.fixture
def trainer(monkeypatch):
    """The calls of trainer_pure.main, which only writes a run folder: every run scores 0.7."""
    calls = []

    def main(arguments):
        calls.append(list(arguments))
        experiment = build(compose(arguments[2:], Path(arguments[1])))
        run_dir = new_run(experiment.settings.run_dir, experiment.config_yaml, new_identity(experiment.config))
        runs = [{"run": lane.run, "seed": lane.seed, "values": {}, "state": "finished"} for lane in experiment.lanes]
        run_dir.append_evaluation(evaluation_of(runs, lambda values, seed: 0.7, 10))
        run_dir.write_summary({"env_steps": 640, "runs": len(runs), "failed": {}})
        return 0

    monkeypatch.setattr(trainer_pure, "main", main)
    monkeypatch.setattr(trainer_pure, "keep_compiled_programs", lambda: None)
    return calls


def test_fresh_seeds_show_the_selection_bias(sweep, tmp_path, trainer, capsys):
    copy = shutil.copytree(sweep, tmp_path / "sweep")
    page = report(copy, "--rerun", "3")
    [arguments] = trainer
    assert arguments[-3:] == ["seed=5", "num_seeds=3", f"run_dir={copy / 'report' / 'rerun'}"]
    ranking = rank(copy)
    best = ranking.best.score
    words = f"With 3 fresh seeds its IQM is 0.700 instead of {best:.3f}, a selection bias of {best - 0.7:.3f}; its mean"
    assert words in " ".join(page.text) and "Selection bias" in [image["alt"] for image in page.images]
    assert fresh_point(ranking, copy / "report").seeds == (5, 6, 7)
    with pytest.raises(ValueError, match="holds seeds 5 to 7, not 4 from 5 on; delete it"):
        plan_rerun(ranking, 4, copy / "report")
    path = copy / "report" / "rerun" / "config.yaml"
    path.write_text(path.read_text().replace("learning_rate: 0.001", "learning_rate: 0.01"))
    assert fresh_point(ranking, copy / "report") is None
    capsys.readouterr()
    assert sweep_report.main([str(copy), "--rerun", "3"]) == 2
    assert "holds fresh seeds of another point; delete it" in capsys.readouterr().err and len(trainer) == 1


def test_an_interrupted_rerun_writes_no_page(sweep, tmp_path, monkeypatch):
    copy = shutil.copytree(sweep, tmp_path / "sweep")
    shutil.rmtree(copy / "report", ignore_errors=True)
    monkeypatch.setattr(trainer_pure, "main", lambda arguments: 75)
    monkeypatch.setattr(trainer_pure, "keep_compiled_programs", lambda: None)
    assert sweep_report.main([str(copy), "--rerun", "3"]) == 75
    assert not (copy / "report" / "index.html").exists()


def test_fresh_seeds_stay_below_the_largest(tmp_path):
    ranking = rank(make_sweep(tmp_path / "sweep", GRID[:2], score, seeds=[50, 2**31 - 2]))
    assert plan_rerun(ranking, 1, tmp_path).seed == 2**31 - 1
    assert plan_rerun(ranking, 2, tmp_path).seed == 0
    with pytest.raises(ValueError, match="--rerun 60 needs as many seeds"):
        plan_rerun(ranking, 60, tmp_path)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["{sweep}/batches/000"], "is not a sweep: it has no sweep.yaml"),
        (["{sweep}", "--metric", "sucess_rate"], "did you mean success_rate"),
        (["{sweep}", "--rerun", "0"], "--rerun: must be a whole number from 1 to 10,000, got '0'"),
        (["{sweep}/none"], "no run folder"),
        (["{sweep}", "--out", "{sweep}/sweep.yaml"], "sweep.yaml: File exists"),
    ],
)
def test_a_wrong_command_is_one_line_and_code_2(sweep, capsys, command, message):
    assert sweep_report.main([word.format(sweep=sweep) for word in command]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1 and not printed.out


@pytest.mark.slow
def test_a_trained_sweep_and_its_fresh_seeds(tmp_path):
    """Two points of two seeds in two batches, one of them bound to fail; the best again in the sweep's own program."""
    folder, again = tmp_path / "sweep", tmp_path / "again"
    options = ["sweep.algo.learning_rate=[1e38,1e-3]", "algo.learning_rate=1e-3", "sweep.lanes_per_batch=2"]
    assert trainer_pure.main([*TINY, *options, "num_seeds=2", f"run_dir={folder}"]) == 3
    page = report(folder, "--rerun", "2")
    assert [row[1] for row in page.rows[1:]] == ["1 (default)", "0"] and page.rows[2][-2] == "2"
    assert set(pd.read_parquet(folder / "report" / "rerun" / "evaluation.parquet")["seed"]) == {2, 3}
    assert "With 2 fresh seeds its IQM is" in " ".join(page.text)
    assert plot.main([str(folder)]) == 0 and (folder / "plots" / "success_rate.png").exists()
    assert trainer_pure.main(["--config", str(folder / "report" / "best.yaml"), f"run_dir={again}"]) == 0
    found, wanted = (read_run(path, "evaluation").set_index(["mode", "seed"]) for path in (again, folder))
    assert len(found) == len(wanted) == 4  # the failed runs have no evaluation
    np.testing.assert_allclose(found["success_rate"], wanted["success_rate"].loc[found.index], atol=0.26)


def test_a_sweep_is_drawn_point_by_point_or_by_key(sweep, tmp_path, capsys):
    def labels(*options):
        return list(plot.frames_of(plot.arguments([str(sweep), *options])))

    name = "/".join(sweep.parts[-2:])
    values = [f"algo.learning_rate {rate}, model.size {size}" for rate in ("1e-4", "1e-3", "0.01") for size in (8, 16)]
    assert labels() == [f"{name}: {value}" for value in values]
    assert labels("--by", "model.size") == labels("--by", "size") == [f"{name}: model.size 8", f"{name}: model.size 16"]
    frames = plot.frames_of(plot.arguments([str(sweep), "--by", "algo.learning_rate"]))
    assert [sorted(frame["run"].unique()) for frame in frames.values()] == [
        [*range(10)],
        [*range(10, 20)],
        [*range(20, 30)],
    ]
    assert not {"point", "state", "model.size"} & set(next(iter(frames.values())))
    many = make_sweep(tmp_path / "many", random_points(40), score, seeds=[0])
    assert next(iter(plot.frames_of(plot.arguments([str(many)])))).endswith("many, all 40 points")
    capsys.readouterr()
    for options, message in (
        (
            ["--by", "model.sise"],
            "has no key model.sise (did you mean model.size?); --by takes one of point, seed, algo",
        ),
        (["--by", "algo.gamma"], "at most 28 lines can be told apart, got 40"),
    ):
        assert plot.main([str(many), *options]) == 2
        assert message in capsys.readouterr().err
    batch = str(sweep / "batches" / "001")  # also a run folder alone
    assert len(plot.frames_of(plot.arguments([batch, "--by", "model.size"]))) == 2
