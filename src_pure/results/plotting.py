"""Plots of learning curves, and the style of all plots. Import it before matplotlib."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

os.environ["MPLBACKEND"] = "agg"  # else importing fails on a notebook's backend; Figure needs no backend

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from src_pure.runs.atomic import replacing
from src_pure.runs.scores import learning_curve

# Okabe and Ito's colours, distinct for colour-blind readers and in grey; without yellow, too light for a line
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", ":", "-.")  # the next style after each round of colours
INK, FAINT = "#333333", "#E6E6E6"
STYLE: Any = {  # Any, because matplotlib types the keys as literals
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#999999",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "none",
}
UNITS = {"success_rate": "fraction of episodes", "episode_return": "sum of rewards", "episode_length": "steps"}


def short_labels(paths: Sequence[Path]) -> list[str]:
    """The paths without the parent folders that all of them share; the last two names of a single path."""
    parts = [Path(os.path.realpath(path)).parts for path in paths]
    shared = 0
    while len({part[: shared + 1] for part in parts}) == 1 and shared + 1 < min(map(len, parts)):
        shared += 1
    if len(paths) == 1:
        shared = max(shared - 1, 0)
    return ["/".join(part[shared:]) for part in parts]


def plot_curves(frames: dict[str, pd.DataFrame], metrics: Sequence[str], bins: int, out: Path) -> None:
    """Writes a figure with one panel per metric and one line per labelled frame of metrics."""
    columns = len(metrics) if len(metrics) <= 3 else math.ceil(math.sqrt(len(metrics)))
    rows = math.ceil(len(metrics) / columns)
    width = 7.2 if columns == 1 else 5.2 * columns
    labels = [fill(legend_label(label, frame), int(12 * width)) for label, frame in frames.items()]
    legend_height = 0.19 * sum(label.count("\n") + 1 for label in labels)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, 0.3 + 3.6 * rows + legend_height), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel, metric in zip(panels, metrics, strict=False):
            lines = draw_panel(panel, list(frames.values()), metric, bins)
        for panel in panels[len(metrics) :]:
            panel.remove()
        figure.legend(lines, labels, loc="outside upper left", alignment="left", handlelength=1.8)
        if any(frame["run"].nunique() > 1 for frame in frames.values()):
            note = "line: mean over runs, band: 95 % t-interval of that mean, corrected for skewness"
            figure.supxlabel(note, x=0.99, ha="right", fontsize=8, color="#777777")
        with replacing(out) as file:
            figure.savefig(file, format=out.suffix[1:].lower(), dpi=160)


def legend_label(label: str, frame: pd.DataFrame) -> str:
    """The label followed by the number of runs behind its line."""
    runs = frame["run"].nunique()
    return f"{label}  ({runs} run{'s' if runs > 1 else ''})"


def draw_panel(panel: Axes, frames: Sequence[pd.DataFrame], metric: str, bins: int) -> list[Line2D]:
    """The lines drawn: the mean over runs of each frame, shaded by its interval if there are several runs."""
    lines: list[Any] = []
    for index, frame in enumerate(frames):
        curve = learning_curve(frame, metric, bins)
        color, dash = COLORS[index % len(COLORS)], DASHES[index // len(COLORS) % len(DASHES)]
        marker = "o" if len(curve.steps) == 1 else ""  # a line through a single point is invisible
        lines += panel.plot(curve.steps, curve.mean, color=color, linestyle=dash, marker=marker, linewidth=1.8)
        panel.fill_between(curve.steps, curve.low, curve.high, color=color, alpha=0.18, linewidth=0)
    if not any(len(line.get_xdata()) for line in lines):
        panel.text(0.5, 0.5, "no episode ended", transform=panel.transAxes, ha="center", va="center", color="#777777")
    panel.set_xlim(0, max(frame["env_steps"].max() for frame in frames))
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    panel.set_xlabel("environment steps of each run")
    panel.set_ylabel(metric.replace("_", " ") + (f" ({UNITS[metric]})" if metric in UNITS else ""))
    if metric == "success_rate":
        panel.set_ylim(-0.02, 1.02)
    return lines
