import numpy as np
import pandas as pd

from src_pure.runs.intervals import interval
from src_pure.runs.scores import final_scores, learning_curve


def evaluation_row(run, update, mode, episodes, success_rate, episode_return=0.0, unfinished=0):
    row = {"run": run, "seed": run, "update": update, "env_steps": 10 * update, "mode": mode, "episodes": episodes}
    row |= {"unfinished": unfinished, "episode_return": episode_return, "episode_length": 5}
    return row | {"success_rate": success_rate}


def test_final_scores_are_of_the_last_update_and_weigh_runs_equally():
    frame = pd.DataFrame(
        [
            evaluation_row(0, 1, "greedy", 50, 0.0),
            evaluation_row(1, 1, "greedy", 50, 0.0),
            evaluation_row(0, 2, "greedy", 10, 1.0, episode_return=4.0),
            evaluation_row(1, 2, "greedy", 30, 0.5, episode_return=-1.0, unfinished=4),
            evaluation_row(0, 2, "sampled", 10, 0.25),
            evaluation_row(1, 2, "sampled", 0, np.nan),
        ]
    )
    scores = final_scores(frame)
    assert set(scores) == {"greedy", "sampled"}
    assert set(scores["greedy"]) == {"episode_return", "episode_length", "success_rate"}
    counts = {"episodes": 40, "unfinished": 4, "runs": 2}
    assert scores["greedy"]["success_rate"] == {"mean": 0.75, "interval": [0.0, 1.0], **counts}
    interval_of_return = list(interval([4.0, -1.0]))
    assert scores["greedy"]["episode_return"] == {"mean": 1.5, "interval": interval_of_return, **counts}
    assert scores["greedy"]["episode_length"] == {"mean": 5.0, "interval": None, **counts}
    one = {"mean": 0.25, "interval": None, "episodes": 10, "unfinished": 0, "runs": 1}
    assert scores["sampled"]["success_rate"] == one


def test_final_scores_without_any_episode_are_none():
    scores = final_scores(pd.DataFrame([evaluation_row(0, 2, "greedy", 0, np.nan)]))
    nothing = {"mean": None, "interval": None, "episodes": 0, "unfinished": 0, "runs": 0}
    assert scores["greedy"]["success_rate"] == nothing


def curve_frame() -> pd.DataFrame:
    columns = ("run", "env_steps", "episodes", "success_rate", "policy_loss")
    rows = [
        (0, 100, 1, 0.0, 1.0),
        (0, 200, 3, 1.0, 2.0),
        (0, 300, 0, np.nan, 3.0),
        (0, 400, 2, 0.5, 4.0),
        (1, 100, 0, np.nan, 5.0),
        (1, 200, 2, 0.25, 6.0),
        (1, 300, 0, np.nan, 7.0),
        (1, 400, 0, np.nan, 8.0),
    ]
    return pd.DataFrame(rows, columns=columns)


def test_learning_curve_weighs_by_episodes_inside_a_bin_and_runs_equally():
    curve = learning_curve(curve_frame(), "success_rate", bins=2)
    # (0, 200]: run 0 has (1 * 0 + 3 * 1) / 4, run 1 has 0.25; (200, 400]: run 0 has 0.5, run 1 no episode
    np.testing.assert_allclose(curve.steps, [100, 300])
    np.testing.assert_allclose(curve.mean, [0.5, 0.5])
    np.testing.assert_allclose(curve.low, [0.0, np.nan])  # of 0.25 and 0.75, as far as a rate goes
    np.testing.assert_allclose(curve.high, [1.0, np.nan])


def test_learning_curve_leaves_out_bins_without_an_episode():
    curve = learning_curve(curve_frame(), "success_rate", bins=4)
    np.testing.assert_allclose(curve.steps, [50, 150, 350])  # nothing in (200, 300]
    np.testing.assert_allclose(curve.mean, [0.0, 0.625, 0.5])


def test_learning_curve_of_a_loss_does_not_need_episodes():
    curve = learning_curve(curve_frame(), "policy_loss", bins=2)
    np.testing.assert_allclose(curve.mean, [(1.5 + 5.5) / 2, (3.5 + 7.5) / 2])
    np.testing.assert_allclose([curve.low[0], curve.high[0]], interval([1.5, 5.5]))


def test_learning_curve_of_nothing_is_empty():
    curve = learning_curve(curve_frame().assign(success_rate=pd.array([pd.NA] * 8, dtype="Float64")), "success_rate", 3)
    assert all(array.shape == (0,) for array in curve)


def test_learning_curve_bins_steps_exactly_beyond_32_bits():
    frame = curve_frame()
    frame["env_steps"] *= 10**10
    np.testing.assert_allclose(learning_curve(frame, "policy_loss", 4).steps, np.array([50, 150, 250, 350]) * 1e10)
