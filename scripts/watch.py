"""Episodes of a run's agent as a GIF: python scripts/watch.py RUN [--policy POLICY] [--episodes N] [--out FILE]

Each frame shows step, reward, return, action, value, and what the agent has to remember.
"""

if __name__ == "__main__":
    from src_pure.interrupt import imported  # first: from here on Ctrl-C prints one line instead of a traceback

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from src_pure.config.targets import TRUST_HELP
from src_pure.device import computing
from src_pure.errors import ConfigError, Parser, between, guarded
from src_pure.lanes import GENERATOR, training_keys
from src_pure.results.watching import player, write_gif
from src_pure.runs.policies import Trained, read_trained, with_params
from src_pure.train import make_train
from src_pure.types import Params

POLICIES = ("trained", "fresh", "random")
MAX_FRAMES = 10_000  # in a GIF, which is built in memory


def arguments(command_line: Sequence[str] | None) -> argparse.Namespace:
    """The parsed command line."""
    parser = Parser(description="Writes a GIF of an agent at play.")
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--policy", choices=POLICIES, default="trained", help="trained, as it began (fresh), or random")
    parser.add_argument("--run", type=between(int, 0, 2**31 - 1), default=0, help="which of the runs of the folder (0)")
    parser.add_argument("--episodes", type=between(int, 1, MAX_FRAMES), default=3, help="one after the other (3)")
    parser.add_argument("--greedy", action="store_true", help="the most likely action instead of a sampled one")
    parser.add_argument("--seed", type=between(int, 0, 2**31 - 1), default=0, help="of episodes and actions (0)")
    parser.add_argument(
        "--max-steps", type=between(int, 1, MAX_FRAMES), default=500, help="an episode that is longer is cut off (500)"
    )
    parser.add_argument("--out", type=Path, help="GIF to write (default: <RUN>/plots/<policy>.gif)")
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE", help=TRUST_HELP)
    options = parser.parse_args(command_line)
    if options.episodes * options.max_steps > MAX_FRAMES:
        raise ConfigError(
            f"--episodes times --max-steps must be at most {MAX_FRAMES:,} frames, got {options.episodes:,} times "
            f"{options.max_steps:,}"
        )
    if options.out is not None and options.out.suffix.lower() != ".gif":
        raise ConfigError(f"--out must end in .gif, got {options.out}")
    return options


def params_for(policy: str, trained: Trained, run: int) -> Params | None:
    """The parameters of a run: the trained ones, the initial ones if `fresh`, None if `random`."""
    experiment = trained.experiment_of_run(run)
    if policy == "trained":
        return with_params(experiment, trained.params_of_run(run), trained.checkpoint.path)
    if policy == "random":
        return None
    init, _ = make_train(experiment.env, experiment.policy)
    return jax.jit(init)(training_keys(experiment.lanes)[0], experiment.algo).learner.params


@guarded
def main(command_line: Sequence[str] | None = None) -> int:
    """0 once the GIF is written."""
    options = arguments(command_line)
    trained = read_trained(options.run_dir, options.trust)
    for line in trained.problems:
        print(line, file=sys.stderr)
    experiment = trained.experiment_of_run(options.run)
    with computing():
        params = params_for(options.policy, trained, options.run)
        keys = jax.random.split(jax.random.key(options.seed, impl=GENERATOR), options.episodes)
        play = player(experiment, params, options.greedy, options.max_steps)
        episodes = [play(key) for key in keys]
    out = options.out or options.run_dir / "plots" / f"{options.policy}.gif"
    write_gif(episodes, out)
    print(out)
    return 0


if __name__ == "__main__":
    imported()
    sys.exit(main())
