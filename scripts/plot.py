"""Learning curves of one or more runs as a picture: python scripts/plot.py RUN... [--metric NAME]... [--out FILE]"""

if __name__ == "__main__":
    from src_pure.interrupt import imported  # first: from here on Ctrl-C prints one line instead of a traceback

import argparse
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import pandas as pd

from src_pure.errors import ConfigError, Parser, between, guarded
from src_pure.results.plotting import plot_curves, short_labels
from src_pure.runs.columns import main_metric
from src_pure.runs.rundir import read_metrics

FORMATS = (".png", ".pdf", ".svg")


def arguments(command_line: Sequence[str] | None) -> argparse.Namespace:
    """The parsed command line."""
    parser = Parser(description="Learning curves: mean over the runs of a folder, with its interval.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder; several share one picture")
    parser.add_argument("--metric", action="append", help="column of metrics.parquet; again for another panel")
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


def metrics_of(frames: Sequence[pd.DataFrame], options: argparse.Namespace) -> list[str]:
    """The metrics to draw; raises ConfigError if a run lacks one of them."""
    for run, frame in zip(options.runs, frames, strict=True):
        if missing := {"run", "env_steps", "episodes"} - set(frame):
            raise ConfigError(
                f"{run}/metrics.parquet has no columns {', '.join(sorted(missing))}: not one of this project"
            )
    known = [name for name in frames[0] if all(name in frame for frame in frames)]
    known = [name for name in known if name not in ("run", "seed", "update", "env_steps")]
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
    frames = [read_metrics(run) for run in options.runs]
    metrics = metrics_of(frames, options)
    out = options.out or options.runs[0] / "plots" / f"{'-'.join(metrics)}.png"
    out.parent.mkdir(parents=True, exist_ok=True)
    plot_curves(dict(zip(short_labels(options.runs), frames, strict=True)), metrics, options.bins, out)
    print(out)
    return 0


if __name__ == "__main__":
    imported()
    sys.exit(main())
