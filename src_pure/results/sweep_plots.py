"""Figures of a sweep's scores: ranking, learning curves, profiles, fresh seeds. Each function returns a Figure."""

from src_pure.results.plotting import (  # first: matplotlib must not look for a display
    COLORS,
    INK,
    STYLE,
    UNITS,
    draw_panel,
    legend_label,
)

# isort: split

from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src_pure.results.ranking import Point, Ranking
from src_pure.results.statistics import performance_profile, profile_band
from src_pure.results.swept import text
from src_pure.runs.atomic import replacing

SHOWN = 20  # points in the picture of the ranking; the page lists all
LABEL_WIDTH = 64  # characters
WIDTH = 8.0  # inches
GREY = "#777777"


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG."""
    with matplotlib.rc_context(STYLE), replacing(path) as file:
        figure.savefig(file, format="png", dpi=130)


def new_figure(height: float, width: float = WIDTH) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def metric_label(metric: str) -> str:
    return metric.replace("_", " ") + (f" ({UNITS[metric]})" if metric in UNITS else "")


def point_label(ranking: Ranking, point: Point) -> str:
    """The number of a point and as many of its values as fit into a line: 12: learning_rate 3e-4, gamma 0.99."""
    values = ", ".join(f"{key.label} {text(point.values[key.name])}" for key in ranking.keys)
    return shorten(f"{point.number}: {values}", LABEL_WIDTH, placeholder=" ...")


def limit_score(axis: Axes, metric: str, which: str = "x") -> None:
    """Fixes the range of success rates, which lie in 0..1."""
    if metric == "success_rate":
        (axis.set_xlim if which == "x" else axis.set_ylim)(-0.02, 1.02)


def draw_ranking(ranking: Ranking, default: Point) -> Figure:
    """The best points: every run as a dot, the mean as a diamond, the IQM as a bar, its interval as a line."""
    points = ranking.points[:SHOWN]
    points += [default] * (default not in points)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(0.9 + 0.3 * len(points))
        panel = figure.subplots()
        draw_scores(panel, points, [default])
        labels = [point_label(ranking, point) + (" *" if point is default else "") for point in points]
        panel.set_yticks(range(len(points)), labels, fontsize=8)
        panel.set_xlabel(metric_label(ranking.metric))
        limit_score(panel, ranking.metric)
    return figure


def draw_scores(panel: Axes, points: Sequence[Point], marked: Sequence[Point] = ()) -> None:
    """One row for each point from top to bottom."""
    for row, point in enumerate(points):
        color = COLORS[1] if point in marked else COLORS[0]
        panel.scatter(point.scores, np.full(len(point.scores), row), s=16, color=color, alpha=0.35, linewidth=0)
        if point.interval:
            panel.plot(point.interval, [row, row], color=color, linewidth=1.6, solid_capstyle="butt")
        panel.plot([point.score], [row], marker="|", markersize=12, markeredgewidth=2.6, color=color)
        panel.plot([point.mean], [row], marker="D", markersize=4.5, markerfacecolor="white", color=color)
    panel.set_ylim(len(points) - 0.4, -0.6)
    panel.grid(axis="y", visible=False)


def draw_curves(frames: dict[str, pd.DataFrame], metric: str, bins: int = 50) -> Figure:
    """Learning curves of labelled frames of metrics, with intervals over runs."""
    with matplotlib.rc_context(STYLE):
        figure = new_figure(3.9)
        panel = figure.subplots()
        lines = draw_panel(panel, list(frames.values()), metric, bins)
        labels = [legend_label(label, frame) for label, frame in frames.items()]
        figure.legend(lines, labels, loc="outside upper left", alignment="left", handlelength=1.8)
    return figure


def draw_profiles(ranking: Ranking, default: Point, called: str) -> Figure:
    """The fraction of runs above every score, of the best point, the default and the whole sweep, with intervals."""
    everything = [point.scores for point in ranking.points]
    scores = np.concatenate(everything)
    low, high = (0.0, 1.0) if ranking.metric == "success_rate" else (scores.min(), scores.max())
    thresholds = np.linspace(low, high, 101)
    shown = {"all points": everything, called: [default.scores], "best point": [ranking.best.scores]}
    colors = {"all points": GREY, called: COLORS[1], "best point": COLORS[0]}
    with matplotlib.rc_context(STYLE):
        figure = new_figure(3.4)
        panel = figure.subplots()
        for label, strata in shown.items():
            profile = performance_profile(np.concatenate(strata), thresholds)
            panel.step(thresholds, profile, where="post", color=colors[label], label=label, linewidth=1.8)
            band = profile_band(strata, thresholds, samples=500)
            if band and (label != called or default is not ranking.best):
                panel.fill_between(thresholds, *band, step="post", color=colors[label], alpha=0.15, linewidth=0)
        panel.set_xlabel(f"score s: {metric_label(ranking.metric)}")
        panel.set_ylabel("fraction of runs above s")
        panel.set_ylim(-0.02, 1.02)
        panel.legend(loc="lower left")
    return figure


def draw_rerun(ranking: Ranking, fresh: Point) -> Figure:
    """The score in the ranking and the score with fresh seeds, one row each."""
    with matplotlib.rc_context(STYLE):
        figure = new_figure(1.6)
        panel = figure.subplots()
        draw_scores(panel, [ranking.best, fresh], [fresh])
        rows = [
            f"{name}: {len(point.scores)} seeds"
            for name, point in (("in the ranking", ranking.best), ("fresh seeds", fresh))
        ]
        panel.set_yticks(range(2), rows, color=INK)
        panel.set_xlabel(metric_label(ranking.metric))
        limit_score(panel, ranking.metric)
    return figure
