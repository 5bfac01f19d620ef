"""Learning curves of one or more runs as a picture: python scripts/plot.py RUN... [--metric NAME]... [--out FILE]

A line is the mean over the runs of a folder, or over those with the same value of a key: --by algo.learning_rate. Of a
sweep with few points, each point has its line.
"""

if __name__ == "__main__":
    from src_pure.interrupt import imported  # first: from here on Ctrl-C prints one line instead of a traceback

import argparse
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pandas as pd

from src_pure.errors import ConfigError, Parser, between, guarded
from src_pure.results.plotting import COLORS, DASHES, plot_curves, short_labels
from src_pure.results.reading import RUN_COLUMNS, SEARCH_COLUMNS, read_run, read_runs
from src_pure.results.swept import Key, keys_of, text
from src_pure.runs.columns import main_metric
from src_pure.sweeps.folder import is_sweep_folder

FORMATS = (".png", ".pdf", ".svg")
MOST_LINES = len(COLORS) * len(DASHES)  # that can be told apart


def arguments(command_line: Sequence[str] | None) -> argparse.Namespace:
    """The parsed command line."""
    parser = Parser(description="Learning curves: mean over the runs of a folder, with its interval.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder, or sweep; several share one")
    parser.add_argument("--metric", action="append", help="column of metrics.parquet; again for another panel")
    parser.add_argument("--by", metavar="KEY", help="one line for each value of a key, or for each point or seed")
    parser.add_argument("--out", type=Path, help="picture to write (default: <first RUN>/plots/<metric>.png)")
    parser.add_argument(
        "--bins", "--smooth", type=between(int, 1, 10_000), default=50, help="points per curve; fewer are smoother (50)"
    )
    options = parser.parse_args(command_line)
    if len({os.path.realpath(run) for run in options.runs}) < len(options.runs):
        raise ConfigError("the same run folder is given twice")
    if options.out is not None and options.out.suffix.lower() not in FORMATS:
        raise ConfigError(f"--out must end in one of {', '.join(FORMATS)}, got {options.out}")
    return options


def lines_of(folder: Path, label: str, by: str | None) -> dict[str, pd.DataFrame]:
    """The metrics behind each line of a folder, by the line's label; raises ConfigError for an unknown key."""
    frame = read_run(folder)
    if by is None and not is_sweep_folder(folder):
        return {label: frame}
    runs = read_runs(folder).set_index("run")
    frame = frame.drop(columns=[name for name in runs if name in frame and name != "seed"])
    keys, points = keys_of(runs), runs["point"].nunique()
    if by is None and points > len(COLORS):
        return {f"{label}, all {points:,} points": frame}
    column = column_of(by or "point", keys, folder)
    shown = [key.name for key in keys] if column == "point" and keys else [column]
    lines = {}
    for _, members in runs.groupby(column, dropna=False):
        values = ", ".join(f"{name} {shown_among(members[name].iloc[0], runs[name])}" for name in shown)
        if (rows := frame[frame["run"].isin(members.index)]).size:
            lines[f"{label}: {values}"] = rows
    return lines


def shown_among(value: Any, values: pd.Series) -> str:
    """A value in short, or in full if others among `values` would look the same."""
    return text(value) if len({text(each) for each in values}) == values.nunique(dropna=False) else str(value)


def column_of(by: str, keys: Sequence[Key], folder: Path) -> str:
    """The column of the runs that --by names, in full or by its last part; raises ConfigError if there is none."""
    known = {"point": "point", "seed": "seed"} | {name: key.name for key in keys for name in (key.label, key.name)}
    if by not in known:
        closest = "".join(f" (did you mean {match}?)" for match in get_close_matches(by, known, n=1))
        raise ConfigError(
            f"{folder} has no key {by}{closest}; --by takes one of {', '.join(dict.fromkeys(known.values()))}"
        )
    return known[by]


def frames_of(options: argparse.Namespace) -> dict[str, pd.DataFrame]:
    """The metrics behind each line of the picture; raises ConfigError if there are too many lines."""
    frames = {}
    for run, label in zip(options.runs, short_labels(options.runs), strict=True):
        frames |= lines_of(run, label, options.by)
    if len(frames) > MOST_LINES:
        raise ConfigError(
            f"at most {MOST_LINES} lines can be told apart, got {len(frames):,}; scripts/sweep_report.py shows a key "
            "with many values"
        )
    return frames


def metrics_of(frames: dict[str, pd.DataFrame], options: argparse.Namespace) -> list[str]:
    """The metrics to draw; raises ConfigError if a line lacks one of them."""
    for label, frame in frames.items():
        if missing := {"run", "env_steps", "episodes"} - set(frame):
            raise ConfigError(
                f"{label}: metrics.parquet has no columns {', '.join(sorted(missing))}: not one of this project"
            )
    first, *others = frames.values()
    known = [name for name in first if all(name in frame for frame in others)]
    known = [name for name in known if name not in (*RUN_COLUMNS, *SEARCH_COLUMNS, "update", "env_steps")]
    metrics = list(dict.fromkeys(options.metric or [])) or [main_metric(known)]
    for name in metrics:
        if name not in known:
            closest = "".join(f" (did you mean {match}?)" for match in get_close_matches(name, known, n=1))
            raise ConfigError(f"not every run has a metric {name}{closest}; known: {', '.join(known)}")
    return metrics


@guarded
def main(command_line: Sequence[str] | None = None) -> int:
    """0 once the picture is written."""
    options = arguments(command_line)
    frames = frames_of(options)
    metrics = metrics_of(frames, options)
    out = options.out or options.runs[0] / "plots" / f"{'-'.join(metrics)}.png"
    out.parent.mkdir(parents=True, exist_ok=True)
    plot_curves(frames, metrics, options.bins, out)
    print(out)
    return 0


if __name__ == "__main__":
    imported()
    sys.exit(main())
