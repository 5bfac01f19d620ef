"""The policy of one run of a training, in a small folder: python scripts/export.py RUN [--run N|best] [--out FOLDER]

The parameters come from the newest whole checkpoint. src_pure.load_policy(FOLDER) loads the policy for acting;
`python trainer_pure.py ... warm_start=FOLDER` starts another training from it.
"""

if __name__ == "__main__":
    from src_pure.interrupt import imported  # first: from here on Ctrl-C prints one line instead of a traceback

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from src_pure.config.targets import TRUST_HELP
from src_pure.errors import ConfigError, Parser, between, guarded
from src_pure.runs.policies import Trained, best_run, export_policy, read_trained

LARGEST = 2**31 - 1


def arguments(command_line: Sequence[str] | None) -> argparse.Namespace:
    """The parsed command line."""
    parser = Parser(description="The policy of one run of a training, in a small folder.")
    parser.add_argument("folder", type=Path, metavar="RUN", help="run folder")
    parser.add_argument(
        "--run", type=run_or_best, metavar="N|best", help="which of its runs (default: the only one, or the best)"
    )
    parser.add_argument(
        "--metric", help="of the last evaluation, says which run is best (default: success_rate, or episode_return)"
    )
    parser.add_argument("--out", type=Path, help="folder to write (default: <RUN>/policies/run_<N>_update_<U>)")
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE", help=TRUST_HELP)
    options = parser.parse_args(command_line)
    if isinstance(options.run, int) and options.metric is not None:
        raise ConfigError(f"--metric says which run is best: leave it out, or --run {options.run}")
    return options


def run_or_best(text: str) -> int | str:
    """The number of a run, or "best"."""
    return text if text == "best" else between(int, 0, LARGEST)(text)


def export(trained: Trained, options: argparse.Namespace) -> Path:
    """The folder that the policy was written to."""
    run, lanes = options.run, trained.experiment.lanes
    if run is None and options.metric is None and len(lanes) == 1:
        run = lanes[0].run
    if not isinstance(run, int):
        run, line = best_run(options.folder, options.metric, trained.experiment.settings)
        print(line)
    out = options.out or options.folder / "policies" / f"run_{run}_update_{trained.checkpoint.update}"
    export_policy(trained, run, out.expanduser())
    return out


@guarded
def main(command_line: Sequence[str] | None = None) -> int:
    """0 once the policy is written."""
    options = arguments(command_line)
    trained = read_trained(options.folder, options.trust)
    for line in trained.problems:
        print(line, file=sys.stderr)
    print(export(trained, options))
    return 0


if __name__ == "__main__":
    imported()
    sys.exit(main())
