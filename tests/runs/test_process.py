"""Settings of the process that change numbers: the generator is ours, others are recorded and refused by name."""

import json

import jax
import numpy as np
import pytest

import trainer_pure
from src_pure.lanes import SeedLanes, evaluation_keys, training_keys
from src_pure.runs import process, resume
from src_pure.runs.process import differences, numeric_settings, xla_flags
from tests.runs.conftest import OPTIONS
from tests.runs.test_identity import snapshot


def test_keys_are_those_of_each_seed_alone():
    """As jax.random gives them one by one, whatever the default generator of the process."""
    for generator in ("threefry2x32", "rbg", "unsafe_rbg"):
        with jax.default_prng_impl(generator):
            keys, evaluation = training_keys(SeedLanes(range(7, 10))), evaluation_keys(SeedLanes(range(7, 10)), 12)
        for number, seed in enumerate(range(7, 10)):
            train, evaluate = jax.random.split(jax.random.key(seed, impl="threefry2x32"))
            np.testing.assert_array_equal(jax.random.key_data(keys[number]), jax.random.key_data(train))
            wanted = jax.random.fold_in(evaluate, 12)
            np.testing.assert_array_equal(jax.random.key_data(evaluation[number]), jax.random.key_data(wanted))


def test_the_largest_seed_has_a_key():
    seed = 2**31 - 1
    wanted = jax.random.split(jax.random.key(seed, impl="threefry2x32"))[0]
    np.testing.assert_array_equal(jax.random.key_data(training_keys(SeedLanes([seed]))[0]), jax.random.key_data(wanted))


@pytest.mark.slow
def test_a_run_does_not_depend_on_the_generator_of_the_process(unbroken, tmp_path):
    folder = tmp_path / "run"
    with jax.default_prng_impl("rbg"):
        assert trainer_pure.main([*OPTIONS, f"run_dir={folder}"]) == 0
    for name in ("metrics.parquet", "evaluation.parquet"):
        before, now = (process_free(path / name) for path in (unbroken, folder))
        assert before.equals(now)


def process_free(path):
    import pyarrow.parquet as pq

    return pq.read_table(path).replace_schema_metadata(None)


def test_settings_are_in_checkpoints_and_the_summary(unbroken):
    now = json.loads(json.dumps(numeric_settings()))
    assert {"version of jax", "jax_threefry_partitionable", "jax_enable_x64", "XLA_FLAGS", "device_kind"} <= set(now)
    files = [unbroken / "summary.json", *unbroken.glob("checkpoints/*/checkpoint.json")]
    assert all(json.loads(file.read_text())["process"] == now for file in files)


@pytest.mark.parametrize(
    "name", ["jax_threefry_partitionable", "jax_default_matmul_precision", "jax_enable_x64", "XLA_FLAGS",
             "device_kind", "threads", "version of jaxlib"]
)  # fmt: skip
def test_other_settings_are_refused_by_name(to_continue, monkeypatch, capsys, name):
    monkeypatch.setattr(resume, "numeric_settings", lambda: numeric_settings() | {name: "another"})
    before = snapshot(to_continue)
    assert trainer_pure.main([*OPTIONS, f"run_dir={to_continue}"]) == 2
    error = capsys.readouterr().err
    assert f"{name} is 'another', was " in error and "resume_anyway=true" in error and error.count("\n") == 1
    assert snapshot(to_continue) == before


def test_resume_anyway_goes_on_and_the_summary_says_so(to_continue, monkeypatch, capsys):
    monkeypatch.setattr(resume, "numeric_settings", lambda: numeric_settings() | {"device_kind": "another"})
    assert trainer_pure.main([*OPTIONS, f"run_dir={to_continue}", "resume_anyway=true"]) == 0
    assert "under other settings of the process: device_kind is 'another'" in capsys.readouterr().err
    [noted] = json.loads((to_continue / "summary.json").read_text())["continued_under_other_settings"]
    assert noted["update"] == 9 and noted["differences"][0].startswith("device_kind is 'another', was ")


def test_flags_of_xla_are_compared_as_they_are_meant():
    assert xla_flags("--b=2 --a --xla_dump_to=/tmp --xla_force_host_platform_device_count=4") == "--a --b=2"
    assert xla_flags("--a=1 --a=2") == xla_flags("  --a=2") == "--a=2"
    assert xla_flags("") == ""


def test_differences_name_what_is_new_and_what_is_gone():
    assert differences({"a": 1, "b": 2}, {"b": 3, "c": 4}) == ["a is None, was 1", "b is 3, was 2", "c is 4, was None"]


def test_every_recorded_flag_exists():
    """So that a renamed flag is noticed when jax is updated; one is new in jax 0.11."""
    missing = {name for name in process.FLAGS if name not in jax.config.values}
    assert missing <= {"jax_use_hlo_logistic_lowering"}
