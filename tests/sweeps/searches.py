"""A small search, and what two of them must have in common."""

import pandas as pd

from src_pure.config.files import parse_yaml
from src_pure.runs.programs import Programs
from src_pure.sweeps.search_plan import make_search
from src_pure.sweeps.trials import Trials
from tests.test_command_line import TINY

AXES = ["sweep.algo.learning_rate=loguniform(1e-4,1e-1)", "sweep.task.corridor_len=[2,3]"]
# rungs at 1, 3 and 9 updates; two trials of two lanes at a time
SEARCH = [*TINY, "total_steps=640", "num_seeds=2", "seed=5", "algo.anneal_lr=true", "checkpoint.updates=2",
          "sweep.mode=search", "sweep.trials=8", "sweep.lanes=2", *AXES]  # fmt: skip
PROGRAMS = Programs()  # shared by all tests, which train the same program


def trials_of(folder):
    found = make_search(parse_yaml((folder / "sweep.yaml").read_text()))
    trials = Trials(folder, found.ranges, found.settings)
    with trials.held():
        return trials.all()


def tables(folder):
    return {
        name: pd.concat(
            [pd.read_parquet(batch / name) for batch in sorted(folder.glob("batches/*"))], ignore_index=True
        )
        for name in ("metrics.parquet", "evaluation.parquet")
    }


def assert_same_search(found, wanted):
    """The same trials with the same values and decisions, and every row once, bit for bit."""
    assert trials_of(found) == trials_of(wanted)
    for name, table in tables(found).items():
        pd.testing.assert_frame_equal(table, tables(wanted)[name], check_exact=True)
    pd.testing.assert_frame_equal(pd.read_parquet(found / "runs.parquet"), pd.read_parquet(wanted / "runs.parquet"))
    assert (found / "best.yaml").read_text() == (wanted / "best.yaml").read_text()
