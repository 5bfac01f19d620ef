"""Trains an agent with memory: `python trainer_pure.py +tmaze=agalite task.corridor_len=160`, `--help` for all options.

Exit codes: 0 done, 2 wrong input, 3 a run's numbers stopped being finite, 4 the run folder cannot be written, 5 another
process uses it, 6 the device failed, 75 stopped by a signal, 130 stopped by Ctrl-C; details in docs/durability.md.
"""

if __name__ == "__main__":
    from src_pure.interrupt import imported  # first: from here on Ctrl-C prints one line instead of a traceback

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import platformdirs

from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.config.names import CONFIG_FILE
from src_pure.config.sweep import is_search, is_sweep
from src_pure.config.usage import usage
from src_pure.device import computing, spread_over_cores
from src_pure.errors import ConfigError, Parser, guarded, shown
from src_pure.experiment import LANES
from src_pure.preview.devices import target_of
from src_pure.runs.hosts import Group, place_of, together
from src_pure.runs.preemption import stop_on_signals
from src_pure.runs.programs import Programs
from src_pure.runs.shared import Follower, SharedPrograms, follow, lead
from src_pure.runs.training import train_in_folder
from src_pure.sweeps.estimate import describe, describe_on, memory_on
from src_pure.sweeps.plan import make_plan
from src_pure.sweeps.search import open_search, run_search
from src_pure.sweeps.search_plan import make_search
from src_pure.sweeps.sweep import open_sweep, run_sweep

MANY_SEEDS = 16  # fewer train as before on one device, which divides large products between cores


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code, after the training that the command-line arguments describe."""
    return train(parsed(arguments), Programs())


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; raises ConfigError for a wrong one."""
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--config", type=Path, default=CONFIG_FILE)
    parser.add_argument("--trust", action="append", default=[])
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("overrides", nargs="*")
    return parser.parse_intermixed_args(arguments)


def train(options: argparse.Namespace, programs: Programs) -> int:
    """The exit code, after what the command line asks for."""
    if options.multirun:
        raise ConfigError(
            "leave out --multirun; sweep.KEY=[A,B] is several settings; for several seeds write num_seeds=3"
        )
    config = compose(options.overrides, options.config)
    if has_many_runs(config) and not isinstance(programs, SharedPrograms):
        spread_over_cores()
    if config["plan"] is not None:
        return plan(config, options.trust)
    if config["device"] is not None:
        given = shown(config["device"])
        raise ConfigError(f"device={given} is for plan=only; JAX_PLATFORMS chooses where a training runs")
    if is_search(config):
        refuse_group(programs)
        return search(config, options.trust, options.help)
    if is_sweep(config):
        return sweep(config, options.trust, options.help, programs)
    experiment = build(config, options.trust)
    if options.help:
        print(usage(config))
        return 0
    path = Path(experiment.settings.run_dir) if experiment.settings.run_dir else None
    with stop_on_signals(experiment.settings.grace_seconds) as stop:
        train_in_folder(experiment, config, path, stop, programs=programs)
    return 0


def has_many_runs(config: dict[str, Any]) -> bool:
    """Whether a configuration, which nobody has checked yet, has so many runs that each core can train its own."""
    seeds = config.get("num_seeds")
    many = isinstance(seeds, int | float) and seeds >= MANY_SEEDS
    return config.get("devices") == "runs" and (many or is_sweep(config) or LANES in config)


def plan(config: dict[str, Any], trust: Sequence[str]) -> int:
    """The exit code, after the plan of a command is printed."""
    if config["plan"] != "only":
        raise ConfigError(f"plan must be only, or null to train, got {config['plan']}")
    target = None if config["device"] is None else target_of(str(config["device"]))
    if is_search(config):
        if target:
            raise ConfigError("plan=only prints the rungs of a search, whatever the device: leave out device")
        print(make_search(config, trust))
        return 0
    with computing():
        found = make_plan(config, trust, memory_on(target) if target else None)
        for line in describe_on(target, found) if target else describe(found):
            print(line, flush=True)
    return 0


def sweep(config: dict[str, Any], trust: Sequence[str], only_help: bool, programs: Programs) -> int:
    """The exit code, after all trainings of a sweep."""
    if only_help:
        make_plan(config, trust)
        print(usage(config))
        return 0
    path = open_sweep(config, trust)
    with stop_on_signals(config["grace_seconds"]) as stop:
        run_sweep(path, config, stop, trust, programs)
    return 0


def search(config: dict[str, Any], trust: Sequence[str], only_help: bool) -> int:
    """The exit code, after all trials of a search."""
    if only_help:
        make_search(config, trust)
        print(usage(config))
        return 0
    path, wanted = open_search(config, trust)
    with stop_on_signals(config["grace_seconds"]) as stop:
        run_search(path, wanted, stop)
    return 0


def refuse_group(programs: Programs) -> None:
    """Raises ConfigError if this process leads others: the lanes of a search change while it trains."""
    if isinstance(programs, SharedPrograms):
        raise ConfigError(
            "a search trains in processes of their own, which may share one run_dir; start them without "
            "JAX_NUM_PROCESSES, and one for each job of Slurm"
        )


def keep_compiled_programs() -> None:
    """Sets the folder where jax caches compiled programs; if it cannot be written, warns and switches the cache off.

    By default all checkouts of a user share one.
    """
    folder = jax.config.jax_compilation_cache_dir or str(platformdirs.user_cache_path("src-pure") / "jax")
    try:
        if "://" not in folder:  # otherwise it is a bucket, which jax handles itself
            os.makedirs(folder, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"0")
    except OSError as error:
        with suppress(OSError):
            print(
                f"warning: compiled programs are not kept: {error}; JAX_COMPILATION_CACHE_DIR moves them",
                file=sys.stderr,
            )
        folder = None
    jax.config.update("jax_compilation_cache_dir", folder)


def program() -> int:
    """The exit code of the process."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # the errors that orbax raises contain what it logs
    keep_compiled_programs()
    return on_hosts(sys.argv[1:])


@guarded
def on_hosts(arguments: Sequence[str] | None = None) -> int:
    """The exit code of this process, which may be one of several that train together."""
    arguments = arguments or []
    place = place_of(os.environ)
    if place is None:
        return train(parsed(arguments), Programs())
    with together(place) as channels:
        if place.process > 0:
            return follow(channels[0], Follower(arguments, lambda: parsed(arguments).trust))
        group = Group(place, channels)
        return lead(group, guarded(lambda _: leading(group, arguments)))


def leading(group: Group, arguments: Sequence[str]) -> int:
    """The exit code of process 0."""
    group.refuse_other_commands(arguments)
    return train(parsed(arguments), SharedPrograms(group))


if __name__ == "__main__":
    imported(exception=False)  # there is nothing to clean up before signals are handled
    sys.exit(program())
