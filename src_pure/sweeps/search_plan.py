"""What a search tries: its space, its rungs and the one program that trains every trial; checked before it begins."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax

from src_pure.build import build
from src_pure.config.names import SWEEP
from src_pure.config.settings import Sweep
from src_pure.config.sweep import axes_of, one_point, sweep_settings
from src_pure.errors import ConfigError
from src_pure.evaluate import make_evaluate
from src_pure.experiment import LANES, Experiment, is_lane_key, lane_keys, side_by_side, with_seed, with_values
from src_pure.lanes import GENERATOR, Lane
from src_pure.runs.blocks import most_lanes
from src_pure.runs.columns import column, main_metric, over_episodes
from src_pure.runs.policies import params_of
from src_pure.sweeps.halving import rungs_of
from src_pure.sweeps.plan import counted, described
from src_pure.sweeps.points import Range, Values, is_integer_key, parse_range, values_of_all
from src_pure.sweeps.trials import Trial


@dataclass(frozen=True)
class Search:
    """Everything that a search needs besides its folder."""

    settings: Sweep
    config: dict[str, Any]  # of the command, with its section `sweep`
    base: dict[str, Any]  # of a single trial, without the values of its axes
    trust: Sequence[str]
    ranges: Mapping[str, Range]  # of the axes, by dotted key
    experiment: Experiment  # of the base
    rungs: tuple[int, ...]  # updates after which a trial is judged
    metric: str
    slots: int  # trials that a batch trains side by side
    evaluation_steps: int
    built: dict[str, Experiment] = field(default_factory=dict, compare=False, repr=False)  # by its values

    @property
    def num_seeds(self) -> int:
        return self.experiment.settings.num_seeds

    @property
    def num_trials(self) -> int:
        return self.settings.trials or 0

    def point(self, values: Values) -> Experiment:
        """The Experiment of a trial with all of its seeds; raises ConfigError for values that contradict each other."""
        key = repr(sorted(values.items()))
        if key not in self.built:
            try:
                self.built[key] = build(with_values(self.base, values), self.trust)
            except ConfigError as error:
                raise ConfigError(f"{described(values)}: {error}") from error
        return self.built[key]

    def side_by_side(self, trials: Sequence[Trial]) -> Experiment:
        """The Experiment that trains these trials, num_seeds lanes each."""
        alone, lanes = [], []
        for trial in trials:
            point = self.point(trial.values)
            for i in range(self.num_seeds):
                lanes.append(Lane(trial.number * self.num_seeds + i, point.settings.seed + i, trial.values))
                alone.append(with_seed(point, lanes[-1].seed))
        experiment = side_by_side(alone, lanes)
        # the same in all batches, or else they would be other programs
        return replace(experiment, evaluation_steps=max(self.evaluation_steps, experiment.evaluation_steps))

    def __str__(self) -> str:
        settings, eta, per_update = (
            self.experiment.settings,
            self.settings.eta,
            self.experiment.settings.steps_per_update,
        )
        first, last = self.rungs[0] * per_update, self.rungs[-1] * per_update
        lines = [
            f"{self.experiment.name}: {counted(self.num_trials, 'trial')} x {counted(self.num_seeds, 'seed')}, "
            f"{self.slots:,} at a time in one program, maximising {self.metric}",
            f"  judged after {', '.join(f'{rung:,}' for rung in self.rungs)} updates, where the best 1 of {eta} go on: "
            f"{first:,} to {last:,} steps of each run",
        ]
        if settings.num_updates * per_update < self.config["total_steps"] - per_update:
            lines.append(f"  total_steps is {last:,}, so that the rungs are whole updates")
        return "\n".join([*lines, *(f"  {key}: {each}" for key, each in axes_of(self.config).items())])


def make_search(config: dict[str, Any], trust: Sequence[str] = ()) -> Search:
    """The search of a configuration; raises ConfigError for wrong settings, before anything is compiled."""
    if LANES in config:
        raise ConfigError("this is the configuration of a batch of a search: repeat the command of the search instead")
    settings, axes, base = sweep_settings(config), axes_of(config), one_point(config)
    _check_settings(settings, axes, base)
    experiment = build(base, trust)
    _refuse_structure(axes, experiment)
    num_updates, least = experiment.settings.num_updates, settings.eta ** (settings.rungs - 1)
    if least > num_updates:
        raise ConfigError(
            f"sweep.rungs={settings.rungs} with sweep.eta={settings.eta} needs {least:,} updates at least, total_steps "
            f"gives {num_updates:,}: set fewer rungs or more steps"
        )
    rungs = rungs_of(num_updates, settings.eta, settings.rungs)
    base |= {"total_steps": rungs[-1] * experiment.settings.steps_per_update}
    ranges = {key: parse_range(key, text, is_integer_key(config, key, trust)) for key, text in axes.items()}
    _refuse_too_few(settings, ranges)
    most = most_lanes(experiment) * jax.local_device_count() // experiment.settings.num_seeds
    lanes = settings.lanes or min(max(1, most), settings.trials or 1)
    search = Search(
        settings=settings,
        config=config,
        base=base,
        trust=trust,
        ranges=ranges,
        experiment=build(base, trust),
        rungs=rungs,
        metric=_metric(settings.metric, experiment),
        slots=lanes,
        evaluation_steps=0,
    )
    return replace(search, evaluation_steps=_evaluation_steps(search))


def _check_settings(settings: Sweep, axes: Mapping[str, Any], base: dict[str, Any]) -> None:
    """Raises ConfigError for settings that make no search."""
    if settings.file is not None or settings.points is not None:
        given = "file" if settings.file is not None else "points"
        raise ConfigError(f"sweep.mode=search chooses its points: set axes instead of sweep.{given}")
    if not axes:
        raise ConfigError("sweep.mode=search needs axes, such as sweep.algo.learning_rate=loguniform(1e-5,1e-2)")
    if base["wandb"]["mode"] != "disabled" or base["tensorboard"]:
        raise ConfigError(
            "a search writes no dashboards, its tables hold all numbers: leave out wandb.mode, tensorboard"
        )
    if settings.trials is None:
        raise ConfigError("sweep.mode=search needs the number of trials: set sweep.trials=100")
    if settings.lanes is not None and settings.lanes > settings.trials:
        raise ConfigError(f"sweep.lanes must be at most sweep.trials={settings.trials:,}, got {settings.lanes:,}")


def _refuse_too_few(settings: Sweep, ranges: Mapping[str, Range]) -> None:
    """Raises ConfigError if there are more trials than different points."""
    values = values_of_all(ranges)
    if values and (most := math.prod(map(len, values))) < (settings.trials or 0):
        raise ConfigError(f"sweep.trials={settings.trials:,}, but these axes have only {most:,} different points")


def _refuse_structure(axes: Mapping[str, Any], experiment: Experiment) -> None:
    """Raises ConfigError for an axis that one program cannot cover."""
    known = lane_keys(experiment)
    for key in axes:
        if not is_lane_key(key, known):
            raise ConfigError(
                f"sweep.{key}: a search trains all trials in one program, which {key} would change; run one search for "
                f"each value of {key}, or set sweep.mode=grid (a search may vary {', '.join(known)})"
            )


def _metric(wanted: str | None, experiment: Experiment) -> str:
    """The metric to maximise; raises ConfigError if the evaluation does not have it. Only traces, compiles nothing."""
    evaluate = make_evaluate(experiment.evaluation_env, experiment.policy, experiment.evaluation_steps)
    key = jax.eval_shape(lambda: jax.random.key(0, impl=GENERATOR))
    metrics = jax.eval_shape(lambda key, params: evaluate(key, params, False), key, params_of(experiment))
    known = [name for name in map(column, metrics) if over_episodes(name)]
    if wanted is not None and wanted not in known:
        raise ConfigError(f"sweep.metric must be one of {', '.join(known)}, got {wanted!r}")
    return wanted or main_metric(known)


def _evaluation_steps(search: Search) -> int:
    """The longest evaluation among the ends of the space; raises ConfigError if one of them cannot be trained.

    The ends: all axes at their first value, all at their last, and each value of a list, each bound of a range alone.
    """
    ends = {key: each.arguments for key, each in search.ranges.items()}
    first, last = ({key: values[place] for key, values in ends.items()} for place in (0, -1))
    corners = [first, last, *(first | {key: value} for key, each in ends.items() for value in each)]
    points = [search.point(values) for values in corners]
    seed = search.experiment.settings.seed
    alone = [with_seed(point, seed) for point in points]
    lanes = [Lane(number, seed, values) for number, values in enumerate(corners)]
    experiment = side_by_side(alone, lanes)
    experiment.numbers()  # raises ConfigError if a program cannot hold numbers of these kinds
    return experiment.evaluation_steps


def config_of_batch(search: Search, experiment: Experiment) -> dict[str, Any]:
    """What config.yaml of a batch holds: its first lanes, and the section `sweep`, so that nobody trains it alone."""
    return experiment.config | {SWEEP: search.config[SWEEP]}
