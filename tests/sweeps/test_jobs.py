"""Jobs, with programs that answer in Slurm's place."""

import pytest

from scripts import submit
from src_pure.runs.rundir import LOG
from src_pure.sweeps import slurm
from src_pure.sweeps.folder import status_of
from src_pure.sweeps.slurm import Job
from tests.sweeps.conftest import SWEEP, refused
from tests.test_command_line import TINY


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


def test_cancel_ends_what_waits_or_runs(begun, tmp_path, programs, capsys):
    queued(begun, ("aa", ["batches/000", "batches/001"]))
    programs("squeue", "echo '9_0|RUNNING|run-aa|node1'; echo '9_1|COMPLETED|run-aa|node1'")
    programs("scancel", 'echo "$@" > "$0.got"')
    assert submit.main(["cancel", str(begun)]) == 0
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
