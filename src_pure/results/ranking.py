"""The points of a sweep, ranked by the final evaluation of their runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from src_pure.errors import ConfigError
from src_pure.results.reading import FAILED, FINISHED, read_batches, read_runs
from src_pure.results.statistics import interval, iqm
from src_pure.results.swept import Key, keys_of, plain
from src_pure.runs.columns import main_metric, over_episodes
from src_pure.runs.scores import score_interval
from src_pure.sweeps.folder import is_sweep_folder
from src_pure.sweeps.plan import shown_value

MODE = "sampled"  # the policy that a sweep is ranked by
TRIMMED = 4  # with fewer runs the IQM is the mean, and a t-interval holds it more often than a bootstrap


@dataclass(frozen=True)
class Point:
    """The runs of one point of a sweep that have come to their end."""

    number: int
    values: dict[str, Any]  # of the swept keys, by dotted name
    runs: tuple[int, ...]
    seeds: tuple[int, ...]
    scores: np.ndarray  # [runs] of the final evaluation
    failed: int  # how many of these runs failed
    episodes: int  # of all final evaluations
    score: float  # IQM
    interval: tuple[float, float] | None  # 95 %, None for one run or equal ones

    @property
    def mean(self) -> float:
        return float(self.scores.mean())


@dataclass(frozen=True)
class Ranking:
    """The points of a sweep from best to worst."""

    folder: Path
    metric: str
    keys: list[Key]
    points: list[Point]
    worst: float  # what a failed run scores
    runs: pd.DataFrame  # all runs of the sweep, as read_runs gives them

    @property
    def best(self) -> Point:
        return self.points[0]

    @property
    def unranked(self) -> pd.DataFrame:
        """The runs that are not finished yet."""
        return self.runs[~self.runs["state"].isin([FINISHED, FAILED])]

    def column(self, key: Key) -> list[Any]:
        """The values of a key, [P]."""
        return [point.values[key.name] for point in self.points]


def rank(folder: Path, metric: str | None = None) -> Ranking:
    """The ranking of a sweep folder by a metric of its final evaluation, success_rate or episode_return by default.

    Raises ConfigError if the folder is not a sweep, if nothing has finished yet, or for an unknown metric.
    """
    runs = read_runs(folder)
    if not is_sweep_folder(folder):
        raise ConfigError(f"{folder} is not a sweep: it has no sweep.yaml; scripts/plot.py draws a single run folder")
    keys = keys_of(runs)
    if not keys:
        raise ConfigError(f"{folder} sweeps over nothing but seeds; scripts/plot.py draws their mean")
    counts = runs["state"].value_counts()
    if not counts.get(FINISHED, 0):
        listed = ", ".join(f"{count} {state}" for state, count in counts.items())
        raise ConfigError(f"no run of {folder} has finished yet ({listed}); repeat this once one has")
    evaluation = read_batches(folder, runs, "evaluation")
    metric = check_metric(metric, [name for name in evaluation if over_episodes(name)])
    scores, worst = run_scores(runs, evaluation, metric)
    points = [make_point(rows, keys, metric) for _, rows in scores.groupby("point")]
    points.sort(key=lambda point: (-point.score, -point.mean, point.number))
    return Ranking(folder, metric, keys, points, worst, runs)


def check_metric(metric: str | None, known: Sequence[str]) -> str:
    """The metric to rank by; raises ConfigError with the closest names if the evaluation has no such metric."""
    metric = metric or main_metric(known)
    if metric not in known:
        closest = get_close_matches(metric, known, n=3)
        hint = f" (did you mean {' or '.join(closest)}?)" if closest else ""
        raise ConfigError(f"the final evaluation has no metric {metric}{hint}; known: {', '.join(known)}")
    return metric


def run_scores(runs: pd.DataFrame, evaluation: pd.DataFrame, metric: str) -> tuple[pd.DataFrame, float]:
    """(runs that came to their end with their `score` and `episodes`, what a failed run scores).

    The score of a run is the metric in its last evaluation. A failed run scores 0 in success_rate, and in any other
    metric the lowest value of a finished run.
    """
    last = evaluation[evaluation["mode"] == MODE].sort_values("update").groupby("run").tail(1).set_index("run")
    scores = runs.assign(
        score=runs["run"].map(last[metric]).astype(float), episodes=runs["run"].map(last["episodes"]).fillna(0)
    )
    finished = scores["state"] == FINISHED
    if not scores.loc[finished, "score"].notna().any():
        raise ConfigError(f"{metric} is missing in the final evaluation of every finished run; choose another --metric")
    worst = 0.0 if metric == "success_rate" else float(scores.loc[finished, "score"].min())
    failed = scores["state"] == FAILED
    scores.loc[failed, ["score", "episodes"]] = worst, 0
    return scores[(finished | failed) & scores["score"].notna()], worst


def make_point(rows: pd.DataFrame, keys: Sequence[Key], metric: str) -> Point:
    """The point of these runs."""
    scores = rows["score"].to_numpy(float)
    return Point(
        number=int(rows["point"].iloc[0]),
        values={key.name: plain(rows[key.name].iloc[0]) for key in keys},
        runs=tuple(rows["run"].tolist()),
        seeds=tuple(rows["seed"].tolist()),
        scores=scores,
        failed=int((rows["state"] == FAILED).sum()),
        episodes=int(rows["episodes"].sum()),
        score=float(iqm(scores)),
        interval=interval_of(scores, metric),
    )


def interval_of(scores: np.ndarray, metric: str) -> tuple[float, float] | None:
    """The 95 % interval of the IQM of a point's runs, [runs]: bootstrap, or a t-interval for two or three runs."""
    return score_interval(metric, scores) if len(scores) < TRIMMED else interval([scores])


def default_point(ranking: Ranking, base: dict[str, Any]) -> tuple[Point, bool]:
    """(the point that equals the base configuration, True), or (the median point of the ranking, False)."""
    for point in ranking.points:
        if all(same(value, base_value(base, name)) for name, value in point.values.items()):
            return point, True
    return ranking.points[len(ranking.points) // 2], False


def base_value(config: dict[str, Any], name: str) -> Any:
    """The value of a dotted key as runs.parquet shows it; None if it is not there."""
    value: Any = config
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return plain(shown_value(name, value))


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal, numbers up to rounding."""
    if isinstance(a, int | float) and isinstance(b, int | float):
        return bool(np.isclose(a, b, rtol=1e-9, atol=0))
    return a == b
