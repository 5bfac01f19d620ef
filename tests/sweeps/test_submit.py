"""scripts/submit.py without Slurm: trained here, shown, refused; and with programs that answer in Slurm's place."""

import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

import trainer_pure
from scripts import submit
from src_pure.errors import ConfigError
from src_pure.runs.rundir import LOG
from src_pure.sweeps import slurm, tasks
from src_pure.sweeps.folder import status_of
from src_pure.sweeps.slurm import Job
from src_pure.sweeps.tasks import stopping, train_batches
from tests.runs.disturbing import assert_same_run
from tests.test_command_line import TINY

SWEEP = [*TINY, "sweep.algo.learning_rate=[1e-3,3e-3,1e-2]", "sweep.lanes_per_batch=1", "total_steps=320"]


def refused(command_line, capsys):
    """The line with which a command is refused."""
    assert submit.main([*map(str, command_line)]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    return printed.err


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A function that puts a shell script on PATH under the name of a program of Slurm; nothing else is there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(name, script):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return put


@pytest.fixture
def trainer(tmp_path, monkeypatch):
    """A function that puts Python code in the place of the trainer; `batch` is the path of its folder."""
    file = tmp_path / "trainer.py"
    monkeypatch.setattr(tasks, "TRAINER", file)

    def put(code):
        start = "import os, pathlib, signal, sys, time\nbatch = pathlib.Path(sys.argv[3].partition('=')[2])\n"
        file.write_text(f"{start}{code}\n")

    return put


@pytest.fixture
def batches(tmp_path):
    """Three folders."""
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder in folders:
        folder.mkdir()
    return folders


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """The folder of a sweep that the trainer made, in this process."""
    folder = tmp_path_factory.mktemp("sweeps") / "sweep"
    assert trainer_pure.main([*SWEEP, f"run_dir={folder}"]) == 0
    return folder


@pytest.fixture
def begun(sweep, tmp_path):
    """A copy of that folder, of which 001 and 002 lack the end."""
    folder = shutil.copytree(sweep, tmp_path / "sweep")
    for name in ("001", "002"):
        (folder / "batches" / name / "summary.json").unlink()
    return folder


@pytest.mark.slow
def test_trained_here_a_sweep_is_what_the_trainer_makes_of_it(sweep, tmp_path):
    assert submit.main([*SWEEP, f"run_dir={tmp_path / 'other'}", "--local", "--workers", "2"]) == 0
    for name in ("000", "001", "002"):
        assert_same_run(tmp_path / "other" / "batches" / name, sweep / "batches" / name)
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "other/runs.parquet"), pd.read_parquet(sweep / "runs.parquet")
    )


def test_the_same_command_again_trains_nothing(sweep, trainer, capsys):
    trainer("sys.exit(1)")
    assert submit.main([*SWEEP, f"run_dir={sweep}", "--local"]) == 0
    assert capsys.readouterr().out == "batches: 0 to train, 3 finished\n"


def test_status_is_read_from_the_folders(sweep, capsys):
    assert submit.main(["status", str(sweep)]) == 0
    header, *rows, counts = capsys.readouterr().out.splitlines()
    assert header.split() == ["batch", "state", "runs", "update", "success_rate"]
    assert [row.split()[:4] for row in rows] == [[name, "finished", "1", "5/5"] for name in ("000", "001", "002")]
    assert counts == "3 finished"
    for row, name in zip(rows, ("000", "001", "002"), strict=True):
        last = pd.read_parquet(sweep / "batches" / name / "metrics.parquet").iloc[-1]
        assert float(row.split()[4]) == pytest.approx(last["success_rate"], abs=5e-3)


def test_collect_writes_the_states_again(sweep, capsys):
    right = (sweep / "runs.parquet").read_bytes()
    pd.read_parquet(sweep / "runs.parquet").assign(state="waiting").to_parquet(sweep / "runs.parquet")
    assert submit.main(["collect", str(sweep)]) == 0
    assert "3 finished" in capsys.readouterr().out
    assert (sweep / "runs.parquet").read_bytes() == right


def test_only_what_failed_is_trained_again(sweep, begun, trainer, capsys):
    command = [*SWEEP, f"run_dir={begun}", "--local"]
    trainer("(batch / 'begun').touch(); sys.exit('error: the disk is on fire' if batch.name == '001' else 0)")
    assert submit.main(command) == 1
    assert "batches: 2 to train, 1 finished\n" in capsys.readouterr().out
    assert [(batch / "begun").exists() for batch in sorted((begun / "batches").iterdir())] == [False, True, True]
    shutil.copy(sweep / "batches/002/summary.json", begun / "batches/002/summary.json")
    assert submit.main(["status", str(begun)]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[-3].split()[:2] == ["001", "failed"] and rows[-3].endswith("  the disk is on fire")
    assert rows[-1] == "2 finished, 1 failed"
    assert list(pd.read_parquet(begun / "runs.parquet")["state"]) == ["finished", "failed", "stopped"]
    trainer("print('trained', batch.name)")
    assert submit.main(command) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if "trained" in line] == ["001  trained 001"]


def test_a_single_training_is_one_batch(tmp_path, capsys):
    """The real trainer, in a process of its own."""
    folder = tmp_path / "run"
    assert submit.main([*TINY, f"run_dir={folder}", "--local"]) == 0
    assert submit.main([*TINY, f"run_dir={folder}", "--local"]) == 0
    assert capsys.readouterr().out.endswith("batches: 0 to train, 1 finished\n")
    assert submit.main(["status", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:4] == ["run", "finished", "1", "10/10"]


@pytest.mark.parametrize("command", [TINY, SWEEP])
def test_a_dry_run_shows_everything_and_writes_nothing(tmp_path, programs, capsys, command):
    options = ["--dry-run", "--pack", "2", "--time", "1-0", "--gpus", "1", "--partition", "gpu", "--memory", "16G",
               "--cpus", "4", "--sbatch", "exclude=node7", "--setup", "module load cuda", "--at-once", "1"]  # fmt: skip
    assert submit.main([*command, f"run_dir={tmp_path / 'run'}", *options]) == 0
    shown = capsys.readouterr().out.splitlines()
    wanted = [
        "time=1-0",
        "gpus-per-node=1",
        "partition=gpu",
        "mem=16G",
        "cpus-per-task=4",
        "exclude=node7",
        "signal=USR2@45",
        "requeue",
    ]
    assert {f"#SBATCH --{text}" for text in wanted} <= set(shown)
    assert "module load cuda" in shown
    assert any(line.startswith("srun ") and " --cpus-per-task=4 " in line for line in shown)
    if command is SWEEP:
        assert shown[:3] == ["batches: 3 to train", "task 0: 000 001", "task 1: 002"]
        assert "#SBATCH --array=0-1%1" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


def test_a_dry_run_needs_no_time(tmp_path, capsys):
    assert submit.main([*TINY, f"run_dir={tmp_path / 'run'}", "--dry-run"]) == 0
    assert "#SBATCH --time" not in capsys.readouterr().out  # Slurm's own default


def test_without_slurm_nothing_is_written(tmp_path, programs, capsys):
    assert "there is no sbatch on PATH" in refused([*TINY, f"run_dir={tmp_path / 'run'}"], capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["run_dir=null", "--local"], "give run_dir=FOLDER"),
        (["--local", "plan=only"], "plan=only trains nothing"),
        (["--dry-run", "run_dir=runs/%j"], "run_dir must be printable and without %"),
        (["--workers", "2"], "--workers is for --local"),
        (["--local", "--time", "4:00:00"], "--time is for Slurm"),
        (["--local", "--at-once", "2"], "--at-once is for Slurm"),
        (["--local", "--pack", "2"], "--pack is for Slurm"),
        (["--dry-run", "--time", "soon"], "--time must be a time such as 4:00:00"),
        (["--dry-run", "--time", "1"], "--time must be more than 90 seconds"),
        (["--time", "1"], "--time must be more than 90 seconds"),
        (["grace_seconds=soon"], "grace_seconds must be a number of seconds"),
        (["--dry-run", "--pack", "0"], "must be a whole number from 1"),
        (["--dry-run", "--sbatch", "--exclude"], "--sbatch"),
        (["--dry-run", "--sbatch", "exclude"], "--sbatch must be OPTION=VALUE"),
        (["--local", "modle=gru"], "modle"),
        (["--local", "sweep.algo.gama=[0.9]"], "gama"),
        (["--nope"], "--nope"),
        (["--tim", "30"], "--tim"),
    ],
)
def test_wrong_input_is_refused_and_nothing_is_written(tmp_path, monkeypatch, capsys, options, line):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slurm, "require", lambda program: None)
    run_dir = [] if "run_dir=null" in options else ["run_dir=run"]
    assert line in refused([*TINY, *run_dir, *options], capsys)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["status", "collect", "cancel"])
def test_what_is_no_run_is_refused(tmp_path, capsys, name):
    assert "must be the folder of a run or a sweep" in refused([name, tmp_path], capsys)
    assert "the following arguments are required: RUN" in refused([name], capsys)


@pytest.mark.parametrize(
    ("text", "length"),
    [("30", 1800), ("30:15", 1815), ("4:00:00", 14400), ("2-12", 216000), ("1-0:30", 88200), ("1-1:1:1", 90061)],
)
def test_times_are_those_of_sbatch(text, length):
    assert slurm.seconds(text) == length


@pytest.mark.parametrize("text", ["", "1h", "-1", "1:2:3:4", "1-1:2:3:4", "1.5", "infinite"])
def test_other_times_are_refused(text):
    with pytest.raises(ConfigError, match="--time must be a time"):
        slurm.seconds(text)


@pytest.mark.parametrize(
    ("code", "last", "reason"),
    [
        ("print('error: no room'); sys.exit(4)", 4, "no room"),
        ("print('error: no room'); print('bye'); sys.exit(4)", 4, "no room"),
        ("raise ValueError('a bug')", 1, "ValueError: a bug"),
        ("os.kill(os.getpid(), signal.SIGKILL)", -9, "killed by SIGKILL; out of memory?"),
        ("sys.exit(6)", 6, "exit code 6"),
    ],
)
def test_the_reason_of_a_failure_is_the_last_line_of_the_log(trainer, batches, code, last, reason):
    trainer(f"if batch.name == 'b': {code}" if "\n" not in code else code)
    with stopping(pass_on=True) as stop:
        outcomes = train_batches(batches, [], stop)
    assert [outcome.code for outcome in outcomes] == [0, last, 0]
    assert (batches[1] / LOG).read_text().endswith(f"  error: {reason}\n")
    assert not (batches[0] / LOG).exists()


def test_the_kernel_says_if_it_was_memory(trainer, batches, tmp_path, monkeypatch):
    group = next(line[3:] for line in Path("/proc/self/cgroup").read_text().split() if line.startswith("0::"))
    events = tmp_path / "cgroup" / group.lstrip("/") / "memory.events"
    events.parent.mkdir(parents=True)
    events.write_text("low 0\noom 0\noom_kill 3\n")
    monkeypatch.setattr(tasks, "CGROUP", tmp_path / "cgroup")
    trainer(f"open({str(events)!r}, 'w').write('low 0\\noom 1\\noom_kill 4\\n'); os.kill(os.getpid(), signal.SIGKILL)")
    with stopping(pass_on=True) as stop:
        train_batches(batches[:1], [], stop)
    assert (batches[0] / LOG).read_text().endswith("  error: out of memory: ended by SIGKILL\n")


@pytest.mark.parametrize("code", [0, 3, 5, 75, 130])
def test_other_ends_are_the_trainers_to_note(trainer, batches, code):
    trainer(f"sys.exit({code})")
    with stopping(pass_on=True) as stop:
        train_batches(batches, [], stop)
    assert not any((batch / LOG).exists() for batch in batches)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_reaches_what_trains_and_keeps_the_rest_from_starting(trainer, batches, number, code):
    trainer(
        "def handle(number, _): (batch / 'got').write_text(str(number)); sys.exit(75)\n"
        "for number in (signal.SIGTERM, signal.SIGINT): signal.signal(number, handle)\n"
        "(batch / 'begun').touch(); time.sleep(30)"
    )

    def when_two_train():
        while sum((batch / "begun").exists() for batch in batches) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=when_two_train).start()
    with stopping(pass_on=True) as stop:
        outcomes = train_batches(batches, [], stop, workers=2)
    assert tasks.exit_code_of(outcomes, stop) == code
    assert [(batch / "got").exists() for batch in batches] == [True, True, False]
    assert (batches[0] / "got").read_text() == str(int(number))


def queued(run, *folders):
    """Files as `submit` leaves them: a folder of jobs with tasks of one batch each."""
    for name, names in folders:
        folder = run / slurm.JOBS / name
        folder.mkdir(parents=True)
        listed = ", ".join(f'["{batch}"]' for batch in names)
        (folder / slurm.TASKS).write_text(f'{{"job_name": "run-{name}", "tasks": [{listed}]}}')


def test_the_newest_job_of_each_batch_counts(tmp_path, programs):
    queued(tmp_path, ("aa", ["a", "b", "c"]), ("bb", ["b"]), ("cc", ["c"]))
    programs(
        "squeue",
        """echo "$@" > "$0.got"
echo '12|PENDING|run-cc|(Priority)'
echo '9_0|RUNNING|run-aa|node1'
echo '9_1|FAILED|run-aa|node1'
echo '9_2|TIMEOUT|run-aa|(TimeLimit)'
echo '11|CANCELLED|run-bb|'""",
    )
    jobs = slurm.jobs_of(tmp_path)
    assert jobs == {
        tmp_path / "a": Job("9_0", "RUNNING", "node1"),
        tmp_path / "b": Job("11", "CANCELLED", ""),
        tmp_path / "c": Job("12", "PENDING", "Priority"),
    }
    assert [jobs[tmp_path / name].ended for name in "abc"] == [False, True, False]
    assert "--name=run-aa,run-bb,run-cc" in (tmp_path / "bin/squeue.got").read_text()


def test_what_waits_or_runs_is_left_alone(begun, programs, capsys):
    """Batch 000 is finished, 001 has a job, 002 had one."""
    queued(begun, ("aa", ["batches/001", "batches/002"]))
    programs("squeue", "echo '9_0|PENDING|run-aa|(Priority)'; echo '9_1|FAILED|run-aa|node1'")
    programs("sbatch", 'while read -r line < /dev/null; do :; done; echo "Submitted batch job 17"')
    programs("srun", "")
    assert submit.main([*SWEEP, f"run_dir={begun}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "batches: 1 to train, 1 finished, 1 waiting or running" and lines[1].startswith(
        "job 17 of 1 task"
    )
    new = next(file for file in begun.glob(f"jobs/*/{slurm.TASKS}") if "batches/001" not in file.read_text())
    assert "batches/002" in new.read_text()
    assert submit.main(["status", str(begun)]) == 0
    assert [row.split()[:2] for row in capsys.readouterr().out.splitlines()[1:4]] == [
        ["000", "finished"], ["001", "stopped"], ["002", "stopped"]]  # fmt: skip


def test_a_job_that_sbatch_refuses_leaves_no_files(tmp_path, programs, capsys):
    programs("sbatch", "echo 'sbatch: error: invalid partition specified: nope' >&2; exit 1")
    programs("srun", "")
    line = refused([*TINY, f"run_dir={tmp_path / 'run'}", "--partition", "nope"], capsys)
    assert line == "error: sbatch refused the job: invalid partition specified: nope; change its options\n"
    assert not list((tmp_path / "run").glob("jobs/*"))


def test_cancel_ends_what_waits_or_runs(sweep, tmp_path, programs, monkeypatch, capsys):
    queued(sweep, ("aa", ["batches/000", "batches/001"]))
    programs("squeue", "echo '9_0|RUNNING|run-aa|node1'; echo '9_1|COMPLETED|run-aa|node1'")
    programs("scancel", 'echo "$@" > "$0.got"')
    assert submit.main(["cancel", str(sweep)]) == 0
    assert capsys.readouterr().out == "cancelled 9_0\n"
    assert (tmp_path / "bin/scancel.got").read_text() == "9_0\n"


STOPPED = "(batch / 'checkpoints' / '7').mkdir() if len(sys.argv) > 4 else None; sys.exit(75)"


@pytest.mark.parametrize(
    ("job", "progress", "again", "noted"),
    [
        ("JobState=RUNNING PreemptTime=None", True, True, False),  # its time is nearly over
        ("JobState=RUNNING PreemptTime=None", False, False, True),  # and always will be
        ("JobState=RUNNING PreemptTime=2026-01-01T00:00:00", False, True, False),
        ("JobState=CANCELLED PreemptTime=None", True, False, False),
        ("JobState=COMPLETING PreemptTime=None", True, False, False),
    ],
)
def test_a_stopped_task_goes_back_into_the_queue_if_it_is_meant_to_run(
    tmp_path, programs, trainer, monkeypatch, job, progress, again, noted
):
    batch = tmp_path / "batch"
    (batch / "checkpoints").mkdir(parents=True)
    trainer(STOPPED)
    programs("scontrol", f"if [ $1 = requeue ]; then echo $2 > $0.requeued; else echo 'JobId=4 {job}'; fi")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "9")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setattr(slurm, "wait_for_the_end", lambda received: None)
    with pytest.raises(SystemExit) as ended:
        slurm.run_task([str(batch)], ["progress"] if progress else [])
    assert ended.value.code == 75
    requeued = tmp_path / "bin/scontrol.requeued"
    assert requeued.exists() == again
    assert not again or requeued.read_text() == "9_3\n"
    assert (batch / LOG).exists() == noted
    if noted:
        assert status_of(batch).reason.startswith("no checkpoint was written in the time of job 9_3")


def test_a_task_trains_only_what_is_not_finished(sweep, trainer, batches):
    (batches[0] / "checkpoints").mkdir()
    trainer("(batch / 'begun').touch()")
    slurm.run_task([str(sweep / "batches" / "000"), str(batches[0])], [])
    assert (batches[0] / "begun").exists() and not (sweep / "batches" / "000" / "begun").exists()


def test_one_damaged_batch_hides_no_other(begun, trainer, capsys):
    (begun / "batches" / "001" / "summary.json").write_text("{")
    assert submit.main(["status", str(begun)]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[-1] == "1 finished, 1 failed, 1 stopped" and "summary.json cannot be read" in rows[2]
    trainer("(batch / 'begun').touch()")
    slurm.run_task([str(begun / "batches" / name) for name in ("000", "001", "002")], [])
    assert [(begun / "batches" / name / "begun").exists() for name in ("000", "001", "002")] == [False, True, True]


def test_harmless_settings_of_a_command_reach_every_batch(trainer, tmp_path):
    trainer("(batch / 'got').write_text(' '.join(sys.argv[4:]))")
    options = ["log_seconds=1", "resume_anyway=true", "--local", "--trust", "mine"]
    assert submit.main([*TINY, f"run_dir={tmp_path / 'run'}", *options]) == 0
    assert (tmp_path / "run" / "got").read_text() == "--trust=mine log_seconds=1 resume_anyway=true"


def test_the_trainer_is_found():
    assert Path(trainer_pure.__file__) == tasks.TRAINER and sys.executable
