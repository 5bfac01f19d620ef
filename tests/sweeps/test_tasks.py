"""Processes of batches: why they failed, signals that stop them, and what a task leaves out. No Slurm is needed."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

import trainer_pure
from scripts import submit
from src_pure.runs.rundir import LOG
from src_pure.sweeps import slurm, tasks
from src_pure.sweeps.tasks import stopping, train_batches


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


def test_a_task_trains_only_what_is_not_finished(swept, trainer, batches):
    (batches[0] / "checkpoints").mkdir()
    trainer("(batch / 'begun').touch()")
    slurm.run_task([str(swept / "batches" / "000"), str(batches[0])], [])
    assert (batches[0] / "begun").exists() and not (swept / "batches" / "000" / "begun").exists()


def test_one_damaged_batch_hides_no_other(begun, trainer, capsys):
    (begun / "batches" / "001" / "summary.json").write_text("{")
    assert submit.main(["status", str(begun)]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[-1] == "1 finished, 1 failed, 1 stopped" and "summary.json cannot be read" in rows[2]
    trainer("(batch / 'begun').touch()")
    slurm.run_task([str(begun / "batches" / name) for name in ("000", "001", "002")], [])
    assert [(begun / "batches" / name / "begun").exists() for name in ("000", "001", "002")] == [False, True, True]


def test_the_trainer_is_found():
    assert Path(trainer_pure.__file__) == tasks.TRAINER
