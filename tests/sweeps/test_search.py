"""A search: what it tries and drops, and that a lane which is refilled is the run alone."""

import shutil

import jax
import numpy as np
import pandas as pd
import pytest

import trainer_pure
from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.lanes import evaluation_keys
from src_pure.runs.program import Program, compile_program
from src_pure.sweeps import search_folder
from src_pure.sweeps.folder import read_runs
from src_pure.sweeps.halving import WORST, goes_on, rungs_of
from src_pure.sweeps.search_plan import make_search
from src_pure.sweeps.trials import Place, Trials
from tests.runs.test_devices import with_devices
from tests.sweeps.searches import AXES, SEARCH, assert_same_search, tables, trials_of
from tests.test_command_line import TINY

pytestmark = pytest.mark.usefixtures("one_program")


def test_rungs_are_whole_updates():
    assert rungs_of(100, 3, 3) == (11, 33, 99)
    assert rungs_of(9, 3, 3) == (1, 3, 9) and rungs_of(7, 2, 1) == (7,)


@pytest.mark.parametrize("eta", [2, 3, 4])
def test_the_best_of_a_rung_go_on(eta):
    """Against sorting: as many as fit into 1/eta of those so far, at least one."""
    random = np.random.default_rng(0)
    for number in range(1, 20):
        values = dict(enumerate(random.normal(size=number)))
        best = sorted(values, key=values.get, reverse=True)[: max(1, number // eta)]
        assert {trial for trial in values if goes_on(trial, values, eta)} == set(best)


@pytest.mark.parametrize("possible", [1, 2, 1_000_000])
def test_a_third_goes_on_however_many_are_equal(possible):
    """Trials that come one after the other, with as many possible values; also those that have stopped count."""
    random, values, passed = np.random.default_rng(0), {}, []
    for trial in range(3000):
        values[trial] = float(random.integers(possible))
        passed.append(goes_on(trial, values, 3))
    assert abs(np.mean(passed) - 1 / 3) < 0.04
    assert sum(goes_on(trial, {0: WORST, 1: WORST, 2: 0.0}, 3) for trial in range(2)) == 0


def test_every_trial_is_tried_once_and_judged_by_the_rule(searched):
    """The decisions repeated from the values in the tables of the evaluation, in the order of the updates."""
    trials, evaluation = trials_of(searched), tables(searched)["evaluation.parquet"]
    assert [trial.number for trial in trials] == list(range(8)) and {trial.state for trial in trials} == {
        "pruned",
        "finished",
    }
    sampled = evaluation[evaluation["mode"] == "sampled"].assign(trial=evaluation["run"] // 2)
    means = sampled.groupby(["update", "trial"], sort=True).agg(
        value=("success_rate", "mean"), steps=("env_steps", "max")
    )
    reached, ended = {1: {}, 3: {}, 9: {}}, {}
    for _, rows in means.reset_index().groupby("update"):
        for row in rows.itertuples():
            reached[row.steps // 64][row.trial] = row.value
        for row in rows.itertuples():
            age = row.steps // 64
            if age == 9 or not goes_on(row.trial, reached[age], 3):
                assert row.trial not in ended
                ended[row.trial] = "finished" if age == 9 else "pruned"
    assert ended == {trial.number: trial.state for trial in trials}
    for trial in trials:
        assert trial.reports == {age: values[trial.number] for age, values in reached.items() if trial.number in values}


def test_rows_are_those_of_the_trials(searched):
    """Each run has a row for each of its updates, with its own environment steps and its own seed."""
    metrics = tables(searched)["metrics.parquet"]
    for trial in trials_of(searched):
        for seed in (0, 1):
            rows = metrics[metrics["run"] == 2 * trial.number + seed]
            assert rows["env_steps"].tolist() == [64 * (n + 1) for n in range(trial.updates)]
            assert (rows["seed"] == 5 + seed).all()
            assert (rows["update"] - rows["env_steps"] // 64 == trial.place.begun).all()
    assert set(metrics["run"]) == set(range(16))


def test_the_table_of_runs_says_what_became_of_them(searched):
    runs = read_runs(searched)
    assert runs.columns.tolist() == ["run", "seed", "point", "program", "batch", "state", "algo.learning_rate",
                                     "task.corridor_len", "value", "updates"]  # fmt: skip
    trials = trials_of(searched)
    assert runs["state"].tolist() == [trial.state for trial in trials for _ in range(2)]
    assert runs["value"].tolist() == [trial.value for trial in trials for _ in range(2)]
    assert runs["algo.learning_rate"].between(1e-4, 1e-1).all() and set(runs["task.corridor_len"]) <= {2, 3}


def test_best_is_trained_again_alone(searched, tmp_path, capsys):
    """To the same metrics and values, up to rounding, because the program has another width."""
    best = max(trials_of(searched), key=lambda trial: (trial.state == "finished", trial.value, -trial.number))
    assert trainer_pure.main(["--config", str(searched / "best.yaml"), f"run_dir={tmp_path / 'best'}"]) == 0
    metrics, evaluation = (tables(searched)[f"{name}.parquet"] for name in ("metrics", "evaluation"))
    alone = pd.read_parquet(tmp_path / "best" / "evaluation.parquet")
    final = evaluation[
        evaluation["run"].isin([2 * best.number, 2 * best.number + 1]) & (evaluation["env_steps"] == 576)
    ]
    for column in ("success_rate", "episode_return", "episode_length", "seed", "env_steps"):
        np.testing.assert_allclose(final[column], alone[column], rtol=1e-4, atol=1e-5)
    alone = pd.read_parquet(tmp_path / "best" / "metrics.parquet")
    rows = metrics[metrics["run"] // 2 == best.number]
    for column in ("episode_return", "loss", "param_norm", "entropy"):
        np.testing.assert_allclose(rows[column], alone[column], rtol=1e-3, atol=1e-4)


def test_the_same_command_again_changes_nothing(searched, capsys):
    def times():
        return {x: x.stat().st_mtime_ns for x in searched.rglob("*") if x.is_file() and "batches" in x.parts}

    before = times()
    assert trainer_pure.main([*SEARCH, f"run_dir={searched}"]) == 0
    assert "best of 8 trials" in capsys.readouterr().out and times() == before


def test_a_fixed_seed_repeats_the_search(searched, tmp_path):
    assert trainer_pure.main([*SEARCH, f"run_dir={tmp_path / 'again'}"]) == 0
    assert_same_search(tmp_path / "again", searched)


def test_processes_share_a_search(tmp_path, monkeypatch, capsys):
    """A second one joins in the middle, trains new trials in a batch of its own and leaves; then the first goes on."""
    folder, refill, joined = tmp_path / "search", Program.refill, []

    def joining(self, state, positions):
        if not joined:
            joined.append(True)
            assert trainer_pure.main([*SEARCH, f"run_dir={folder}"]) == 5
            assert "other processes are training 2 trials" in capsys.readouterr().err
        return refill(self, state, positions)

    with monkeypatch.context() as patch:
        patch.setattr(Program, "refill", joining)
        assert trainer_pure.main([*SEARCH, f"run_dir={folder}"]) == 0
    trials = trials_of(folder)
    assert {trial.place.batch for trial in trials} == {"000", "001"} and all(trial.over for trial in trials)
    metrics = tables(folder)["metrics.parquet"]
    assert (metrics.groupby("run").size() == np.repeat([trial.updates for trial in trials], 2)).all()


def test_a_trial_with_a_run_that_fails_is_the_worst(tmp_path, capsys):
    folder = tmp_path / "search"
    axes = ["sweep.algo.learning_rate=[1e-3,1e38]", "sweep.task.corridor_len=uniform(2,5)"]
    options = [x for x in SEARCH if x not in AXES]
    assert trainer_pure.main([*options, *axes, "sweep.sampler=random", f"run_dir={folder}"]) == 0
    trials = trials_of(folder)
    values = [tuple(trial.values.values()) for trial in trials]
    assert len(set(values)) == 8  # all that there are, although the sampler is random
    for trial in trials:
        assert (trial.state == "failed") == (trial.values["algo.learning_rate"] == 1e38)
        assert (trial.value == WORST) == (trial.state == "failed")
    assert {"failed", "finished"} <= {trial.state for trial in trials}
    assert set(read_runs(folder)["state"]) == {trial.state for trial in trials}


def test_a_search_of_which_everything_fails_says_so(tmp_path, capsys):
    folder = tmp_path / "search"
    options = [x for x in SEARCH if x not in AXES]
    assert trainer_pure.main([*options, "sweep.algo.learning_rate=loguniform(1e37,1e38)", f"run_dir={folder}"]) == 3
    assert "all 8 trials" in capsys.readouterr().err
    metrics = pd.read_parquet(folder / "batches" / "000" / "metrics.parquet")
    assert metrics["update"].tolist() == sorted(metrics["update"]) and set(metrics["run"]) == set(range(16))


WRONG = [
    (["sweep.trials=null"], "set sweep.trials=100"),
    (["sweep.lanes=9"], "sweep.lanes must be at most sweep.trials=8, got 9"),
    (["sweep.rungs=4"], "sweep.rungs=4 with sweep.eta=3 needs 27 updates at least, total_steps gives 10"),
    (["sweep.eta=1"], "sweep.eta must be greater than or equal to 2, got 1"),
    (["sweep.model.size=[4,8]"], "sweep.model.size: a search trains all trials in one program"),
    (["sweep.num_envs=[4,8]"], "run one search for each value of num_envs"),
    (["sweep.metric=sucess_rate"], "sweep.metric must be one of episode_length, episode_return, success_rate, got"),
    (["sweep.algo.gamma=uniform(0.9,1.1)"], "algo.gamma=1.1, task.corridor_len=3: algo.gamma must be less than or"),
    (["sweep.algo.learning_rate=[1e-3,1e-2,1e-1]"], "sweep.trials=8, but these axes have only 6 different points"),
    (["sweep.task.corridor_len=[2,300]"], "corridor_len must be at most 256"),
    (["sweep.file=points.csv"], "set axes instead of sweep.file"),
    (["sweep.sampler=grid"], "sweep.sampler must be 'tpe' or 'random'"),
    (["wandb.mode=offline"], "a search writes no dashboards"),
    (["resume=must"], "there is no search to continue"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[" ".join(options) for options, _ in WRONG])
def test_wrong_searches_are_named_and_write_nothing(tmp_path, capsys, options, message):
    assert trainer_pure.main([*SEARCH, *options, f"run_dir={tmp_path / 'search'}"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and list(tmp_path.iterdir()) == []


def test_a_folder_keeps_its_search(searched, capsys):
    assert trainer_pure.main([*SEARCH, "sweep.trials=9", f"run_dir={searched}"]) == 2
    assert "holds another sweep: sweep.trials is 9, was 8" in capsys.readouterr().err
    batch = searched / "batches" / "000"
    assert trainer_pure.main(["--config", str(batch / "config.yaml"), f"run_dir={batch}"]) == 2
    assert "repeat the command of the search" in capsys.readouterr().err


def test_a_missing_or_damaged_journal_is_named(searched, tmp_path, capsys):
    folder = shutil.copytree(searched, tmp_path / "search")
    content = (folder / "optuna.journal").read_bytes()
    (folder / "optuna.journal").write_bytes(b"nonsense\n" + content)
    assert trainer_pure.main([*SEARCH, f"run_dir={folder}"]) == 2
    assert "optuna.journal cannot be read" in capsys.readouterr().err
    (folder / "optuna.journal").unlink()
    assert trainer_pure.main([*SEARCH, f"run_dir={folder}"]) == 2
    assert "optuna.journal is missing" in capsys.readouterr().err


def test_contradicting_values_are_recorded_and_replaced(tmp_path, monkeypatch):
    """Values that only together cannot be trained: a stand-in for a rule of a user's algorithm."""
    plan = make_search(compose([*SEARCH, "sweep.sampler=random"]))
    folder, point = tmp_path / "search", type(plan).point

    def refuse(self, values):
        if values["task.corridor_len"] == 3 and values["algo.learning_rate"] > 1e-3:
            raise search_folder.ConfigError("they contradict each other")
        return point(self, values)

    search_folder.begin_search(folder, plan, plan.config)
    trials = Trials(folder, plan.ranges, plan.settings)
    monkeypatch.setattr(type(plan), "point", refuse)
    with trials.held():
        placed = search_folder.ask_until_valid(plan, trials, [Place("000", 0, slot) for slot in range(3)])
        known = trials.all()
        again = search_folder.ask_until_valid(plan, trials, [Place("000", 0, slot) for slot in range(3)])
    assert placed == again and len(placed) == 3 < len(known) <= 8
    assert {trial.state for trial in known} == {"running", "invalid"}


@pytest.mark.slow
def test_lanes_are_refilled_on_several_devices():
    tests = f"{__file__}::test_a_refilled_lane_is_the_run_from_its_beginning"
    with_devices(2, "-m", "pytest", "-o", "addopts=", "-p", "no:xdist", "-q", tests)


@pytest.mark.parametrize("width", [1, 2])
def test_a_refilled_lane_is_the_run_from_its_beginning(width):
    """Bit for bit: the lane is refilled after others have trained, then trains next to an older one."""
    experiment = build(compose([*TINY, "total_steps=576", "num_seeds=3", "seed=7"]))
    program = compile_program(experiment, width=width)
    whole, metrics = program.segment(program.init(), 4)
    wanted = program.gather(whole)
    state, _ = program.segment(program.init(), 2)
    state, after = program.segment(program.refill(state, [1]), 4)
    found = program.gather(state)
    assert found.update.tolist() == [6, 4, 6]
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[1], y[1]), found, wanted)
    for name, values in after.items():
        np.testing.assert_array_equal(values[:, 1], metrics[name][:, 1])
    ages = np.array([6, 4, 6])
    one, other = program.evaluate(state, ages), program.evaluate(program.scatter(wanted), 4)
    for mode in one:
        for name, values in one[mode].items():
            assert values[1] == other[mode][name][1]
    keys = jax.random.key_data(evaluation_keys(experiment.lanes, ages))
    np.testing.assert_array_equal(keys[1], jax.random.key_data(evaluation_keys(experiment.lanes, 4))[1])
