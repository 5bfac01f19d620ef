"""scripts/bench_device.py: what it records of a case that is not measured; the device and its processes are made up."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from src_pure.preview.counting import SCOPES
from src_pure.preview.devices import Device
from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "scripts"
DEVICE = {"kind": "made up", "jax": "0", "copy bytes_per_second": 1e9}
MEASURED = {"update_seconds": 0.5, "env_steps_per_second": 2000.0, "part_seconds": dict.fromkeys(SCOPES, 0.1)}


@pytest.fixture
def load(monkeypatch):
    """Imports a script by its name."""
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


def processes(*outcomes):
    """What stands for subprocess.run: the device, then one (found, error) for each case; "late" runs out of time."""
    waiting = [(DEVICE, None), *outcomes]

    def run(command, timeout, **_):
        found, error = waiting.pop(0)
        Path(command[2]).write_text(json.dumps(found))
        if error == "late":
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, 2 if error else 0, stderr=(error or "").encode())

    return run


def test_what_is_not_measured_is_recorded_and_measured_by_the_next_command(load, tmp_path, monkeypatch, capsys):
    script, file = load("bench_device"), tmp_path / "table.json"
    names = list(script.CASES)[:3]
    command = ["--json", str(file), "--only", *names]
    refused = "W0000 a warning\nerror: an update needs 99 GiB\nmore"
    outcomes = (MEASURED, None), ({}, refused), ({"compile_seconds": 9.0}, "late")
    monkeypatch.setattr(subprocess, "run", processes(*outcomes))
    assert script.main(command) == 0
    cases = json.loads(file.read_text())["cases"]
    assert cases[names[0]] == MEASURED
    assert cases[names[1]] == {"missing": "an update needs 99 GiB"}
    assert cases[names[2]] == {"compile_seconds": 9.0, "missing": f"not finished within {script.CASES[names[2]]} s"}
    assert "2,000" in capsys.readouterr().out

    monkeypatch.setattr(subprocess, "run", processes((MEASURED, None), (MEASURED, None)))
    assert script.main(command) == 0
    assert json.loads(file.read_text()) == {"device": DEVICE, "cases": dict.fromkeys(names, MEASURED)}


def test_another_device_or_another_table_is_refused(load, tmp_path, monkeypatch, capsys):
    script, file = load("bench_device"), tmp_path / "table.json"
    monkeypatch.setattr(subprocess, "run", processes())
    file.write_text(json.dumps({"device": DEVICE | {"kind": "another"}, "cases": {}}))
    assert script.main(["--json", str(file)]) == 2
    assert "was measured with kind another, this is made up" in capsys.readouterr().err
    file.write_text(json.dumps({"cases": {}}))
    assert script.main(["--json", str(file)]) == 2
    assert "is not a table of scripts/bench_device.py" in capsys.readouterr().err


def test_without_time_for_the_device_there_is_one_line(load, tmp_path, monkeypatch, capsys):
    def run(command, timeout, **_):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", run)
    assert load("bench_device").main(["--json", str(tmp_path / "table.json"), "--seconds", "1"]) == 6
    assert capsys.readouterr().err == "error: the device could not be measured: not finished within 1 s\n"


def test_the_bound_is_of_one_update_of_all_blocks(load, monkeypatch):
    """On a device whose only cost is one second for each byte of its memory."""
    script, found = load("_device_case"), {}
    loop = jax.jit(lambda x, n: lax.fori_loop(0, n, lambda _, x: jnp.sort(x), x))
    program = loop.lower(jnp.zeros(8), jnp.int32(1)).compile()
    script.keep_bound(program, 1, found.__setitem__)
    assert found == {"bound": "none: cpu is not in src_pure/preview/devices.py"}
    monkeypatch.setattr(script, "DEVICES", {"made up": made_up(jax.local_devices()[0].device_kind)})
    script.keep_bound(program, 3, found.__setitem__)
    assert found["bound"] == "memory" and found["bytes"] % 3 == 0
    assert found["bound_seconds"]["memory"] == pytest.approx(found["bytes"], rel=1e-3)
    assert found["bytes"] >= 3 * 2 * 8 * 4  # reads and writes eight numbers


def made_up(kind):
    return Device(kind, "gpu", memory=1, bandwidth=1.0, rates={}, launch_seconds=0.0, cache=0, topology="")


@pytest.mark.slow
def test_tiny_trainings_are_measured(tmp_path):
    file = tmp_path / "table.json"
    command = [sys.executable, FOLDER / "bench_device.py", "--small", "--calls", "1", "--json", file]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    table = json.loads(file.read_text())
    assert len(table["cases"]) == 2
    for case in table["cases"].values():
        assert "missing" not in case and case["part_seconds"].keys() == set(SCOPES)
        assert case["env_steps_per_second"] == pytest.approx(case["env_steps"] / case["update_seconds"], rel=1e-2)
