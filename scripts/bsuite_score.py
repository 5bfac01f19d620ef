"""bsuite's score of a sweep over its memory tasks: python scripts/bsuite_score.py RUN..."""

if __name__ == "__main__":
    from src_pure.interrupt import imported  # first: from here on Ctrl-C prints one line instead of a traceback

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src_pure.config.targets import TRUST_HELP
from src_pure.envs.memory_chain import SWEEPS
from src_pure.errors import ConfigError, Parser, guarded
from src_pure.results.bsuite import NUM_EPISODES, SOLVED_BELOW, bsuite_score, read_sweep


@guarded
def main(command_line: Sequence[str] | None = None) -> int:
    """0 once the score is printed."""
    parser = Parser(
        description="bsuite's score: the fraction of settings whose regret over the first "
        f"{NUM_EPISODES:,} episodes of training is below {SOLVED_BELOW} of that of guessing."
    )
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="run folder of task=bsuite, one or more each")
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE", help=TRUST_HELP)
    options = parser.parse_args(command_line)
    if not options.runs:
        raise ConfigError("no run folder given: name those of a sweep, python scripts/bsuite_score.py RUN...")
    if len({os.path.realpath(run) for run in options.runs}) < len(options.runs):
        raise ConfigError("the same run folder is given twice")
    sweep = read_sweep(options.runs, options.trust)
    print(f"{'task':20}{'memory_length':>14}{'num_bits':>10}{'runs':>6}{'episodes':>10}{'regret ratio':>14}")
    settings: Any = sweep.itertuples()  # pandas does not type their fields
    for row in settings:
        print(f"{row.task:20}{row.memory_length:14}{row.num_bits:10}{row.runs:6}{row.episodes:10,}{row.regret:14.3f}")
    for task, rows in sweep.groupby("task"):
        score, size = bsuite_score(rows["regret"]), f"{len(rows)} settings; bsuite's sweep has {len(SWEEPS[str(task)])}"
        print(f"bsuite's score of {task}: {score:.3f} ({size})")
    return 0


if __name__ == "__main__":
    imported()
    sys.exit(main())
