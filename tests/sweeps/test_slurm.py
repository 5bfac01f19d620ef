"""A real Slurm on this machine: jobs that are preempted, killed, cancelled or out of time continue exactly.

Needs root and the Debian packages slurmctld, slurmd, slurm-client and munge.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest

import trainer_pure
from scripts import submit
from src_pure.sweeps import slurm
from src_pure.sweeps.folder import status_of
from src_pure.sweeps.progress import progress
from tests.conftest import REPOSITORY
from tests.runs.disturbing import assert_same_run
from tests.test_command_line import TINY

pytestmark = pytest.mark.slow

UP = Path(__file__).parent / "slurm_up.sh"
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch")
SMALL = [*TINY, "model.size=4", "policy.head_size=null", "num_envs=2", "num_steps=8", "algo.num_minibatches=1",
         "grace_seconds=4", "log_seconds=0.5", "checkpoint.updates=500"]  # fmt: skip
SWEEP = [*SMALL, "sweep.algo.learning_rate=[1e-3,3e-3]", "sweep.lanes_per_batch=1", "total_steps=192000"]
NAMES = ("000", "001")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The folder of a running Slurm; jobs find this checkout and what the tests compiled."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root and Slurm on this machine: {', '.join(missing) or 'root'} is missing")
    folder = tmp_path_factory.mktemp("slurm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin:/sbin")
        started = subprocess.run(["bash", UP, folder, str(two_free_ports())], capture_output=True, text=True)
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("PYTHONPATH", f"{REPOSITORY}:{os.environ.get('PYTHONPATH', '')}")
        try:
            if started.returncode:
                pytest.skip(f"Slurm does not start on this machine: {started.stderr.strip()}")
            yield folder
        finally:
            subprocess.run(["scancel", "--user=root"], capture_output=True)
            subprocess.run(["bash", UP, folder, "down"])


def two_free_ports():
    """A port that is free together with the next one."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
                return port
            except OSError:
                continue


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The same sweep, trained by one process that nothing disturbed."""
    folder = tmp_path_factory.mktemp("sweeps") / "unbroken"
    assert trainer_pure.main([*SWEEP, f"run_dir={folder}"]) == 0
    return folder


@pytest.fixture
def run(cluster, tmp_path):
    """A folder to train in; its jobs are cancelled at the end."""
    folder = tmp_path / "run"
    yield folder
    if folder.exists():
        slurm.cancel(folder)
        wait(lambda: all(job.ended for job in slurm.jobs_of(folder).values()), 60)


def submitted(run, *options):
    assert submit.main([*SWEEP, f"run_dir={run}", "--partition", "low", *options]) == 0


def wait(condition, seconds):
    """Returns once a condition holds; fails if it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.2)


def states(run):
    return [status_of(run / "batches" / name).state for name in NAMES]


def jobs(run):
    """The states of the jobs of both batches."""
    found = slurm.jobs_of(run)
    return [found[run / "batches" / name].state for name in NAMES]


def come_to(run, name, update=1000):
    """Waits until a batch has trained some updates, while it runs."""
    batch = run / "batches" / name

    def there():
        rows = pd.read_parquet(batch / "metrics.parquet") if (batch / "metrics.parquet").exists() else None
        return rows is not None and rows["update"].max() >= update

    wait(there, 120)
    assert status_of(batch).state == "running"


def finish(run):
    wait(lambda: states(run) == ["finished", "finished"], 240)


def log(run, name):
    return (run / "batches" / name / "log.txt").read_text()


def assert_exact(run, unbroken):
    for name in NAMES:
        assert_same_run(unbroken / "batches" / name, run / "batches" / name)


def test_preempted_jobs_continue_exactly(run, unbroken, capsys):
    submitted(run)
    for name in NAMES:
        come_to(run, name)
    capsys.readouterr()
    submitted(run)  # the same command again
    assert capsys.readouterr().out == "batches: 0 to train, 2 waiting or running\n"
    assert submit.main(["collect", str(run)]) == 0  # while both train
    assert capsys.readouterr().out.splitlines()[-1] == "2 running"
    assert list(pd.read_parquet(run / "runs.parquet")["state"]) == ["running", "running"]
    subprocess.run(["sbatch", "-p", "high", f"-n{os.cpu_count()}", "-o", "/dev/null", "--wrap", "sleep 2"], check=True)
    wait(lambda: jobs(run) == ["PENDING", "PENDING"], 60)
    assert states(run) == ["stopped", "stopped"]
    submitted(run)
    assert capsys.readouterr().out.splitlines()[-1] == "batches: 0 to train, 2 waiting or running"
    finish(run)
    assert_exact(run, unbroken)
    for name in NAMES:
        assert "stopped by SIGTERM after update" in log(run, name) and "continues after update" in log(run, name)
    wait(lambda: jobs(run) == ["COMPLETED", "COMPLETED"], 30)
    assert submit.main(["status", str(run)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 finished"


def processes_of(*folders):
    """The ids of the processes whose command names one of these folders, after those of the slurmstepds above them."""
    stepds, found = set(), set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_text()
            parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
            above = (path.parent / parent / "comm").read_text().strip()
        except OSError:
            continue
        if any(str(folder) in command for folder in folders):
            found.add(int(path.name))
            stepds |= {int(parent)} if above == "slurmstepd" else set()
    return [*stepds, *(found - stepds - {os.getpid()})]


def test_jobs_of_a_node_that_failed_continue_exactly(run, unbroken, cluster):
    """Every process of Slurm and of its jobs on the node dies at once; then the node comes back."""
    submitted(run)
    for name in NAMES:
        come_to(run, name)
    slurmd = int((cluster / "slurmd.pid").read_text())
    for number in (slurmd, *processes_of(run, cluster / "spool")):  # Slurm first: nobody tells of the death of a job
        os.kill(number, signal.SIGKILL)
    wait(lambda: states(run) == ["stopped", "stopped"], 10)
    assert [progress(run / "batches" / name).reason for name in NAMES] == ["killed, or its node failed"] * 2
    subprocess.run(["slurmd"], check=True)
    end = time.monotonic() + 60
    while "RUNNING" in jobs(run) and time.monotonic() < end:
        subprocess.run(["scontrol", "reconfigure"], check=True)  # the node tells what runs on it
        time.sleep(2)
    finish(run)
    assert_exact(run, unbroken)
    assert "continues after update" in log(run, "000")


def test_a_killed_training_is_marked_and_submitted_again(run, unbroken, capsys):
    submitted(run, "--pack", "2")  # one task: the second batch goes on
    come_to(run, "000")
    for number in processes_of(run / "batches" / "000"):
        os.kill(number, signal.SIGKILL)
    come_to(run, "001")
    capsys.readouterr()
    assert submit.main(["status", str(run)]) == 0
    row = capsys.readouterr().out.splitlines()[1]
    assert row.split()[:2] == ["000", "failed"] and row.endswith("  killed by SIGKILL; out of memory?")
    wait(lambda: jobs(run) == ["FAILED", "FAILED"], 120)
    assert states(run) == ["failed", "finished"]
    submitted(run)
    assert "batches: 1 to train, 1 finished\n" in capsys.readouterr().out
    finish(run)
    assert_exact(run, unbroken)


def test_a_cancelled_job_saves_and_stays_cancelled(run, unbroken, capsys):
    submitted(run)
    for name in NAMES:
        come_to(run, name)
    assert submit.main(["cancel", str(run)]) == 0
    wait(lambda: jobs(run) == ["CANCELLED", "CANCELLED"], 30)
    assert states(run) == ["stopped", "stopped"]
    for name in NAMES:
        assert "stopped by SIGTERM after update" in log(run, name)
    time.sleep(10)  # a job that was put back into the queue waits for seven seconds
    assert jobs(run) == ["CANCELLED", "CANCELLED"]
    capsys.readouterr()
    submitted(run)
    assert "batches: 2 to train\n" in capsys.readouterr().out
    finish(run)
    assert_exact(run, unbroken)


def test_a_job_out_of_time_queues_again(run):
    """Two minutes for a training that takes longer; the signal comes up to half a minute before it must."""
    command = [*SMALL, "total_steps=1e9", f"run_dir={run}", "--time", "2", "--partition", "low"]
    assert submit.main(command) == 0
    wait(lambda: (run / "log.txt").exists() and "stopped by SIGUSR2" in (run / "log.txt").read_text(), 180)
    wait(lambda: "continues after update" in (run / "log.txt").read_text(), 120)
    assert "no checkpoint" not in (run / "log.txt").read_text()
