"""Lanes in blocks: one program for any number of them, and each gets the numbers that it gets alone."""

import json

import jax
import numpy as np
import pandas as pd
import pytest

import trainer_pure
from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.experiment import side_by_side
from src_pure.runs.arrays import named_arrays
from src_pure.runs.blocks import Blocks, blocks_of, bytes_of_lane, fitting
from src_pure.runs.health import failures
from src_pure.runs.mesh import mesh_of
from src_pure.runs.program import compile_program
from tests.runs.conftest import OPTIONS
from tests.runs.disturbing import assert_same_run, interrupted
from tests.test_command_line import TINY

UPDATES = 20


def program_of(*options):
    return compile_program(build(compose([*TINY, "log_seconds=5", *options])))


def trained(program, num_updates=UPDATES):
    """(state, metrics [U, R], evaluation metrics [R] of each mode)."""
    state, metrics = program.segment(program.init(), num_updates)
    return state, metrics, program.evaluate(state, num_updates)


@pytest.fixture(scope="module")
def five():
    """(program, results) of seeds 3 to 7 in blocks of two, the last one half empty."""
    program = program_of("seed=3", "num_seeds=5", "lanes_per_block=2")
    return program, trained(program)


def each(results):
    """(name, array [..., R]) of all metrics."""
    _, metrics, evaluation = results
    yield from metrics.items()
    for mode, values in evaluation.items():
        yield from ((f"{mode} {name}", x) for name, x in values.items())


def test_two_lanes_of_a_block_are_the_same_two_alone_bit_for_bit(five):
    """In the block that is filled up, too."""
    _, results = five
    for first in (0, 2):
        alone = trained(program_of(f"seed={3 + first}", "num_seeds=2"))
        for (name, many), (_, two) in zip(each(results), each(alone), strict=True):
            np.testing.assert_array_equal(many[..., first : first + 2], two, err_msg=name)
    repeated = trained(program_of("seed=7", "num_seeds=2", "lanes_per_block=2"))
    for (name, many), (_, two) in zip(each(results), each(repeated), strict=True):
        np.testing.assert_allclose(many[..., 4], two[..., 0], rtol=1e-6, atol=1e-7, err_msg=name)


def test_blocks_equal_one_block_up_to_rounding(five):
    _, results = five
    one = trained(program_of("seed=3", "num_seeds=5"))
    assert len(one[0]) == 1 and len(results[0]) == 3
    for (name, blocks), (_, whole) in zip(each(results), each(one), strict=True):
        assert blocks.shape == whole.shape and blocks.shape[-1] == 5
        np.testing.assert_allclose(blocks, whole, rtol=1e-5, atol=1e-5, err_msg=name)


def test_a_state_is_gathered_without_the_filling_and_scattered_bit_for_bit(five):
    program, (state, *_) = five
    gathered = program.gather(state)
    assert {x.shape[0] for x in jax.tree.leaves(gathered)} == {5}
    assert program.completed(state).tolist() == [UPDATES] * 5
    again = program.scatter(gathered)
    assert len(again) == 3 and {x.shape[0] for x in jax.tree.leaves(again)} == {2}
    for before, after in zip(state, again, strict=True):
        assert before.key.dtype == after.key.dtype
        jax.tree.map(np.testing.assert_array_equal, named_arrays(before), named_arrays(after))


def test_blocks_are_filled_with_the_last_lane():
    blocks = Blocks(num_lanes=5, width=2, mesh=mesh_of(1))
    tree = {"number": np.arange(5.0), "key": jax.random.split(jax.random.key(0), 5)}
    split = blocks.split(tree)
    assert [each["number"].tolist() for each in split] == [[0, 1], [2, 3], [4, 4]]
    joined = blocks.join(split)
    np.testing.assert_array_equal(joined["number"], tree["number"])
    np.testing.assert_array_equal(joined["key"], jax.random.key_data(tree["key"]))


@pytest.mark.parametrize(
    ("even", "most", "width"),
    [(5, 16, 5), (16, 16, 16), (17, 16, 12), (64, 16, 16), (25, 16, 16), (9, 8, 6), (3, 1, 1), (3, 2, 2)],
)
def test_the_width_leaves_few_lanes_to_fill_up(even, most, width):
    assert fitting(even, most) == width


def test_the_width_follows_from_the_bytes_of_a_lane(monkeypatch):
    experiment = build(compose([*TINY, "num_seeds=64"]))
    state = program_of().init()
    trajectory = 4 * 16 * 80  # T x B x bytes of ten observed bits or distractors and the rest
    of_state = sum(x.nbytes for x in named_arrays(state).values())
    assert of_state < bytes_of_lane(experiment) < of_state + 2 * trajectory
    monkeypatch.setattr("src_pure.runs.blocks.CACHE_BYTES", 9 * bytes_of_lane(experiment))
    assert blocks_of(experiment).width == 8
    assert blocks_of(experiment, width=5).width == 5
    assert blocks_of(build(compose([*TINY, "num_seeds=64", "lanes_per_block=7"]))).width == 7


def test_a_lane_that_fails_leaves_the_others_of_its_block_alone():
    rates = [1e-3, 1e-3, 1e-3, 1e38, 1e-3]
    points = [build(compose([*TINY, f"seed={i}", f"algo.learning_rate={x}"])) for i, x in enumerate(rates)]
    program = compile_program(build(side_by_side(points).config | {"lanes_per_block": 2}))
    state, metrics, _ = trained(program, 3)
    completed = program.completed(state)
    assert [failure.lane.run for failure in failures(program.lanes, completed, 3)] == [3]
    whole = trained(program_of("seed=0", "num_seeds=5", "algo.learning_rate=1e-3", "lanes_per_block=2"), 3)[1]
    for run in (0, 1, 2, 4):
        np.testing.assert_allclose(metrics["loss"][:, run], whole["loss"][:, run], rtol=1e-6)


def test_a_killed_training_in_blocks_continues_bit_for_bit(monkeypatch, tmp_path):
    """The width it began with stays, whatever would be chosen now."""
    options = [*OPTIONS, "num_seeds=3"]
    monkeypatch.setattr("src_pure.runs.blocks.most_lanes", lambda _: 2)
    assert trainer_pure.main([*options, f"run_dir={tmp_path / 'unbroken'}"]) == 0
    interrupted(monkeypatch, tmp_path / "run", 7, options)
    monkeypatch.setattr("src_pure.runs.blocks.most_lanes", lambda _: 3)
    assert trainer_pure.main([*options, f"run_dir={tmp_path / 'run'}"]) == 0
    assert_same_run(tmp_path / "unbroken", tmp_path / "run")
    for folder in ("unbroken", "run"):
        assert json.loads((tmp_path / folder / "summary.json").read_text())["lanes_per_block"] == 2
        assert set(pd.read_parquet(tmp_path / folder / "metrics.parquet")["run"]) == {0, 1, 2}


def test_any_number_of_lanes_seed_and_updates_is_the_same_program():
    """The compilation cache holds it."""
    before = jax.config.values["jax_persistent_cache_min_compile_time_secs"]
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    try:
        options = "lanes_per_block=2", "model.size=9"  # a program of its own
        program_of(*options, "num_seeds=2")
        cache = program_of(*options, "num_seeds=7", "seed=100", "total_steps=6400").cache
        assert (cache.hits, cache.misses) == (3, 0)
    finally:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", before)
