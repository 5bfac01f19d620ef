"""Figures of how scores depend on the swept keys: importance, marginals, pairs, parallel coordinates."""

from src_pure.results.plotting import COLORS, INK, STYLE  # first: matplotlib must not look for a display

# isort: split

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from src_pure.results.importance import Importance
from src_pure.results.ranking import Ranking
from src_pure.results.statistics import interval, mean
from src_pure.results.sweep_plots import GREY, WIDTH, limit_score, metric_label, new_figure
from src_pure.results.swept import MOST_LEVELS, Groups, Key, text, tick

MOST_PAIRED = 4  # keys in the heat maps: the most important ones, six pairs
MOST_TICKS = 14  # labels of a heat map's axis
MOST_PARALLEL = 10  # keys among the parallel coordinates
SCORE_COLORS = "viridis"
SLOPED: Any = {"rotation": 50, "ha": "right", "rotation_mode": "anchor", "fontsize": 8}  # crowded labels of an x axis


def draw_importance(ranking: Ranking, found: Importance) -> Figure:
    """Bars of the share of each key, with interactions where known, and of what remains."""
    order = np.argsort(-found.main, kind="stable")
    labels = [ranking.keys[k].label for k in order]
    with matplotlib.rc_context(STYLE):
        figure = new_figure(1.3 + 0.34 * (len(labels) + (found.noise is not None)))
        panel = figure.subplots()
        rows = np.arange(len(labels))
        if found.total is not None and len(labels) > 1:
            panel.barh(rows, found.total[order], 0.62, color=COLORS[4], alpha=0.45, label="with interactions")
        panel.barh(rows, found.main[order], 0.62, color=COLORS[0], label="by itself")
        if found.chance is not None:
            panel.plot(found.chance[order], rows, "|", color=COLORS[1], markersize=15, label="chance exceeds it in 5 %")
        if found.noise is not None:
            panel.barh(len(labels), found.noise, 0.62, color="#BBBBBB")
            labels.append("noise of seeds")
        for row, value in enumerate([*found.main[order], *([] if found.noise is None else [found.noise])]):
            panel.text(1.01, row, f"{100 * value:.0f} %", va="center")
        panel.set_yticks(range(len(labels)), labels)
        panel.set_ylim(len(labels) - 0.4, -0.6)
        panel.set_xlim(0, 1)
        panel.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.0f} %"))
        panel.set_xlabel("share of the variance of the points' mean scores")
        panel.grid(axis="y", visible=False)
        figure.legend(*panel.get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


def draw_marginals(ranking: Ranking) -> Figure:
    """For each key, the score of every point as a dot and the mean of each value or bin with its interval."""
    columns = min(3, len(ranking.keys))
    rows = math.ceil(len(ranking.keys) / columns)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(2.9 * rows, max(WIDTH, 3.1 * columns) if columns > 1 else 5.5)
        panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        for panel, key in zip(panels, ranking.keys, strict=False):
            draw_marginal(panel, ranking, key)
        for panel in panels[len(ranking.keys) :]:
            panel.remove()
        for panel in panels[::columns]:
            panel.set_ylabel(metric_label(ranking.metric).replace(" (", "\n("))
    return figure


def draw_marginal(panel: Axes, ranking: Ranking, key: Key) -> None:
    places = key.on_axis(ranking.column(key))
    groups = key.groups(ranking.column(key))
    panel.scatter(places, [point.score for point in ranking.points], s=14, color=GREY, alpha=0.35, linewidth=0)
    means, bars = [], []
    for group in range(len(groups.labels)):
        strata = [point.scores for point, index in zip(ranking.points, groups.index, strict=True) if index == group]
        means.append(float(np.mean([scores.mean() for scores in strata])))
        found = interval(strata, mean, samples=1_000)
        bars.append(found or (means[-1], means[-1]))
    low, high = np.abs(np.array(bars).T - means)
    panel.errorbar(
        groups.centers, means, [low, high], color=COLORS[0], marker="o", markersize=5, linewidth=1.6, capsize=3,
        linestyle="-" if key.numeric else "none",
    )  # fmt: skip
    set_axis(panel.xaxis, key)
    ends = key.on_axis([key.levels[0], key.levels[-1]])
    margin = (ends[1] / ends[0]) ** 0.08 if key.log else 0.08 * (ends[1] - ends[0])
    panel.set_xlim(*((ends[0] / margin, ends[1] * margin) if key.log else (ends[0] - margin, ends[1] + margin)))
    panel.set_xlabel(key.label)
    limit_score(panel, ranking.metric, "y")


def set_axis(axis: Axis, key: Key) -> None:
    """The scale and ticks of a key on an axis of a plot: its levels, or round numbers if there are many."""
    axes = axis.axes
    if key.log:
        (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
    if len(key.levels) <= 5 or not key.numeric:
        labels = [tick(level) for level in key.levels]
        slope: Any = SLOPED if sum(map(len, labels)) > 24 else {}
        axis.set_ticks(key.on_axis(key.levels), labels, **slope)
        axis.set_minor_locator(NullLocator())
        return
    decades = math.log10(key.levels[-1] / key.levels[0]) if key.log else 0
    axis.set_major_locator(LogLocator(subs=(1.0,) if decades >= 2 else (1.0, 2.0, 5.0)) if key.log else MaxNLocator(5))
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(float(value))))
    axis.set_minor_formatter(NullFormatter())


def draw_pairs(ranking: Ranking, found: Importance) -> Figure:
    """Heat maps of the mean score over two keys at a time, of the most important keys."""
    chosen = sorted(np.argsort(-found.main, kind="stable")[:MOST_PAIRED])
    pairs = list(combinations([ranking.keys[k] for k in chosen], 2))
    columns = min(3, len(pairs))
    rows = math.ceil(len(pairs) / columns)
    scores = np.array([point.mean for point in ranking.points])
    norm = Normalize(scores.min(), max(scores.max(), scores.min() + 1e-9))
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        figure = new_figure(0.3 + 2.9 * rows, {1: 5.2, 2: 8.0, 3: 10.5}[columns])
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel, pair in zip(panels, pairs, strict=False):
            draw_pair(panel, ranking, *pair, scores, norm)
        for panel in panels[len(pairs) :]:
            panel.remove()
        bar = figure.colorbar(ScalarMappable(norm, SCORE_COLORS), ax=list(panels[: len(pairs)]), aspect=30, pad=0.02)
        bar.set_label(metric_label(ranking.metric))
        bar.outline.set_visible(False)
    return figure


def draw_pair(panel: Axes, ranking: Ranking, x: Key, y: Key, scores: np.ndarray, norm: Any) -> None:
    """One heat map: cells hold the mean over all points with these values; empty ones stay blank."""
    across, up = x.groups(ranking.column(x)), y.groups(ranking.column(y))
    shape = (len(up.labels), len(across.labels))
    sums, counts = np.zeros(shape), np.zeros(shape)
    np.add.at(sums, (up.index, across.index), scores)
    np.add.at(counts, (up.index, across.index), 1)
    means = np.divide(sums, counts, out=np.full(shape, np.nan), where=counts > 0)
    panel.imshow(means, cmap=SCORE_COLORS, norm=norm, origin="lower", aspect="auto")
    if max(shape) <= 6:
        for (row, column), value in np.ndenumerate(means):
            if np.isfinite(value):
                ink = "white" if value < norm.vmin + 0.6 * (norm.vmax - norm.vmin) else "black"
                shown = f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"
                panel.text(column, row, shown, ha="center", va="center", color=ink, fontsize=8)
    labels = thinned(cell_labels(x, across))
    slope: Any = SLOPED if sum(map(len, labels)) > 24 else {"fontsize": 8}
    panel.set_xticks(range(shape[1]), labels, **slope)
    panel.set_yticks(range(shape[0]), thinned(cell_labels(y, up)), fontsize=8)
    panel.set_xlabel(x.label)
    panel.set_ylabel(y.label)
    panel.spines[:].set_visible(False)


def thinned(labels: Sequence[str]) -> list[str]:
    """The labels, of which only every second, third, ... is left if there are more than fit on an axis."""
    step = math.ceil(len(labels) / MOST_TICKS)
    return [label if place % step == 0 else "" for place, label in enumerate(labels)]


def cell_labels(key: Key, groups: Groups) -> list[str]:
    """The labels of groups; of bins the middle, because a range is too long for a tick."""
    digits = 2 if key.log else 3
    return [f"~{text(float(f'{center:.{digits}g}'))}" for center in groups.centers] if key.binned else groups.labels


def draw_parallel(ranking: Ranking, found: Importance) -> Figure:
    """Parallel coordinates: one line for each point through the values of its keys, colored by its score."""
    chosen = sorted(np.argsort(-found.main, kind="stable")[:MOST_PARALLEL])
    keys = [ranking.keys[k] for k in chosen]
    scores = np.array([point.score for point in ranking.points])
    low, high = scores.min(), max(scores.max(), scores.min() + 1e-9)
    columns = [0.04 + 0.92 * key.unit(ranking.column(key)) for key in keys]
    heights = np.stack([*columns, 0.04 + 0.92 * (scores - low) / (high - low)], axis=1)  # [P, keys + 1]
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        figure = new_figure(4.2, max(WIDTH, 1.5 * len(keys) + 2))
        panel = figure.subplots()
        draw_lines(panel, heights, scores, Normalize(low, high))
        for place, key in enumerate(keys):
            draw_coordinate(panel, place, *coordinate_ticks(key))
        ticks = np.linspace(low, high, 5)
        draw_coordinate(panel, len(keys), np.linspace(0, 1, 5), [text(float(f"{tick:.3g}")) for tick in ticks], "left")
        names = [*(key.label for key in keys), ranking.metric.replace("_", " ")]
        panel.set_xticks(range(len(names)), names, fontsize=10)
        panel.xaxis.tick_top()
        panel.set_yticks([])
        panel.set_xlim(-0.45, len(keys) + 0.35)
        panel.set_ylim(-0.01, 1.01)
        panel.spines[:].set_visible(False)
    return figure


def draw_lines(panel: Axes, heights: np.ndarray, scores: np.ndarray, norm: Normalize) -> None:
    """The lines of all points, the best on top; points come from best to worst."""
    places = np.arange(heights.shape[1])
    lines = [np.stack([places, line], axis=1) for line in heights[::-1]]
    crowd = float(np.clip(40 / len(lines), 0.15, 0.8))
    drawn = LineCollection(lines, cmap=SCORE_COLORS, norm=norm, alpha=crowd, linewidths=1.3)
    drawn.set_array(scores[::-1])
    panel.add_collection(drawn)
    panel.plot(places, heights[0], color=COLORS[1], linewidth=2.4, marker="o", markersize=4)


def coordinate_ticks(key: Key) -> tuple[np.ndarray, list[str]]:
    """(heights from 0 to 1, labels) of at most MOST_LEVELS values of a key."""
    if len(key.levels) <= MOST_LEVELS or not key.numeric:
        return key.unit(key.levels), [tick(level) for level in key.levels]
    heights = np.linspace(0, 1, 5)
    low, high = float(key.levels[0]), float(key.levels[-1])
    values = low * (high / low) ** heights if key.log else low + (high - low) * heights
    return heights, [text(float(f"{value:.{2 if key.log else 3}g}")) for value in values]


def draw_coordinate(panel: Axes, place: int, heights: np.ndarray, labels: Sequence[str], side: str = "right") -> None:
    """One vertical axis with its labels next to it."""
    panel.axvline(place, color="#999999", linewidth=0.8, zorder=3)
    offset = -5 if side == "right" else 5
    box = {"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.8}
    for height, label in zip(heights, labels, strict=True):
        panel.annotate(
            label, (place, 0.04 + 0.92 * height), (offset, 0), textcoords="offset points", ha=side, va="center",
            fontsize=8, color=INK, zorder=4, bbox=box,
        )  # fmt: skip
