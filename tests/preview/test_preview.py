"""Devices that are not here: their names, the bound, what does not fit, and numbers that may not grow."""

import json
import os
import shlex
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import jax
import pytest

from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.errors import ConfigError
from src_pure.preview import compiling
from src_pure.preview.compiling import Cost, PlacedBlocks, Preview, check_room, require
from src_pure.preview.counting import BYTES, LAUNCHES, Counted, Loop, Part, count
from src_pure.preview.devices import DEVICES, target_of
from src_pure.preview.hlo import parse
from src_pure.preview.report import lines, values
from src_pure.preview.roofline import bound
from src_pure.preview.table import changes, read_table
from src_pure.runs.mesh import mesh_of
from tests.conftest import REPOSITORY
from tests.test_command_line import TINY

GATE = REPOSITORY / "tests" / "data" / "preview.json"
H100 = DEVICES["h100"]


@pytest.mark.parametrize(
    ("text", "topology", "number"),
    [
        ("h100", "1x1x1", 1),
        ("a100:8", "1x1x8", 8),
        ("v5e", "v5e:2x2", 1),
        ("v5e:4x4", "v5e:4x4", None),
        ("v4:2x2x4", "v4:2x2x4", None),
    ],
)
def test_a_target_is_a_kind_and_a_size(text, topology, number):
    target = target_of(text)
    assert (target.topology, target.number) == (topology, number)


@pytest.mark.parametrize("text", ["", "h100:", "h100:0", "h100:2x2", "v5e:4", "v5e:2x2x2x2", "H100", "tpu", "x" * 999])
def test_an_unknown_device_is_one_line_with_the_known_ones(text):
    with pytest.raises(ConfigError, match=r"one of a100, h100, h200, v4, v5e, v5p, v6e;.* got") as caught:
        target_of(text)
    assert len(str(caught.value)) < 320


def test_a_missing_compiler_names_the_extra(monkeypatch):
    monkeypatch.setattr(compiling, "find_spec", lambda name: None)
    for name, extra in (("h100", "preview-gpu"), ("v5e", "preview-tpu")):
        with pytest.raises(ConfigError, match=rf"uv pip install '\.\[{extra}\]'"):
            require(DEVICES[name])


def counted(launches, num_bytes, full=0, scope="learning"):
    return Counted(
        Counter({Part(scope, LAUNCHES): launches, Part(scope, BYTES): num_bytes, Part(scope, "float32"): full})
    )


def test_the_bound_is_the_slowest_resource():
    """H100: 3 microseconds a launch, 3.352 TB/s, 67 TFLOP/s."""
    cases = [(counted(1000, 1), "launches", 3e-3), (counted(1, 3352 * 10**9), "memory", 1.0)]
    for what, resource, seconds in [*cases, (counted(1, 1, 67 * 10**12), "arithmetic", 1.0)]:
        least = bound(what, H100)
        assert least.resource == resource and least.seconds == pytest.approx(seconds)
    assert bound(counted(1000, 1), DEVICES["v5e"]).launches == 0.0
    assert bound(counted(1000, 1), H100, "acting").seconds == 0.0


def test_a_report_has_the_numbers_and_warns_of_loops():
    loops = (Loop("jit(f)/while", "environment", 2, 9, False), Loop("jit(f)/a/while/body/b", "learning", 128, 7, True))
    cost = Cost(12.0, 1_000_000, 2_000_000, 3_000_000, replace(counted(1000, 10**6), loops=loops))
    found = Preview("tmaze", target_of("h100"), 1, 64, 2, 32, 32, 1024, 50_000, cost, None)
    text = "\n".join(lines(found))
    assert "lanes: 64, in blocks of 32" in text and "one update of one block: 32,768 environment steps" in text
    assert "at least 0.003 s, by launches" in text and "at least 0.006 s for all lanes" in text
    assert "128 turns x 7 launches in learning, jit(f)/a/b" in text
    assert "of unknown length, counted as one turn: environment (9 launches)" in text
    table = json.loads(json.dumps(values(found)))
    assert table["training"]["launches in learning"] == 1000 and "evaluation" not in table


@pytest.mark.parametrize(
    ("needed", "waiting", "advice"),
    [
        (0.5, 8.0, r"about num_seeds=\d+ would fit"),
        (4.0, 0.0, "about lanes_per_block=[12] would fit"),
        (20.0, 0.0, "about num_envs=[1-7] would fit"),
        (1e6, 0.0, "choose a smaller num_steps or model"),
    ],
)
def test_what_does_not_fit_says_what_would(needed, waiting, advice):
    """needed, waiting: parts of the device's memory."""
    experiment = build(compose([*TINY, "num_envs=8", "num_seeds=40"]))
    blocks = PlacedBlocks(40, 8, mesh_of(1))
    check_room(experiment, target_of("h100"), blocks, H100.memory // 2, H100.memory // 2)
    with pytest.raises(ConfigError, match=advice):
        check_room(experiment, target_of("h100"), blocks, int(needed * H100.memory), int(waiting * H100.memory))


def test_a_table_compares_numbers_of_the_same_name():
    old = {"a": {"launches": 100, "compile_seconds": 1.0, "jax": "1"}, "steps_per_second": 10.0, "only old": 1}
    new = {"a": {"launches": 106, "compile_seconds": 9.0, "jax": "2"}, "steps_per_second": 9.0}
    found = {change.name: change for change in changes(old, new)}
    assert found.keys() == {"a: launches", "steps_per_second"}
    assert all(change.is_worse for change in found.values())
    assert not any(change.is_worse for change in changes(old, old))


@pytest.mark.parametrize(("grown", "code"), [(1.04, 0), (1.06, 1), (0.5, 0)])
def test_the_exit_code_says_whether_a_number_grew(tmp_path, capsys, grown, code):
    for name, factor in (("old", 1.0), ("new", grown)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"x": {"bytes": 100 * factor}}))
    command = [sys.executable, REPOSITORY / "scripts" / "bench_compare.py", "old.json", "new.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment())
    assert done.returncode == code and "x: bytes" in done.stdout, done.stderr


def environment():
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}


def skip_without_compiler(device):
    try:
        require(device)
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(read_table(GATE)))
def test_programs_do_not_grow(tmp_path, command):
    """scripts/preview.py COMMAND --only training --add tests/data/preview.json writes the numbers again."""
    *_, name = arguments = shlex.split(command)
    skip_without_compiler(target_of(name).device)
    wanted = read_table(GATE)[command]
    if wanted["jax"] != jax.__version__:
        pytest.skip(f"the numbers are those of jax {wanted['jax']}")
    script = [sys.executable, REPOSITORY / "scripts" / "preview.py", *arguments, "--only", "training"]
    done = subprocess.run([*script, "--json", tmp_path / "new.json"], capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    worse = [str(change) for change in changes(wanted, read_table(tmp_path / "new.json")) if change.is_worse]
    assert not worse, "\n".join(worse)


TOY = """
import sys, jax, numpy as np
jax.config.update("jax_platforms", "cpu")
from jax.sharding import NamedSharding, PartitionSpec
from src_pure.preview.compiling import devices_of, uncached
from src_pure.preview.devices import target_of
from src_pure.runs.mesh import mesh_of
place = NamedSharding(mesh_of(1, devices=devices_of(target_of("h100"))), PartitionSpec())
x = jax.ShapeDtypeStruct((64, 64), np.float32, sharding=place)
scan = lambda x, w: jax.lax.scan(lambda x, _: (jax.numpy.dot(x, w, precision="highest"), None), x, None, 17)[0]
with uncached():
    print(jax.jit(scan).trace(x, x).lower(lowering_platforms=("cuda",)).compile().as_text())
"""


@pytest.mark.slow
def test_a_toy_program_is_counted_as_theory_says():
    """x <- x w, 17 times, of 64 x 64: a product and the loop's counter in each turn, and copies."""
    skip_without_compiler(H100)
    done = subprocess.run([sys.executable, "-c", TOY], capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    found, matrix = count(parse(done.stdout)), 64 * 64 * 4
    assert found.total("float32") == 17 * 2 * 64**3
    assert 17 * 2 <= found.total(LAUNCHES) <= 17 * 3 + 5
    assert 17 * 3 * matrix <= found.total(BYTES) <= 17 * (3 + 2) * matrix + 5 * 2 * matrix
