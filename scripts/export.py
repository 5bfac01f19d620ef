"""The policy of one run of a training, in a small folder: python scripts/export.py RUN [run=N|best] [out=FOLDER]

The parameters are those of the newest whole checkpoint. src_pure.load_policy(FOLDER) makes them act, and
`python trainer_pure.py ... warm_start=FOLDER` starts another training from them.
"""

if __name__ == "__main__":
    from src_pure.interrupt import imported  # first: from here on Ctrl-C is one line

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from src_pure.config.targets import TRUST_HELP
from src_pure.errors import ConfigError, Parser, guarded
from src_pure.runs.policies import best_run, export_policy, read_trained

OPTIONS = ("run", "metric", "out")


def arguments(command_line: Sequence[str] | None) -> argparse.Namespace:
    """What the command line asks for."""
    parser = Parser(
        description="The policy of one run of a training, in a small folder.",
        epilog="run=best (the default where there are several) is the one with the largest metric=NAME in the last "
        "evaluation, else success_rate or episode_return; out is <RUN>/policies/run_<N>_update_<U> by default",
    )
    parser.add_argument("folder", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("options", nargs="*", metavar="KEY=VALUE", help="run=N|best, metric=NAME, out=FOLDER")
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE", help=TRUST_HELP)
    return parser.parse_args(command_line)


def parse(options: Sequence[str]) -> dict[str, str]:
    """The values of KEY=VALUE; raises ConfigError for any that is not known."""
    pairs = [option.partition("=") for option in options]
    for key, equals, value in pairs:
        if key not in OPTIONS or not value:
            raise ConfigError(f"options are run=N|best, metric=NAME and out=FOLDER, got {key}{equals}{value}")
    if len({key for key, *_ in pairs}) < len(pairs):
        raise ConfigError(f"each option may be given once, got {' '.join(options)}")
    return {key: value for key, _, value in pairs}


def export(folder: Path, options: Sequence[str], trust: Sequence[str] = ()) -> Path:
    """The folder of the policy, written."""
    chosen = parse(options)
    trained = read_trained(folder, trust)
    for line in trained.problems:
        print(line, file=sys.stderr)
    settings = trained.experiment.settings
    only = len(trained.experiment.lanes) == 1 and "metric" not in chosen
    run = chosen.get("run", "0" if only else "best")
    if run == "best":
        number, line = best_run(folder, chosen.get("metric"), settings)
        print(line)
    elif not (run.isascii() and run.isdecimal()) or len(run) > 10 or "metric" in chosen:
        raise ConfigError(f"run must be best, or the number of a run without metric=NAME, got {' '.join(options)}")
    else:
        number = int(run)
    default = folder / "policies" / f"run_{number}_update_{trained.checkpoint.update}"
    out = Path(chosen["out"]).expanduser() if "out" in chosen else default
    export_policy(trained, number, out)
    return out


@guarded
def main(command_line: Sequence[str] | None = None) -> int:
    """0 when the policy is written."""
    options = arguments(command_line)
    print(export(options.folder, options.options, options.trust))
    return 0


if __name__ == "__main__":
    imported()
    sys.exit(main())
