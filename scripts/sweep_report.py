"""What a sweep found, as one HTML page: python scripts/sweep_report.py RUN [--metric NAME] [--rerun N] [--out FOLDER]

Ranks the points by the IQM of the final evaluation, shows what each key does, and writes the best configuration.
"""

if __name__ == "__main__":
    from src_pure.interrupt import imported  # first: from here on Ctrl-C prints one line instead of a traceback

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import trainer_pure
from src_pure.config.targets import TRUST_HELP
from src_pure.errors import Parser, between, guarded
from src_pure.results.ranking import Ranking, rank
from src_pure.results.sweep_page import interval_text, number, plural, unfinished_text, values_text
from src_pure.results.sweep_report import plan_rerun, write_best, write_report

NUMERICAL = 3  # the trainer's code if some runs failed, which the report shows


def arguments(command_line: Sequence[str] | None) -> argparse.Namespace:
    """The parsed command line."""
    parser = Parser(description="The report of a sweep: ranking, importance of keys, curves, best configuration.")
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a sweep, finished or not")
    parser.add_argument(
        "--metric", help="of the final evaluation, higher is better (default: success_rate, or episode_return)"
    )
    parser.add_argument("--out", type=Path, help="folder to write (default: <RUN>/report)")
    parser.add_argument(
        "--rerun", type=between(int, 1, 10_000), metavar="N", help="train the best point with N fresh seeds first"
    )
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE", help=TRUST_HELP)
    return parser.parse_args(command_line)


def rerun(ranking: Ranking, best: Path, num_seeds: int, trust: Sequence[str]) -> int:
    """The trainer's exit code, after training the best point with fresh seeds; continues what was interrupted."""
    plan = plan_rerun(ranking, num_seeds, best.parent)
    trainer_pure.keep_compiled_programs()
    trusted = [word for package in trust for word in ("--trust", package)]
    options = [f"seed={plan.seed}", f"num_seeds={plan.num_seeds}", f"run_dir={plan.folder}"]
    return trainer_pure.main(["--config", str(best), *trusted, *options])


@guarded
def main(command_line: Sequence[str] | None = None) -> int:
    """0 once the report is written."""
    options = arguments(command_line)
    ranking = rank(options.run, options.metric)
    out = options.out or options.run / "report"
    out.mkdir(parents=True, exist_ok=True)
    best = write_best(ranking, out)
    if options.rerun:
        code = rerun(ranking, best, options.rerun, options.trust)
        if code not in (0, NUMERICAL):
            return code
    page = write_report(ranking, out)
    point = ranking.best
    print(f"best of {plural(len(ranking.points), 'point')}: {values_text(ranking, point)}")
    seeds = plural(len(point.scores), "seed")
    print(f"{ranking.metric} (sampled policy): {number(point.score)}, {interval_text(point)}, {seeds}")
    if len(ranking.unranked):
        print(f"unfinished: {unfinished_text(ranking)} of {len(ranking.runs):,} runs")
    print(page)
    return 0


if __name__ == "__main__":
    imported()
    sys.exit(main())
