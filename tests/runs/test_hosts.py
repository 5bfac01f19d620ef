"""Several processes that train together: equal to one process, ended together, written by the first alone."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.errors import ConfigError
from src_pure.runs.channel import Channel
from src_pure.runs.hosts import Group, Place, place_of
from src_pure.runs.programs import Programs
from src_pure.runs.shared import Follower, SharedPrograms, filled, follow, shares
from tests.conftest import REPOSITORY
from tests.runs.conftest import OPTIONS
from tests.runs.disturbing import assert_same_run
from tests.test_command_line import TINY

LANES = [
    *OPTIONS,
    "num_seeds=5",
    "lanes_per_block=1",
    "total_steps=32000",
    "evaluation.interval=250",
    "log_seconds=0.2",
]
LANES += ["checkpoint.updates=200"]
JAX = {"JAX_COORDINATOR_ADDRESS": "n1:1234", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "2"}
SLURM = {"SLURM_JOB_ID": "17", "SLURM_STEP_NODELIST": "n[03-05,9],m1", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"}


def start(arguments, devices=2, **variables):
    """A process of trainer_pure.py with some number of host devices."""
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"} | variables
    command = [sys.executable, "trainer_pure.py", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment, **pipes)


def started(*commands):
    """Processes that train together, one for each list of arguments."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    variables = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(len(commands))}
    return [start(x, **variables, JAX_PROCESS_ID=str(i)) for i, x in enumerate(commands)]


def ended(processes):
    """(exit code, standard output, standard error) of each process."""
    try:
        ends = [process.communicate(timeout=400) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *end) for process, end in zip(processes, ends, strict=True)]


def trained(*arguments, processes=2):
    """Trains with four devices in all, to the end; only the first process says anything."""
    ends = ended([start(arguments, devices=4)] if processes == 1 else started(*[arguments] * processes))
    assert [code for code, *_ in ends] == [0] * processes, ends
    assert "update 500/500" in ends[0][1]
    assert [end[1:] for end in ends[1:]] == [("", "")] * (processes - 1)


@contextlib.contextmanager
def training(folder, *arguments):
    """Two processes that train together, after the first update."""
    processes = started(*[[*arguments, f"run_dir={folder}"]] * 2)
    until = time.monotonic() + 200
    while not (folder / "metrics.parquet").exists():
        assert time.monotonic() < until, ended(processes)
        time.sleep(0.1)
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a training in one process with four devices."""
    folder = tmp_path_factory.mktemp("hosts") / "whole"
    trained(*LANES, f"run_dir={folder}", processes=1)
    return folder


@pytest.mark.slow
def test_two_processes_equal_one_with_as_many_devices(whole, tmp_path):
    trained(*LANES, f"run_dir={tmp_path / 'run'}")
    assert_same_run(whole, tmp_path / "run")
    assert sorted(os.listdir(tmp_path / "run")) == sorted(os.listdir(whole))


@pytest.mark.slow
@pytest.mark.parametrize("to", ["one", "all"])
def test_a_signal_to_any_process_saves_and_ends_all_and_any_number_continues(whole, tmp_path, to):
    folder = tmp_path / "run"
    with training(folder, *LANES) as processes:
        for process in processes[1:] if to == "one" else processes:
            process.send_signal(signal.SIGTERM)
        ends = ended(processes)
    assert [code for code, *_ in ends] == [75, 75], ends
    saved = max(os.listdir(folder / "checkpoints"), key=int)
    assert ends[0][2].count(f"stopped by SIGTERM after update {saved} of 500") == 1 and ends[1][2] == ""
    other = shutil.copytree(folder, tmp_path / "other")
    trained(*LANES, f"run_dir={folder}")
    trained(*LANES, f"run_dir={other}", processes=1)
    assert_same_run(whole, folder)
    assert_same_run(whole, other)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_no_process_waits_for_one_that_was_killed(tmp_path, killed):
    folder = tmp_path / "run"
    with training(folder, *LANES, "total_steps=1e7") as processes:
        processes[killed].kill()
        begun = time.monotonic()
        ends = ended(processes)
    assert time.monotonic() - begun < 60
    assert ends[killed][0] == -signal.SIGKILL
    code, _, error = ends[1 - killed]
    assert code in (6, -signal.SIGABRT), error  # jax aborts if it is the first to notice
    if code == 6:
        last = error.splitlines()[-1]  # jax may write something before it
        assert last.startswith("error: ") and f"process {killed}" in last and "continues" in last


@pytest.mark.slow
def test_what_is_wrong_ends_all_processes_with_one_line_of_the_first(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for arguments, text in (
        (["algo.learning_rate=fast"], "algo.learning_rate"),
        (["algo.num_minibatches=3"], "num_minibatches"),
        ([*LANES, f"run_dir={tmp_path / 'mine'}"], "not empty"),
        (["--wrong"], "--wrong"),
    ):
        (first, second) = ended(started(arguments, arguments))
        assert first[0] == second[0] == 2, (first, second)
        assert first[2].count("\n") == 1 and text in first[2]
        assert second[1:] == ("", "")
    first, second = ended(started(*[["sweep.mode=search", "sweep.algo.learning_rate=loguniform(1e-4,1e-1)"]] * 2))
    assert first[0] == second[0] == 2 and "processes of their own" in first[2]
    first, second = ended(started(LANES, [*LANES, "seed=4"]))
    assert first[0] == second[0] == 2
    assert "must have one command" in first[2] and second[2] == ""


@pytest.mark.slow
def test_a_sweep_is_trained_by_all_processes_together(tmp_path):
    sweep = [*OPTIONS, "sweep.algo.learning_rate=[1e-3,1e-4]", "sweep.lanes_per_batch=2"]
    ends = ended(started(*[[*sweep, f"run_dir={tmp_path / 'run'}"]] * 2))
    assert [code for code, *_ in ends] == [0, 0], ends
    assert set(pd.read_parquet(tmp_path / "run" / "runs.parquet")["state"]) == {"finished"}
    alone = ended([start([*sweep, f"run_dir={tmp_path / 'alone'}"])])
    assert alone[0][0] == 0
    for batch in ("000", "001"):
        tables = [pd.read_parquet(tmp_path / x / "batches" / batch / "metrics.parquet") for x in ("run", "alone")]
        pd.testing.assert_frame_equal(*tables, rtol=1e-4, atol=1e-5)


@pytest.fixture
def group():
    """Process 0 of two that share this one; the other has the command `trainer_pure.py right`."""
    one, other = map(Channel, connected())
    follower = threading.Thread(target=follow, args=(other, Follower(["right"], list)), daemon=True)
    follower.start()
    found = Group(Place(0, 2, "here:1"), [one])
    yield found
    found.end(0)
    follower.join(10)
    assert not follower.is_alive() and not found.lost
    one.close()
    other.close()


def test_lanes_of_two_processes_get_the_bits_of_one(group):
    """Five lanes, in blocks of two: the other process has the last one alone."""
    experiment = build(compose([*TINY, "num_seeds=5", "lanes_per_block=2", "log_seconds=5"]))
    whole, shared = Programs().of(experiment, None, None), SharedPrograms(group).of(experiment, None, None)
    assert len(shared.lanes) == 5 and shared.kept == [4, 1] and shared.blocks.width == whole.blocks.width == 2

    def results(program):
        state = program.init()
        first = program.gather(state)  # before the segment, which reuses its memory
        state, metrics = program.segment(state, 3)
        return first, metrics, program.evaluate(state, 3), program.completed(state), program.gather(state)

    found = results(shared)
    jax.tree.map(np.testing.assert_array_equal, results(whole), found)
    again = shared.gather(shared.scatter(found[-1]))
    jax.tree.map(np.testing.assert_array_equal, found[-1], again)


def test_an_error_of_another_process_is_that_of_the_first(group):
    group.refuse_other_commands(["right"])
    with pytest.raises(ConfigError, match="must have one command, process 1 has another"):
        group.refuse_other_commands(["wrong"])
    with pytest.raises(ConfigError, match=r"process 1: task must be one of"):
        wrong = {"do": "compile", "config": "num_envs: many", "lanes": [0], "warm_start": None, "width": 1}
        group.call(lambda: None, [(wrong, ())])
    with pytest.raises(ZeroDivisionError):
        group.call(lambda: 1 // 0, [({"do": "arguments"}, ())])
    group.refuse_other_commands(["right"])  # the answers before it were read


def test_where_this_process_stands():
    assert place_of({}) is None
    assert place_of(JAX) == Place(2, 4, "n1:1234")
    assert place_of(JAX | {"JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}) is None
    assert place_of(SLURM) == Place(3, 4, "n03:61457", [0])
    assert place_of(SLURM | {"SLURM_STEP_NUM_NODES": "4"}) == Place(3, 4, "n03:61457")
    assert place_of(SLURM | {"SLURM_LOCALID": "1"}).devices == [1]
    assert place_of(SLURM | {"SLURM_STEP_NODELIST": "m1,n2", "JAX_COORDINATOR_PORT": "99"}).coordinator == "m1:99"
    assert place_of({name: SLURM[name] for name in SLURM if name != "SLURM_STEP_NODELIST"}) is None
    assert place_of(SLURM | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}) is None


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"JAX_PROCESS_ID": "4"}, "from 0 to 3"),
        ({"JAX_PROCESS_ID": "-1"}, "JAX_PROCESS_ID must be a whole number"),
        ({"JAX_NUM_PROCESSES": ""}, "need JAX_NUM_PROCESSES"),
        ({"JAX_COORDINATOR_ADDRESS": "n1"}, "HOST:PORT"),
    ],
)
def test_wrong_variables_are_refused_by_name(wrong, text):
    with pytest.raises(ConfigError, match=text):
        place_of(JAX | wrong)


@pytest.mark.parametrize("num_lanes", [1, 4, 5, 6, 7, 17, 64])
@pytest.mark.parametrize("devices", [[2, 2], [1, 1, 1], [4, 1], [8]])
@pytest.mark.parametrize("width", [1, 2, 3])
def test_shares_are_whole_blocks_that_leave_out_nothing(num_lanes, devices, width):
    found = shares(num_lanes, width, devices)
    assert [lane for share in found for lane in share] == list(range(num_lanes))
    assert all(share.start % width == 0 for share in found if share)
    rounds = [-(-len(share) // (width * n)) for share, n in zip(found, devices, strict=True)]
    assert max(rounds) == -(-num_lanes // (width * sum(devices)))
    for share, n in zip(found, devices, strict=True):
        lanes = filled(share, num_lanes, width * n)
        assert lanes[: len(share)] == list(share) and len(lanes) >= width * n
        assert set(lanes[len(share) :]) <= {num_lanes - 1}


def test_messages_keep_every_bit():
    arrays = [
        np.array(3, np.int32),
        np.zeros((2, 0, 3), np.float32),
        np.array([[np.nan, -0.0], [1e-45, np.inf]], np.float32).T,
        np.asarray(jnp.arange(5, dtype=jnp.bfloat16)),
        np.array([True, False]),
    ]
    one, other = map(Channel, connected())
    one.send({"update": 3, "text": "ü"}, arrays)
    values, received = other.receive()
    assert values == {"update": 3, "text": "ü"}
    for sent, got in zip(arrays, received, strict=True):
        assert sent.dtype == got.dtype and sent.shape == got.shape and sent.tobytes() == got.tobytes()
    one.connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(ConnectionError, match="not a message"):
        other.receive()
    one.close()
    with pytest.raises(ConnectionError):
        other.receive()
    other.close()


def connected():
    """Two ends of a connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        return one, server.accept()[0]
