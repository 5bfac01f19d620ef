"""bsuite's score from run folders, against bsuite's own rule applied episode by episode."""

import importlib.util

import numpy as np
import pandas as pd
import pytest

from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.results.bsuite import bsuite_score, read_sweep, regret_ratio
from tests.conftest import REPOSITORY
from tests.runs.frames import IDENTITY, new_run

specification = importlib.util.spec_from_file_location("bsuite_score", REPOSITORY / "scripts" / "bsuite_score.py")
script = importlib.util.module_from_spec(specification)
specification.loader.exec_module(script)


def score_of_bsuite(answers, group_col):
    """What bsuite 0.3.6 does in experiments/memory_len/analysis.py, on a table with one row for each episode.

    answers: {(setting, seed): bool [episodes], whether the answer was right}.
    """
    frames = []
    for (setting, _), right in answers.items():
        episode = np.arange(1, len(right) + 1)
        frames.append(pd.DataFrame({group_col: setting, "episode": episode, "total_perfect": np.cumsum(right)}))
    log = pd.concat(frames)
    log["regret_ratio"] = (log.episode - log.total_perfect) / 0.5
    regret_list = []
    for _, sub_df in log.groupby(group_col):
        max_eps = np.minimum(sub_df.episode.max(), 10_000)
        regret_list.append(sub_df.loc[sub_df.episode == max_eps, "regret_ratio"].mean() / max_eps)
    return np.array(regret_list), np.mean(np.array(regret_list) < 0.75)


def frame_of(answers, sizes):
    """metrics.parquet of runs whose answers [episodes] came in updates of these sizes."""
    rows = []
    for run, right in enumerate(answers):
        parts = np.split(right, np.cumsum(sizes)[:-1])
        for update, part in enumerate(parts, start=1):
            rate = part.mean() if len(part) else np.nan
            rows.append({"run": run, "seed": run, "update": update, "env_steps": 1024 * update, "episodes": len(part)}
                        | {"episode_return": 2 * rate - 1, "success_rate": rate})  # fmt: skip
    return pd.DataFrame(rows).sort_values(["update", "run"])


@pytest.fixture
def make_run(tmp_path):
    """A function that writes a run folder of two seeds, finished unless said otherwise."""

    def make(name, answers, sizes, *overrides, done=True):
        overrides = ["task=bsuite", "num_envs=8", "num_steps=128", f"num_seeds={len(answers)}", *overrides]
        experiment = build(compose([*overrides, f"total_steps={1024 * len(sizes)}"]))
        run = new_run(tmp_path / name, experiment.config_yaml, IDENTITY)
        run.append_metrics(frame_of(answers, sizes))
        if done:
            run.write_summary({"env_steps": 1024 * len(sizes), "runs": len(answers), "failed": {}})
        return run.path

    return make


def test_score_of_a_sweep_is_that_of_bsuite(make_run):
    """Lengths learned early, late, never, and only during the first 10,000 episodes; one training is cut short."""
    rng = np.random.default_rng(0)
    learned_from = {1: 200, 4: 6_000, 20: 30_000, 50: 10_000, 100: 300}
    num_episodes = {1: 12_000, 4: 12_000, 20: 12_000, 50: 40_000, 100: 1_000}
    answers, paths = {}, []
    for length, start in learned_from.items():
        sizes = [0, 600, *[200] * (num_episodes[length] // 200 - 3)]  # 10,000 is the end of an update
        probability = np.where(np.arange(sum(sizes)) < start, 0.5, 0.99)
        runs = [rng.random(sum(sizes)) < probability for _ in range(2)]
        answers |= {(length, seed): right for seed, right in enumerate(runs)}
        paths.append(make_run(f"length{length}", runs, sizes, f"task.memory_length={length}"))
    sweep = read_sweep(paths[::-1])
    regret, score = score_of_bsuite(answers, "memory_length")
    assert sweep["memory_length"].tolist() == sorted(learned_from)
    assert set(sweep["runs"]) == {2} and set(sweep["num_bits"]) == {1}
    assert sweep["episodes"].tolist() == [10_000, 10_000, 10_000, 10_000, 1_000]
    np.testing.assert_allclose(sweep["regret"], regret, rtol=1e-12)
    assert bsuite_score(sweep["regret"]) == score == 0.6


def test_a_part_of_the_last_update_counts():
    episodes, ratio = regret_ratio(np.array([0, 9_000, 4_000, 500]), np.array([np.nan, 0.5, 1.0, 0.0]))
    assert (episodes, ratio) == (10_000, 4_500 / 5_000)


def test_the_threshold_itself_is_not_solved():
    ratios = [
        regret_ratio(np.array([10_000]), np.array([right / 10_000]))[1] for right in (5_000, 6_250, 6_251, 10_000)
    ]
    np.testing.assert_allclose(ratios, [1.0, 0.75, 0.7498, 0.0])
    assert bsuite_score(ratios) == 0.5


def test_folders_of_one_setting_are_one_row_and_tasks_have_scores_of_their_own(make_run, capsys):
    right, wrong = np.ones(100, bool), np.zeros(100, bool)
    paths = [
        make_run("a", [right], [100], "seed=0", "observation.last_action=true"),
        make_run("b", [wrong], [100], "seed=1"),
        make_run("c", [right], [100], "task.env_name=memory_size", "task.num_bits=3"),
        make_run("d", [right], [100], "task.env_name=distributed_memory"),
    ]
    assert script.main([*map(str, paths)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[1:4]] == [
        ["distributed_memory", "10", "3", "1", "100", "0.000"],
        ["memory_length", "10", "1", "2", "100", "1.000"],
        ["memory_size", "2", "3", "1", "100", "0.000"],
    ]
    assert lines[4:] == [
        "bsuite's score of distributed_memory: 1.000 (1 settings; bsuite's sweep has 13)",
        "bsuite's score of memory_length: 0.000 (1 settings; bsuite's sweep has 23)",
        "bsuite's score of memory_size: 1.000 (1 settings; bsuite's sweep has 17)",
    ]


def test_a_wrong_folder_is_one_line_and_code_2(make_run, tmp_path, capsys):
    right, none = np.ones(100, bool), np.zeros(0, bool)
    good = make_run("good", [right], [100])
    (tmp_path / "empty").mkdir()
    wrong = {
        "no run folder given": [],
        "no run folder ": [tmp_path / "missing"],
        "config.yaml cannot be read": [tmp_path / "empty"],
        "the same run folder is given twice": [good, good],
        "must be a run of memory_length, memory_size, distributed_memory, got tmaze-": [
            make_run("maze", [right], [100], "task=tmaze")
        ],
        "got MemoryChain-bsuite": [
            make_run("gymnax", [right], [100], "task=gymnax", "task.env_name=MemoryChain-bsuite")
        ],
        "is unfinished; repeat its command": [good, make_run("unfinished", [right], [100], done=False)],
        "no episode ended in run 0": [make_run("no_episode", [none], [0])],
    }
    for message, paths in wrong.items():
        assert script.main([*map(str, paths)]) == 2
        printed = capsys.readouterr()
        assert message in printed.err and printed.err.count("\n") == 1 and not printed.out
