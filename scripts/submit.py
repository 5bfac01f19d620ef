"""Trains a sweep, or one run, as jobs of a cluster: python scripts/submit.py KEY=VALUE... run_dir=RUN [--time 4:00:00]

    python scripts/submit.py +tmaze=agalite 'sweep.algo.learning_rate=[1e-4,3e-4]' num_seeds=10 run_dir=runs/lr \\
        --time 4:00:00 --gpus 1 --partition gpu
    python scripts/submit.py status runs/lr     # how far each batch is
    python scripts/submit.py collect runs/lr    # the same, and writes runs.parquet
    python scripts/submit.py cancel runs/lr     # what trains is saved first

KEY=VALUE as for trainer_pure.py. Given again, the command submits what is missing: batches that are finished, or whose
job waits or runs, are left alone. Exit codes are those of the trainer.
"""

if __name__ == "__main__":
    from src_pure.interrupt import imported  # first: from here on Ctrl-C prints one line instead of a traceback

import argparse
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src_pure.config.compose import compose
from src_pure.config.names import CONFIG_FILE
from src_pure.config.targets import TRUST_HELP
from src_pure.errors import CannotWriteError, ConfigError, Parser, between, guarded, shown
from src_pure.sweeps import slurm
from src_pure.sweeps.folder import refresh_runs
from src_pure.sweeps.plan import counted, tally
from src_pure.sweeps.progress import progress, table
from src_pure.sweeps.submission import batches_in, begin, planned, run_dir_of, sorted_out, trainer_options
from src_pure.sweeps.tasks import exit_code_of, in_packs, label_of, stopping, train_batches

COMMANDS = ("status", "collect", "cancel")
LARGEST = 100_000
# options here and what sbatch calls them
SBATCH = {
    "gpus": "gpus-per-node",
    "cpus": "cpus-per-task",
    "memory": "mem",
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "constraint": "constraint",
}


def arguments(command_line: Sequence[str] | None) -> argparse.Namespace:
    """The parsed command line of a submission."""
    parser = Parser(
        description="Trains a sweep, or one run, as a Slurm array; given again, submits what is missing.",
        epilog="Also: submit.py status RUN, submit.py collect RUN, submit.py cancel RUN.",
        allow_abbrev=False,
    )
    count = between(int, 1, LARGEST)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="configuration, as for trainer_pure.py")
    parser.add_argument("--config", type=Path, default=CONFIG_FILE, metavar="FILE", help="configuration to start from")
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE", help=TRUST_HELP)
    parser.add_argument("--dry-run", action="store_true", help="show the sbatch script and the tasks, write nothing")
    parser.add_argument("--pack", type=count, metavar="N", help="batches of each task, one after another (1)")
    here = parser.add_argument_group("on this machine")
    here.add_argument("--local", action="store_true", help="train here, without Slurm")
    here.add_argument("--workers", type=count, metavar="N", help="batches that train at a time (1)")
    there = parser.add_argument_group("on Slurm, for each task")
    there.add_argument(
        "--time", metavar="TIME", help="limit, such as 4:00:00; at its end a task saves and queues again"
    )
    there.add_argument("--gpus", type=between(int, 0, 1000), metavar="N")
    there.add_argument("--cpus", type=count, metavar="N")
    there.add_argument("--memory", metavar="SIZE", help="such as 16G")
    for name in ("partition", "account", "qos", "constraint"):
        there.add_argument(f"--{name}", metavar="NAME")
    there.add_argument("--at-once", type=count, metavar="N", help="tasks that run at a time (as many as can)")
    there.add_argument("--sbatch", action="append", default=[], metavar="OPTION=VALUE", help="any other of sbatch")
    there.add_argument("--setup", action="append", default=[], metavar="LINE", help="shell line before training")
    options = parser.parse_intermixed_args(command_line)
    refuse_contradictions(options)
    return options


def refuse_contradictions(options: argparse.Namespace) -> None:
    """Raises ConfigError for options that have no meaning together."""
    if options.workers is not None and not options.local:
        raise ConfigError("--workers is for --local: on Slurm, --at-once says how many tasks run at a time")
    of_slurm = ["time", *SBATCH, "at_once", "sbatch", "setup", "pack"]
    given = [name for name in of_slurm if getattr(options, name) not in (None, [])]
    if options.local and given:
        raise ConfigError(f"--{given[0].replace('_', '-')} is for Slurm: leave it out, or --local")
    if odd := [text for text in options.sbatch if not re.fullmatch(r"[a-z][a-z-]*=\S.*", text)]:
        raise ConfigError(f"--sbatch must be OPTION=VALUE, such as exclude=node7, got {odd[0]!r}")


def sbatch_options(options: argparse.Namespace, grace_seconds: Any) -> dict[str, Any]:
    """The options of sbatch, by its own names; raises ConfigError for a time that leaves no time to train."""
    if isinstance(grace_seconds, bool) or not isinstance(grace_seconds, int | float) or not 0 < grace_seconds < 86400:
        raise ConfigError(
            f"on Slurm grace_seconds must be a number of seconds, up to a day, got {shown(grace_seconds)}"
        )
    notice = math.ceil(grace_seconds) + slurm.NOTICE
    found: dict[str, Any] = {"signal": f"USR2@{notice}"}
    if options.time is not None:
        if slurm.seconds(options.time) <= 2 * notice:
            wanted = f"more than {2 * notice} seconds, of which the last {notice} are for saving"
            raise ConfigError(f"--time must be {wanted} (grace_seconds and {slurm.NOTICE} more), got {options.time}")
        found["time"] = options.time
    found |= {theirs: getattr(options, ours) for ours, theirs in SBATCH.items() if getattr(options, ours) is not None}
    return found | dict(text.split("=", 1) for text in options.sbatch)


def submit(options: argparse.Namespace) -> int:
    """The exit code, after the missing batches are submitted, trained here, or only shown."""
    if not (options.local or options.dry_run):
        slurm.require("sbatch")
    config = compose(options.overrides, options.config)
    run = run_dir_of(config)
    sbatch = {}
    if not options.local:
        slurm.refuse_path(run)
        sbatch = sbatch_options(options, config["grace_seconds"])
    folders = (planned if options.dry_run else begin)(config, options.trust)
    jobs = {} if options.local or options.dry_run else slurm.jobs_of(run)
    found = sorted_out(folders, {batch for batch, job in jobs.items() if not job.ended})
    print(found, flush=True)
    if options.dry_run:
        return show(run, found.missing, options, sbatch)
    further = trainer_options(options.overrides, options.trust)
    if not found.missing:
        return 0
    if options.local:
        return train_here(folders, found.missing, further, options.workers or 1)
    packs = in_packs(found.missing, options.pack or 1)
    job = slurm.submit(run, packs, sbatch, options.setup, options.at_once, further)
    print(f"job {job} of {counted(len(packs), 'task')}; how far they are: python scripts/submit.py status {run}")
    return 0


def show(run: Path, missing: Sequence[Path], options: argparse.Namespace, sbatch: dict[str, Any]) -> int:
    """0, after the tasks and the sbatch script are printed."""
    packs = in_packs(missing, options.pack or 1)
    for number, pack in enumerate(packs):
        print(f"task {number}: {label_of(pack)}")
    if packs and not options.local:
        print(slurm.script(run, len(packs), sbatch, options.setup, options.at_once))
    return 0


def train_here(folders: Sequence[Path], missing: Sequence[Path], further: Sequence[str], workers: int) -> int:
    """The exit code, after the missing batches are trained on this machine."""
    with stopping(pass_on=True) as stop:
        outcomes = train_batches(missing, further, stop, workers)
    print(tally(progress(batch).state for batch in folders))
    return exit_code_of(outcomes, stop)


def status(run: Path, collect: bool) -> int:
    """0, after the table of a run is printed."""
    batches = batches_in(run)
    if collect and batches != [run]:
        refresh_runs(run)
    try:
        jobs = slurm.jobs_of(run)
    except (ConfigError, CannotWriteError) as error:
        print(f"jobs are not shown: {error}", file=sys.stderr)
        jobs = {}
    rows = [progress(batch) for batch in batches]
    print(table(rows, {batch.name: job for batch, job in jobs.items()}))
    print(tally(row.state for row in rows))
    return 0


def cancel(run: Path) -> int:
    """0, after the jobs of a run are cancelled."""
    batches_in(run)
    ids = slurm.cancel(run)
    print(f"cancelled {' '.join(ids)}" if ids else "no job of this run waits or runs")
    return 0


def command_on_run(name: str, command_line: Sequence[str]) -> int:
    """The exit code of status, collect or cancel."""
    parser = Parser(prog=f"submit.py {name}", allow_abbrev=False)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run or sweep")
    run = parser.parse_args(command_line).run.absolute()
    return cancel(run) if name == "cancel" else status(run, collect=name == "collect")


@guarded
def main(command_line: Sequence[str] | None = None) -> int:
    """The exit code: 0 once everything is submitted, or trained, or shown."""
    given = list(sys.argv[1:] if command_line is None else command_line)
    if given and given[0] in COMMANDS:
        return command_on_run(given[0], given[1:])
    return submit(arguments(given))


if __name__ == "__main__":
    imported()
    sys.exit(main())
