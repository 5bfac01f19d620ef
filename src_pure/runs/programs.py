"""Programs that this process has compiled: trainings that differ only in their lanes share one."""

from dataclasses import replace

from src_pure.build import Experiment
from src_pure.config.names import dotted, harmless
from src_pure.experiment import LANES
from src_pure.runs.compilation import CacheUse
from src_pure.runs.program import Program, compile_program

OF_A_LANE = (LANES, "seed", "num_seeds")


class Programs:
    """The last program that was compiled, for trainings that can use it again."""

    def __init__(self):
        self.key: str | None = None
        self.program: Program | None = None

    def of(self, experiment: Experiment, warm_start: str | None, width: int | None) -> Program:
        """The program of an experiment: compiled, or the last one with the lanes of this experiment.

        The arguments and the errors are those of compile_program.
        """
        key, known = shared_key(experiment, warm_start), self.program
        if known is None or key != self.key or width not in (None, known.blocks.width):
            self.program = None  # frees its memory before the next one is compiled
            self.key, self.program = key, compile_program(experiment, warm_start, width)
            return self.program
        blocks = replace(known.blocks, num_lanes=len(experiment.lanes))
        return replace(
            known,
            lanes=experiment.lanes,
            blocks=blocks,
            numbers=blocks.split(experiment.numbers()),
            like=blocks.resized(known.like, len(experiment.lanes)),
            compile_seconds=0.0,
            cache=CacheUse(),
        )


def shared_key(experiment: Experiment, warm_start: str | None) -> str:
    """What a program depends on besides the numbers and seeds of its lanes."""
    varying = experiment.lanes[0].values
    config = {key: x for key, x in dotted(experiment.config).items() if key not in (*OF_A_LANE, *varying)}
    fixed = {key: x for key, x in config.items() if not harmless(key) or key in ("log_seconds", "checkpoint.metric")}
    return repr((sorted(fixed.items()), sorted(varying), experiment.evaluation_steps, warm_start))
