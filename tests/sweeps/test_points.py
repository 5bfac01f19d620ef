"""Axes and points of a sweep, and which runs share a program."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.config.files import parse_yaml, to_yaml
from src_pure.config.names import known_names
from src_pure.envs import optional
from src_pure.errors import ConfigError
from src_pure.sweeps.plan import make_plan
from src_pure.sweeps.points import Range, points

SMALL = ["model=gru", "model.size=8", "policy.head_size=8", "num_envs=4", "num_steps=8", "algo.num_minibatches=2",
         "total_steps=320", "evaluation.num_episodes=4"]  # fmt: skip
RANDOM = ["sweep.mode=random", "sweep.samples=300"]


def points_of(*options):
    return points(compose([*SMALL, *options]))


def plan_of(*options):
    return make_plan(compose([*SMALL, *options]))


def test_a_grid_is_every_combination():
    found = points_of("sweep.algo.gamma=[0.9,0.99]", "sweep.model.size=[4,8,16]", "sweep.task.variant=[v1,v2]")
    wanted = itertools.product([0.9, 0.99], [4, 8, 16], ["v1", "v2"])
    assert [tuple(point.values()) for point in found] == list(wanted)
    assert list(found[0]) == ["algo.gamma", "model.size", "task.variant"]


def test_random_points_are_drawn_as_asked():
    """Whole numbers where the key is one; values within the bounds, spread evenly over them or their logarithm."""
    axes = [
        *("sweep.algo.learning_rate=loguniform(1e-5, 1e-1)", "sweep.algo.ent_coef=uniform(0,1)"),
        *("sweep.task.corridor_len=uniform(3, 6)", "sweep.task.time_limit=loguniform(10,1000)"),
        *("sweep.algo.gamma=choice(0.9, 0.99)", "sweep.algo.clip_eps=[0.1, 0.2]"),
    ]
    table = pd.DataFrame(points_of(*RANDOM, *axes))
    assert len(table) == 300
    rates = np.log10(table["algo.learning_rate"])
    assert -5 <= rates.min() < -4.9 and -1.1 < rates.max() <= -1 and abs(rates.mean() + 3) < 0.3
    assert 0 <= table["algo.ent_coef"].min() < 0.05 and abs(table["algo.ent_coef"].mean() - 0.5) < 0.1
    assert sorted(table["task.corridor_len"].unique()) == [3, 4, 5, 6] and table["task.corridor_len"].dtype == int
    limits = table["task.time_limit"]
    assert limits.dtype == int and limits.between(10, 1000).all() and abs((limits < 100).mean() - 0.5) < 0.1
    assert set(table["algo.gamma"]) == {0.9, 0.99} and set(table["algo.clip_eps"]) == {0.1, 0.2}
    assert table.equals(pd.DataFrame(points_of(*RANDOM, *axes)))
    assert not table.equals(pd.DataFrame(points_of(*RANDOM, *axes, "sweep.random_seed=1")))


def test_whole_numbers_share_the_logarithmic_scale():
    random = np.random.default_rng(0)
    draws = np.array([Range("loguniform", (1, 4), True).draw(random) for _ in range(20_000)])
    for number in (1, 2, 3, 4):
        wanted = math.log((number + 0.5) / (number - 0.5)) / math.log(4.5 / 0.5)
        assert abs((draws == number).mean() - wanted) < 0.015


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".yaml"])
def test_a_table_lists_points(tmp_path, ending):
    rows = [
        {"algo.learning_rate": 1e-3, "model": "gru", "task.corridor_len": 4},
        {"algo.learning_rate": 1e-2, "model": "mlp", "task.corridor_len": 5},
    ]
    file, frame = tmp_path / f"points{ending}", pd.DataFrame(rows)
    if ending == ".yaml":
        file.write_text(to_yaml(rows))
    else:
        frame.to_csv(file, index=False) if ending == ".csv" else frame.to_parquet(file)
    found = points_of(f"sweep.file={file}")
    assert [{**point, "model": point["model"]["name"]} for point in found] == rows
    assert [type(x) for x in found[0].values()] == [float, dict, int]
    config = compose(SMALL)
    assert points(config | {"sweep": config["sweep"] | {"points": rows}}) == found


def test_numbers_share_a_program_and_everything_else_splits():
    plan = plan_of(
        "num_seeds=3", "sweep.algo.gamma=[0.9,0.99]", "sweep.model=[gru,lstm]", "sweep.task.corridor_len=[4,5]"
    )
    assert [group.swept for group in plan.groups] == [("algo.gamma", "task.corridor_len")] * 2
    assert plan.keys() == {
        "algo.gamma": "side by side",
        "model": "a program each",
        "task.corridor_len": "side by side",
    }
    lanes = {lane.run: (lane.seed, point.number) for group in plan.groups for lane, point in group.lanes()}
    assert lanes == {run: (run % 3, run // 3) for run in range(24)}
    # points 0, 1, 4 and 5 are those of gru: gamma changes slowest, the corridor fastest
    first = plan.batches[0].experiment()
    assert [lane["run"] for lane in first.config["lanes"]] == [*range(6), *range(12, 18)]
    assert first.config["lanes"][4] == {"run": 4, "seed": 1, "algo.gamma": 0.9, "task.corridor_len": 5}
    assert first.of_lane(4).config["task"]["corridor_len"] == 5 and first.of_lane(4).settings.seed == 1


@pytest.mark.parametrize(("width", "sizes"), [(None, [10]), (10, [10]), (4, [3, 3, 4]), (1, [1] * 10)])
def test_batches_are_as_even_as_they_can_be(width, sizes):
    options = [] if width is None else [f"sweep.lanes_per_batch={width}"]
    plan = plan_of("num_seeds=5", "sweep.algo.gamma=[0.9,0.99]", *options)
    assert [len(batch.lanes) for batch in plan.batches] == sizes
    assert [lane.run for batch in plan.batches for lane in batch.lanes] == list(range(10))


@pytest.mark.parametrize("task", known_names("task"))
def test_the_numbers_of_every_task_become_lanes(task):
    """Found from the task itself, without a list."""
    config = compose([f"task={task}", *SMALL])
    for name in optional.numbers(build(config).env.env):
        value = config["task"].get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            plan = make_plan(compose([f"task={task}", *SMALL, f"sweep.task.{name}=[{value},{value + 1}]"]))
            assert len(plan.groups) == 1, name


def test_a_component_is_the_one_that_the_command_alone_would_choose():
    options = ["+bsuite=gru", "task.num_bits=2", "model.size=4"]
    plan = make_plan(compose([*options, "sweep.model=[gru,lstm]"]))
    for name, group in zip(("gru", "lstm"), plan.groups, strict=True):
        alone = compose([*options, f"model={name}"])
        assert group.points[0].experiment.config["model"] == alone["model"]


def test_a_sweep_reads_the_same_from_its_file():
    config = compose([*SMALL, "sweep.model=[gru,lstm]", "sweep.algo.gamma=[0.9,0.99]"])
    again = parse_yaml(to_yaml(config))
    assert points(again) == points(config)


WRONG = [
    (["sweep.algo.gama=[0.9]"], "unknown key sweep.algo.gama; did you mean sweep.algo.gamma?"),
    (["sweep.mode=grid2", "sweep.algo.gamma=[0.9]"], "sweep.mode must be 'grid', 'random' or 'search', got 'grid2'"),
    (["sweep.modes=grid"], "unknown key sweep.modes; did you mean sweep.mode?"),
    (["sweep.algo.gamma=[]"], "sweep.algo.gamma must have at least one value"),
    (["sweep.algo.gamma=0.9"], "sweep.algo.gamma must be a list of values, such as [0.9], got 0.9"),
    (["sweep.seed=[1,2]"], "write num_seeds=3"),
    (["sweep.num_seeds=[1,2]"], "write num_seeds=3"),
    (["sweep.log_seconds=[1,2]"], "log_seconds does not change what they compute"),
    (["sweep.wandb.mode=[offline]"], "wandb.mode does not change what they compute"),
    (["sweep.model=[gru,gruu]"], "did you mean model=gru?"),
    (["sweep.model.size=[4]", "sweep.model=[gru]"], "sweep.model and sweep.model.size exclude each other"),
    (["sweep.model=[gru]", "sweep.model.size=[4]"], "sweep.model and sweep.model.size exclude each other"),
    (["sweep.algo.gamma=[0.9,1.5]"], "point 1 (algo.gamma=1.5): algo.gamma must be less than or equal to 1, got 1.5"),
    (["sweep.task.corridor_len=[5,300]"], "point 1 (task.corridor_len=300): task: corridor_len must be at most 256"),
    (["sweep.algo.num_minibatches=[2,3]"], "point 1 (algo.num_minibatches=3): num_envs must be a multiple of"),
    (["sweep.algo.gamma=[0.9,0.90]"], "points 0 (algo.gamma=0.9) and 1 (algo.gamma=0.9) are the same run"),
    (["sweep.algo.gamma=[1,1.0]"], "points 0 (algo.gamma=1) and 1 (algo.gamma=1.0) are the same run"),
    (["sweep.algo.gamma=uniform(0.9,0.99)"], "is a range: set sweep.mode=random"),
    (["sweep.algo.gamma=uniform(0.9,0.99)", "sweep.mode=random"], "set sweep.samples=100"),
    ([*RANDOM, "sweep.algo.gamma=uniform(0.99,0.9)"], "write uniform(0.9, 0.99)"),
    ([*RANDOM, "sweep.algo.gamma=uniform(0.9,0.9)"], "write [0.9]"),
    ([*RANDOM, "sweep.algo.gamma=uniform(0.9)"], "must have two numbers"),
    ([*RANDOM, "sweep.algo.gamma=uniform(0.9,inf)"], "must have two numbers"),
    ([*RANDOM, "sweep.algo.gamma=normal(0,1)"], "must be a list, or uniform(a, b), loguniform(a, b) or choice"),
    ([*RANDOM, "sweep.algo.gamma=unifrom(0,1)"], "did you mean uniform(0,1)?"),
    ([*RANDOM, "sweep.algo.learning_rate=loguniform(0,1)"], "must have bounds above 0"),
    ([*RANDOM, "sweep.task.corridor_len=uniform(3,5.5)"], "must have whole bounds"),
    ([*RANDOM, "sweep.task.corridor_len=uniform(3,5)"], "these axes have only 3 different points"),
    ([*RANDOM, "sweep.algo.gamma=choice()"], "must have at least one value"),
    (["sweep.file=none.csv"], "sweep.file=none.csv cannot be read: no such file"),
    (["sweep.file=none.csv", "sweep.algo.gamma=[0.9]"], "sweep.file and sweep.algo.gamma exclude each other"),
    (["sweep.points=[]"], "sweep.points must have at least one point"),
    (["sweep.points=[{algo.gamma: 0.9},{algo.gama: 0.9}]"], "did you mean sweep.algo.gamma?"),
    (["sweep.points=[{algo.gamma: 0.9},{algo.vf_coef: 0.9}]"], "point 1 must have the keys of the first"),
    (["sweep.algo.gamma=[0.9"], "must be a list such as [1, 2] or a range"),
    (["sweep=3"], "sweep is a section"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[" ".join(options) for options, _ in WRONG])
def test_wrong_sweeps_are_named(options, message):
    with pytest.raises(ConfigError) as error:
        plan_of(*options)
    assert message in str(error.value) and str(error.value).isprintable() and len(str(error.value)) < 1_000


def test_a_table_with_a_gap_is_named(tmp_path):
    file = tmp_path / "points.csv"
    file.write_text("algo.gamma,task.corridor_len\n0.9,5\n0.99,\n")
    with pytest.raises(ConfigError, match=r"row 2 has no value of task.corridor_len"):
        points_of(f"sweep.file={file}")
