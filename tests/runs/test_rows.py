"""The score that says which checkpoint is best."""

import pandas as pd
import pytest

from src_pure.runs.rows import mean_score

ROWS = pd.DataFrame(
    [(0, 60, 1.0, 3.0), (1, 10, 0.0, 5.0), (0, 0, None, 4.0), (1, 90, 0.5, 6.0)],
    columns=["run", "episodes", "success_rate", "policy_loss"],
)


def test_it_is_the_mean_over_runs_of_means_over_episodes():
    wanted = (1.0 + 90 * 0.5 / 100) / 2
    assert mean_score([ROWS[:2], ROWS[2:]], "success_rate", 60) == pytest.approx(wanted)
    assert mean_score([ROWS], "policy_loss", 60) == (3.5 + 5.5) / 2
    assert mean_score([ROWS], None, 1) is None


def test_few_episodes_of_one_run_are_no_score():
    assert mean_score([ROWS], "success_rate", 61) is None
    assert mean_score([ROWS[2:]], "success_rate", 1) is None
    assert mean_score([ROWS[2:]], "policy_loss", 1000) == 5.0
