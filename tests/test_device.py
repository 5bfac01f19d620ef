"""Wrong machine settings and sizes give a one-line error before anything is built, not a traceback or a hang."""

import os
import subprocess
import sys

import jax
import pytest

import trainer_pure
from src_pure import device
from src_pure.config.compose import compose
from src_pure.device import check_fits, device_error
from src_pure.errors import ConfigError, DeviceError
from src_pure.runs import programs
from tests.conftest import REPOSITORY
from tests.runs.conftest import OPTIONS


def start(*arguments, **variables):
    command = [sys.executable, "trainer_pure.py", *OPTIONS, *map(str, arguments)]
    environment = os.environ | variables
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120)


DEBUGGING = {
    "JAX_DISABLE_JIT": "1",
    "JAX_DEBUG_NANS": "1",
    "JAX_DEBUG_KEY_REUSE": "1",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_TRANSFER_GUARD": "disallow",
}


@pytest.mark.parametrize(
    ("variables", "error"),
    [
        ({"JAX_PLATFORMS": "nope"}, "error: JAX_PLATFORMS=nope finds no device: "),
        *(
            pytest.param({name: value}, f"error: {name}=", marks=[pytest.mark.slow] * (name != "JAX_DISABLE_JIT"))
            for name, value in DEBUGGING.items()
        ),
        ({"JAX_ENABLE_X64": "maybe"}, "error: the program cannot start: "),
    ],
)
def test_settings_without_a_device_are_one_line(tmp_path, variables, error):
    done = start(f"run_dir={tmp_path / 'run'}", **variables)
    assert done.returncode == 2 and done.stderr.startswith(error) and done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", DEBUGGING)
def test_a_setting_of_jax_that_breaks_trainings_is_one_line(tmp_path, capsys, name):
    """In this process; the environment variables above are how a user sets them."""
    value, before = {"1": True}.get(DEBUGGING[name], DEBUGGING[name]), jax.config.values[name.lower()]
    jax.config.update(name.lower(), value)
    try:
        assert trainer_pure.main([*OPTIONS, f"run_dir={tmp_path / 'run'}"]) == 2
    finally:
        jax.config.update(name.lower(), before)
    error = capsys.readouterr().err
    assert error.startswith(f"error: {name}={value} ") and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["num_seeds=2147483640"], "the state of a training with its table of metrics needs"),
        (["num_seeds=2147483647"], "seed + num_seeds must be at most 2**31"),
        (["seed=2147483647"], "seed + num_seeds must be at most 2**31"),
        (["log_seconds=null", "total_steps=9223372036854775807"], "total_steps must be below 2**31 updates"),
        (["log_seconds=null", "total_steps=100000000000"], "the state of a training with its table of metrics needs"),
        (["num_envs=500000000", "algo.update_epochs=1", "total_steps=1e12"], "the state of a training"),
    ],
)
def test_sizes_beyond_the_machine_are_one_line(tmp_path, capsys, options, error):
    assert trainer_pure.main([*OPTIONS, *options, f"run_dir={tmp_path / 'run'}"]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"error: {error}") and line.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_what_would_fit_is_said(monkeypatch):
    monkeypatch.setattr(device, "device_memory", lambda: 10 * 2**30)
    check_fits(10 * 2**30, 100, "a training")
    with pytest.raises(ConfigError, match=r"40.0 GiB for num_seeds=100, .* 10.0 GiB; at most num_seeds=25 can fit"):
        check_fits(40 * 2**30, 100, "a training")
    with pytest.raises(ConfigError, match="choose a smaller num_envs, num_steps or model"):
        check_fits(40 * 2**30, 1, "a training")


@pytest.mark.slow
def test_memory_is_compared_with_what_the_compiled_program_needs(tmp_path, monkeypatch, capsys):
    memory = iter([2**40, 1000])
    monkeypatch.setattr(device, "device_memory", lambda: next(memory, 1000))
    assert trainer_pure.main([*OPTIONS, f"run_dir={tmp_path / 'run'}"]) == 2
    assert "error: an update needs 0.0 GiB for num_seeds=2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "kind", "code", "text"),
    [
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes"), ConfigError, 2, "smaller"),
        (MemoryError(), ConfigError, 2, "smaller num_seeds"),
        (jax.errors.JaxRuntimeError("INTERNAL: the device fell off"), DeviceError, 6, "the device fell off"),
    ],
)
def test_errors_of_the_device_are_one_line(tmp_path, monkeypatch, capsys, error, kind, code, text):
    assert isinstance(device_error(error), kind)

    def fail(*_):
        raise error

    monkeypatch.setattr(programs, "compile_program", fail)
    assert trainer_pure.main([*OPTIONS, f"run_dir={tmp_path / 'run'}"]) == code
    line = capsys.readouterr().err
    assert text in line and line.count("\n") == 1


@pytest.mark.slow
def test_a_path_with_letters_that_the_terminal_has_not(tmp_path):
    done = start(f"run_dir={tmp_path / 'läufe'}", "total_steps=64", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "l\\xe4ufe" in done.stdout


def test_the_memory_of_a_container_counts(tmp_path, monkeypatch):
    whole = device.host_memory()
    for text, wanted in (("1048576\n", 2**20), ("max\n", whole), (f"{2**62}\n", whole)):
        (tmp_path / "memory.max").write_text(text)
        monkeypatch.setattr(device, "CGROUP_LIMITS", (str(tmp_path / "memory.max"), str(tmp_path / "missing")))
        assert device.host_memory() == wanted


CORES = (
    "from src_pure.device import spread_over_cores; spread_over_cores(); import jax; print(jax.local_device_count())"
)


@pytest.mark.parametrize(
    ("variables", "number"),
    [
        ({}, device.num_cores()),
        ({"JAX_NUM_CPU_DEVICES": "3"}, 3),
        ({"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}, 3),
    ],
)
def test_each_core_is_a_device_unless_the_user_says_otherwise(variables, number):
    environment = {name: value for name, value in os.environ.items() if name != "JAX_NUM_CPU_DEVICES"} | variables
    done = subprocess.run(
        [sys.executable, "-c", CORES], cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )
    assert done.stdout == f"{number}\n", done.stderr


@pytest.mark.parametrize(
    ("options", "many"),
    [
        (["num_seeds=15"], False),
        (["num_seeds=16"], True),
        (["num_seeds=1e3"], True),
        (["num_seeds=many"], False),
        (["num_seeds=16", "devices=envs"], False),
        (["sweep.algo.learning_rate=[1e-3,1e-4]"], True),
    ],
)
def test_many_runs_are_spread_over_cores(options, many):
    assert trainer_pure.has_many_runs(compose([*OPTIONS, *options])) == many
