"""What a training costs on a GPU or TPU that is not here: python scripts/preview.py +craftax=agalite --device h100

    python scripts/preview.py +tmaze=agalite num_seeds=1024 --device v5e:2x2 --json preview.json
    python scripts/preview.py --all docs/results/preview.json --device h100

XLA compiles ahead of time for a device that it only knows by description; docs/performance.md explains what is counted.
Needs the extra preview-gpu or preview-tpu. KEY=VALUE as for trainer_pure.py. Exit codes: 0 it fits, 2 wrong input, or
it does not fit.
"""

if __name__ == "__main__":
    from src_pure.interrupt import imported  # first: from here on Ctrl-C prints one line instead of a traceback

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.config.names import CONFIG_FILE, experiment_groups, known_names
from src_pure.config.targets import TRUST_HELP
from src_pure.device import computing
from src_pure.errors import ConfigError, Parser, guarded
from src_pure.preview.compiling import preview, require
from src_pure.preview.devices import DEVICES, Target, target_of
from src_pure.preview.report import lines, values
from src_pure.preview.table import read_table, write_table

PROGRAMS = ("training", "evaluation")


def arguments(command_line: Sequence[str] | None) -> argparse.Namespace:
    """The parsed command line."""
    parser = Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="configuration, as for trainer_pure.py")
    names = ", ".join(DEVICES)
    parser.add_argument("--device", metavar="NAME", default="h100", help=f"{names}; also h100:8, v5e:2x2 (h100)")
    parser.add_argument("--config", type=Path, default=CONFIG_FILE, metavar="FILE", help="configuration to start from")
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE", help=TRUST_HELP)
    parser.add_argument("--only", choices=PROGRAMS, help="one of the two programs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    parser.add_argument("--add", type=Path, metavar="FILE", help="also add them to a table, under this command")
    parser.add_argument(
        "--all", type=Path, metavar="FILE", help="add the published experiments that FILE lacks, each with KEY=VALUE"
    )
    options = parser.parse_intermixed_args(command_line)
    if options.all and (options.json or options.add):
        raise ConfigError("--json and --add are for one configuration: leave them out, or --all")
    return options


def show(options: argparse.Namespace) -> int:
    """0, after the preview of one configuration is printed."""
    target = target_of(options.device)
    require(target.device)
    jax.config.update("jax_platforms", "cpu")  # an accelerator that is here has no part in this
    experiment = build(compose(options.overrides, options.config), options.trust)
    with computing():
        found = preview(experiment, target, *(options.only in (None, name) for name in PROGRAMS))
    for line in lines(found):
        print(line)
    if options.json:
        write_table(options.json, values(found))
    if options.add:
        table = read_table(options.add) if options.add.exists() else {}
        write_table(options.add, table | {key_of(options.overrides, target): values(found)})
    return 0


def key_of(overrides: Sequence[str], target: Target) -> str:
    """What a table calls a preview: the arguments that give it."""
    return " ".join([*overrides, "--device", target.text])


def fill(options: argparse.Namespace) -> int:
    """The highest exit code, after every published experiment was compiled, in a process of its own to free memory.

    Each is written to the table at once, so a command that is given again goes on where it was interrupted.
    """
    target, code = target_of(options.device), 0
    require(target.device)
    known = read_table(options.all) if options.all.exists() else {}
    for experiment in [f"+{group}={name}" for group in experiment_groups() for name in known_names(group)]:
        overrides = [experiment, *options.overrides]
        if (key := key_of(overrides, target)) in known:
            continue
        print(key, flush=True)
        further = ["--device", target.text, "--only", options.only or "training", "--add", str(options.all)]
        done = subprocess.run([sys.executable, __file__, *overrides, *further], stdout=subprocess.DEVNULL)
        code = max(code, done.returncode)  # it said why
    return code


@guarded
def main(command_line: Sequence[str] | None = None) -> int:
    """The exit code: 0 once everything is printed."""
    options = arguments(command_line)
    return fill(options) if options.all else show(options)


if __name__ == "__main__":
    imported()
    sys.exit(main())
