"""An agent of a run folder at play, as a GIF: python scripts/watch.py RUN [--policy POLICY] [--episodes N] [--out FILE]

Each frame says step, reward, return, action and value, and what the environment knows that the agent has to remember.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from src_pure.build import ConfigError, Experiment, build
from src_pure.configuration.targets import TRUST_HELP
from src_pure.runs.loop import training_keys
from src_pure.runs.policies import newest_checkpoint, params_of_run, with_params
from src_pure.runs.sealed import CheckpointError, one_line
from src_pure.runs.watching import player, write_gif
from src_pure.train import make_train
from src_pure.types import Params

POLICIES = ("trained", "fresh", "random")


def arguments(command_line: Sequence[str] | None) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description="Writes a GIF of an agent at play.")
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--policy", choices=POLICIES, default="trained", help="trained, as it began (fresh), or random")
    parser.add_argument("--run", type=int, default=0, help="which of the runs of the folder (0)")
    parser.add_argument("--episodes", type=int, default=3, help="one after the other (3)")
    parser.add_argument("--greedy", action="store_true", help="the most likely action instead of a sampled one")
    parser.add_argument("--seed", type=int, default=0, help="of episodes and actions (0)")
    parser.add_argument("--max-steps", type=int, default=500, help="an episode that is longer is cut off (500)")
    parser.add_argument("--out", type=Path, help="GIF to write (default: <RUN>/plots/<policy>.gif)")
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE", help=TRUST_HELP)
    options = parser.parse_args(command_line)
    for name in ("episodes", "max_steps"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {getattr(options, name)}")
    if options.seed < 0:
        parser.error(f"--seed must not be negative, got {options.seed}")
    if options.out is not None and options.out.suffix.lower() != ".gif":
        parser.error(f"--out must end in .gif, got {options.out}")
    return options


def params_for(policy: str, experiment: Experiment, trained: Params, run: int) -> Params | None:
    """The parameters of a run; of a fresh one those that it began with, of a random one none."""
    if policy == "trained":
        return trained
    if policy == "random":
        return None
    init, _ = make_train(experiment.env, experiment.policy)
    return jax.jit(init)(training_keys(experiment.settings.seeds)[run], experiment.algo).learner.params


def main(command_line: Sequence[str] | None = None) -> int:
    """0 when the GIF is written, 2 for a wrong command line."""
    options = arguments(command_line)
    try:
        checkpoint, arrays, damaged = newest_checkpoint(options.run_dir)
        for line in damaged:
            print(line, file=sys.stderr)
        experiment = build(checkpoint.config, options.trust)
        trained = with_params(experiment, params_of_run(checkpoint, arrays, options.run), checkpoint.path)
        params = params_for(options.policy, experiment, trained, options.run)
        keys = jax.random.split(jax.random.key(options.seed), options.episodes)
        play = player(experiment, params, options.greedy, options.max_steps)
        episodes = [play(key) for key in keys]
        out = options.out or options.run_dir / "plots" / f"{options.policy}.gif"
        write_gif(episodes, out)
    except (ConfigError, CheckpointError, OSError) as error:
        print(f"watch.py: {one_line(error)}", file=sys.stderr)
        return 2
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
