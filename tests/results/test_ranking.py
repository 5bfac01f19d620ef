"""The ranking of a sweep's points and the importance of its keys, against definitions and theory."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import trim_mean

from src_pure.config.files import read_config_file
from src_pure.errors import ConfigError
from src_pure.results.importance import importance
from src_pure.results.ranking import Point, Ranking, default_point, rank
from src_pure.results.reading import RUN_COLUMNS
from src_pure.results.swept import is_log_spaced, keys_of, make_key, short_names, text
from tests.results.sweeps import grid, make_sweep

POINTS = grid(algo__learning_rate=[1e-4, 1e-3], model__size=[8, 16])
SEEDS = range(5)


def score(values, seed):
    return 0.2 + 0.5 * (values["algo.learning_rate"] == 1e-3) + 0.1 * (values["model.size"] == 8) + seed**2 / 500


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Four points of five seeds; the runs of point 0 with seeds 1, 2 failed, point 3 is stopped."""
    options = ["algo.learning_rate=1e-3", "model.size=16"]
    folder = tmp_path_factory.mktemp("sweeps") / "sweep"
    return make_sweep(folder, POINTS, score, SEEDS, 5, failed=[1, 2], states={3: "stopped"}, options=options)


def ranking_of(points, scores, metric="episode_return"):
    """A ranking without a folder; scores: [P, seeds]."""
    keys = keys_of(pd.DataFrame(points))
    made = [
        Point(number, values, (), (), np.atleast_1d(each).astype(float), 0, 0, float(np.mean(each)), None)
        for number, (values, each) in enumerate(zip(points, scores, strict=True))
    ]
    return Ranking(None, metric, keys, made, 0.0, pd.DataFrame())


def test_points_are_ranked_by_the_iqm_of_the_sampled_policy(sweep):
    ranking = rank(sweep)
    assert ranking.metric == "success_rate" and [point.number for point in ranking.points] == [2, 1, 0]
    best, _, worst = ranking.points
    scores = [score(POINTS[2], seed) for seed in SEEDS]
    np.testing.assert_allclose(best.scores, scores)
    assert best.score == pytest.approx(trim_mean(scores, 0.25)) and best.mean == pytest.approx(np.mean(scores))
    assert best.interval[0] < best.score < best.interval[1] and best.episodes == 5 * 8
    assert worst.failed == 2 and sorted(worst.scores)[:2] == [0, 0] and worst.episodes == 3 * 8
    assert len(ranking.unranked) == 5 and set(ranking.unranked["state"]) == {"stopped"}


def test_a_failed_run_counts_as_the_lowest_return(sweep):
    ranking = rank(sweep, "episode_return")
    lowest = min(2 * score(POINTS[point], seed) for point in (0, 1, 2) for seed in SEEDS if (point, seed) != (0, 1))
    assert ranking.worst == pytest.approx(lowest) and min(ranking.points[-1].scores) == pytest.approx(lowest)


def test_the_default_is_the_point_that_equals_the_base(sweep, tmp_path):
    ranking = rank(sweep)
    point, is_default = default_point(ranking, read_config_file(sweep / "sweep.yaml"))
    assert not is_default and point is ranking.points[1]  # point 3 is the base, but is not finished
    base = {"algo": {"learning_rate": 0.001}, "model": {"name": "gru", "size": 8.0}}
    assert default_point(ranking, base) == (ranking.points[0], True)
    models = ranking_of([{"model": "lstm"}, {"model": "gru"}], [1, 0])
    assert default_point(models, base) == (models.points[1], True)


def test_two_seeds_get_a_t_interval_and_one_gets_none(tmp_path):
    two = rank(make_sweep(tmp_path / "two", POINTS[:2], score, seeds=[0, 3])).best
    assert two.interval[0] < min(two.scores) and max(two.scores) < two.interval[1]
    assert rank(make_sweep(tmp_path / "one", POINTS[:2], score, seeds=[0])).best.interval is None


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("sucess_rate", "no metric sucess_rate .did you mean success_rate.*; known: episode_return, episode_length"),
        ("policy_loss", "no metric policy_loss"),
    ],
)
def test_an_unknown_metric_is_refused(sweep, metric, message):
    with pytest.raises(ConfigError, match=message):
        rank(sweep, metric)


def test_what_cannot_be_ranked_is_refused(sweep, tmp_path):
    with pytest.raises(ConfigError, match="is not a sweep"):
        rank(sweep / "batches" / "000")
    waiting = make_sweep(tmp_path / "waiting", POINTS, score, [0], 2, states={0: "stopped", 1: "waiting"})
    with pytest.raises(ConfigError, match=r"no run of .* has finished yet .2 stopped, 2 waiting"):
        rank(waiting)
    seeds = make_sweep(tmp_path / "seeds", POINTS[:1], score)
    with pytest.raises(ConfigError, match="sweeps over nothing but seeds"):
        rank(seeds)


def test_shares_of_a_grid_are_those_of_its_array():
    """Main and total effects from the array of all scores, axis by axis."""
    points = grid(a=[1, 2, 3], b=[0.1, 0.2], c=["x", "y", "z", "w"])
    scores = np.random.default_rng(0).normal(size=len(points))
    found = importance(ranking_of(points, scores))
    array = scores.reshape(3, 2, 4)
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        assert found.main[axis] == pytest.approx(array.mean(others).var() / array.var())
        assert found.total[axis] == pytest.approx(array.var(axis).mean() / array.var())
    assert found.noise is None and found.chance is None


def test_the_noise_of_seeds_is_not_taken_for_an_effect():
    points = grid(a=[1, 2, 3, 4], b=[1, 2, 3])
    rng = np.random.default_rng(0)
    found = [importance(ranking_of(points, [3 * point["a"] + 4 * rng.normal(size=4) for point in points]))
             for _ in range(200)]  # fmt: skip
    true = 9 * 1.25  # variance over a
    noise = 16 / 4
    assert np.mean([each.main[0] for each in found]) == pytest.approx(true / (true + noise), abs=0.03)
    assert np.median([each.main[1] for each in found]) < 0.03
    assert np.mean([each.noise for each in found]) == pytest.approx(noise / (true + noise), abs=0.05)


def test_shares_of_random_points_are_sobols():
    """y = u + v / 2 of uniform u, v has first-order indices 0.8 and 0.2; w has no effect."""
    rng = np.random.default_rng(0)
    main = []
    for _ in range(20):
        points = [{"u": u, "v": 10 ** (5 * v), "w": w} for u, v, w in rng.uniform(size=(300, 3))]
        found = importance(ranking_of(points, [point["u"] + np.log10(point["v"]) / 10 for point in points]))
        assert found.total is None and (found.main[:2] > found.chance[:2]).all()
        main.append(found.main)
    np.testing.assert_allclose(np.mean(main, axis=0), [0.8, 0.2, 0.0], atol=0.03)


def test_chance_exceeds_its_mark_in_one_of_twenty():
    rng = np.random.default_rng(1)
    exceeded = 0
    for _ in range(100):
        points = [{"a": a, "b": b} for a, b in rng.uniform(size=(40, 2))]
        found = importance(ranking_of(points, rng.normal(size=40)))
        exceeded += (found.main > found.chance).sum()
    assert 2 <= exceeded <= 22


def test_equal_scores_have_no_shares():
    found = importance(ranking_of(grid(a=[1, 2], b=[1, 2]), [0.5] * 4))
    assert found.main.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("levels", "wanted"),
    [
        ([1e-4, 1e-3, 1e-2], True),
        ([16, 32, 64, 128], True),
        ([1e-4, 3e-4, 1e-3], True),
        ([1, 2, 3, 4, 5], False),
        ([0, 0.001, 0.01], False),
        ([0.9, 0.99, 0.999], False),
        ([1e-4, 1e-2], False),
    ],
)
def test_log_axes_are_for_values_with_equal_ratios(levels, wanted):
    assert is_log_spaced(np.array(levels, float)) == wanted


def test_random_numbers_get_the_axis_they_were_drawn_on():
    rng = np.random.default_rng(0)
    assert is_log_spaced(np.sort(10 ** rng.uniform(-5, -2, 30)))
    assert not is_log_spaced(np.sort(rng.uniform(0.01, 1, 30)))


def test_keys_are_the_columns_that_vary():
    runs = pd.DataFrame({name: [0, 1] for name in RUN_COLUMNS} | {"algo.gamma": [0.9, 0.9], "model.size": [8, 4]})
    [key] = keys_of(runs)
    assert (key.name, key.label, key.levels) == ("model.size", "size", (4, 8))
    assert not key.binned
    many = grid(a=range(12), b=[1, 2])
    assert [key.binned for key in keys_of(pd.DataFrame(many))] == [False, False]
    assert [key.binned for key in keys_of(pd.DataFrame(many[1:]))] == [True, False]
    assert short_names(["algo.size", "model.size", "seed"]) == ["algo.size", "model.size", "seed"]


def test_many_values_are_divided_into_equal_bins():
    values = list(np.random.default_rng(0).uniform(size=40))
    groups = make_key("a", "a", values, grid=False).groups(values)
    assert np.bincount(groups.index).tolist() == [5] * 8 and (np.diff(groups.centers) > 0).all()
    order = np.argsort(values)
    assert (np.diff(groups.index[order]) >= 0).all()
    exact = make_key("a", "a", values, grid=True).groups(values)
    assert exact.index.tolist() == np.argsort(np.argsort(values)).tolist()
    words = make_key("b", "b", ["lstm", None, "gru"], grid=False)
    assert words.groups(["gru", "lstm", None]).labels == ["lstm", "null", "gru"]
    assert words.on_axis(["gru", "lstm"]).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(3e-4, "3e-4"), (1e-3, "1e-3"), (0.01, "0.01"), (0.99, "0.99"), (0.0, "0"), (64.0, "64"), (1024, "1,024"),
     (1.234e-5, "1.23e-5"), (2.5e7, "2.5e7"), (True, "true"), (None, "null"), (float("nan"), "null"), ("gru", "gru"),
     (np.float64(-5e-4), "-5e-4"), (np.bool_(False), "false"), (0.05, "0.05"), ([1, 2], "[1, 2]")],
)  # fmt: skip
def test_numbers_are_short(value, shown):
    assert text(value) == shown
