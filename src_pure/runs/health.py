"""Runs whose numbers stop being finite, and policies that act differently from how they learn."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from src_pure.errors import NumericalError
from src_pure.lanes import Lane
from src_pure.runs.columns import floats

# Largest |log ratio| that rounding alone explains on the first minibatch, before any gradient step, by precision
MAX_LOG_RATIO = {"float32": 1e-4, "bfloat16": 1e-1}


class Failure(NamedTuple):
    """A run that is no longer training, and the update at which it first produced a non-finite value."""

    lane: Lane
    update: int

    def __str__(self) -> str:
        return f"seed {self.lane.label} at update {self.update}"


def failures(lanes: Sequence[Lane], completed: np.ndarray, done: int) -> list[Failure]:
    """The runs that failed so far.

    completed: updates of each run, [R], empty before the first segment; done: updates of the whole program.
    """
    return [Failure(lanes[int(i)], int(completed[i]) + 1) for i in np.flatnonzero(completed < done)]


def rows_of_living(rows: pd.DataFrame, before: np.ndarray, after: np.ndarray, done: int) -> pd.DataFrame:
    """The rows of a segment without those of failed runs; the row of the update that failed is kept.

    rows: of [U, R]; before, after: updates that each run completed before and after the segment, [R] (`before` is empty
    at the very start); done: updates of the whole program before the segment.
    """
    alive = np.ones(len(after), bool) if not len(before) else before == done
    updates = rows["update"].to_numpy().reshape(-1, len(after))
    return rows[(alive & (updates <= after + 1)).ravel()].reset_index(drop=True)


def warnings(rows: pd.DataFrame, lanes: Sequence[Lane], precision: str) -> list[str]:
    """One line for each run that failed in these rows, and one if the policy acts differently from how it learns."""
    lines = []
    last = rows.groupby("run").tail(1)
    finite = np.isfinite(floats(last["loss"])) & np.isfinite(floats(last["param_norm"]))
    failed = last[~finite | (last["nonfinite_inputs"] != 0).to_numpy()]
    by_run = {lane.run: lane for lane in lanes} if len(failed) else {}
    for _, row in failed.iterrows():
        lines.append(
            f"seed {by_run[row['run']].label} failed at update {row['update']:.0f}: {cause_of_failure(row)}; this run "
            "keeps the parameters that it had before"
        )
    ratio = rows.get("first_minibatch_max_abs_log_ratio", pd.Series([0.0])).max()
    if ratio > MAX_LOG_RATIO[precision]:
        lines.append(
            f"before any gradient step log(new policy / acting policy) is up to {ratio:.1e}, it should be 0: "
            "does the memory model give the same outputs step by step and as a sequence?"
        )
    return lines


def cause_of_failure(row: pd.Series) -> str:
    """Which metrics of a failed run are not finite, and how to fix it."""
    if row["nonfinite_inputs"]:
        return f"{row['nonfinite_inputs']:.0f} observations or rewards are NaN or infinite, correct the environment"
    wrong = [f"the {name} is {row[name]}" for name in ("loss", "param_norm") if not np.isfinite(row[name])]
    return f"{' and '.join(wrong)}, try a smaller algo.learning_rate"


def no_run_left(failed: Sequence[Failure], path: Path) -> NumericalError:
    """The error to raise when every run has failed."""
    listed = ", ".join(map(str, failed))
    return NumericalError(f"no run is left: {listed} failed; what was written is in {path}")
