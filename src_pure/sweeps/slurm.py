"""Batches as tasks of a Slurm array, submitted through submitit, which names its files and starts Python on the node.

    <run>/jobs/<random>/  tasks.json   the name of the job, and the batches of each task
                          ...          submitit's: the sbatch script, one pickle and one log per task

A task trains its batches one after another. What is done is read from the run folder, what is waiting from squeue;
tasks.json only says which batches a job is about. It is written first, so no job is ever unknown.

When a signal stops a task, training is saved, and the task asks Slurm why. If its job is still meant to run (its time
is nearly over, or it is being preempted) the task puts the job back into the queue. If it was cancelled, or if Slurm
has put it back itself (preempted, its node failed), the task just ends.
"""

import io
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, NamedTuple

from src_pure.errors import CannotWriteError, ConfigError, Preempted, one_line
from src_pure.runs.atomic import Description, read_json, replacing, validated
from src_pure.runs.rundir import CHECKPOINTS
from src_pure.sweeps.folder import status_of
from src_pure.sweeps.tasks import exit_code_of, note, stopping, train_batches

JOBS, TASKS = "jobs", "tasks.json"
ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED",
         "REVOKED", "TIMEOUT"}  # fmt: skip
NOTICE = 15  # seconds, besides grace_seconds, between the signal and the end of a job's time
ABSENT = "Slurm is not here: there is no {} on PATH; submit from a machine of the cluster, or train here with --local"


class Tasks(Description):
    """tasks.json."""

    job_name: str
    tasks: list[list[str]]  # batches of each task, as paths in the run folder


class Job(NamedTuple):
    """A task of a job, as squeue shows it."""

    id: str  # 17_3, or 17 if the job has one task
    state: str
    reason: str  # why it waits, or its node

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    def __str__(self) -> str:
        return f"{self.id} {self.state}" + (f" {self.reason}" if self.reason not in ("", "None", "(None)") else "")


def submit(run: Path, packs: Sequence[Sequence[Path]], sbatch: dict[str, Any], setup: Sequence[str],
           at_once: int | None, options: Sequence[str]) -> str:  # fmt: skip
    """The id of a job with one task for each pack of batches.

    sbatch: options of sbatch by name; setup: shell lines run first; at_once: how many tasks may run at a time; options:
    further arguments of the trainer. Raises ConfigError if Slurm is absent or refuses the job, and leaves no files.
    """
    require("sbatch")
    folder = run / JOBS / secrets.token_hex(4)
    folder.mkdir(parents=True)
    name = job_name(run, folder)
    content = {"job_name": name, "tasks": [[str(batch.relative_to(run)) for batch in pack] for pack in packs]}
    with replacing(folder / TASKS) as file:
        file.write(json.dumps(content, indent=2).encode() + b"\n")
    executor = package().SlurmExecutor(folder)
    executor.update_parameters(**parameters(name, sbatch, setup, at_once))
    try:
        with redirect_stderr(io.StringIO()), executor.batch():  # submitit prints the lines of sbatch, then raises them
            jobs = [executor.submit(run_task, [str(batch) for batch in pack], list(options)) for pack in packs]
        return jobs[0].job_id.partition("_")[0]
    except (subprocess.SubprocessError, RuntimeError) as error:  # submitit raises kinds of the latter
        shutil.rmtree(folder, ignore_errors=True)
        raise ConfigError(f"sbatch refused the job: {refusal(error)}; change its options") from error


def script(run: Path, num_tasks: int, sbatch: dict[str, Any], setup: Sequence[str], at_once: int | None) -> str:
    """The sbatch script that `submit` would use; <random> stands for what is drawn then."""
    slurm, folder = package().slurm.slurm, run / JOBS / "<random>"
    array: dict[str, Any] = {"map_count": num_tasks} if num_tasks > 1 else {}
    command = f"{sys.executable} -u -m submitit.core._submit {folder}"
    settings = parameters(job_name(run, folder), sbatch, setup, at_once)
    return slurm._make_sbatch_string(command=command, folder=folder, **array, **settings)


def parameters(name: str, sbatch: dict[str, Any], setup: Sequence[str], at_once: int | None) -> dict[str, Any]:
    """What submitit calls the options of a job."""
    cpus = sbatch.get("cpus-per-task")
    return {
        "job_name": name,
        "time": None,  # submitit's default is five minutes
        "wckey": None,  # submitit's default, its own name, is refused where such keys must be known
        "stderr_to_stdout": True,
        "array_parallelism": at_once or 100_000,  # submitit's default, 256, would keep nodes idle
        "setup": list(setup) or None,
        "srun_args": [f"--cpus-per-task={cpus}"] if cpus else None,  # srun takes one core where it is not told
        "additional_parameters": {"requeue": True} | sbatch,
    }


def job_name(run: Path, folder: Path) -> str:
    """The name of a job in the queue: that of the run and the random one of its folder of files."""
    return f"{re.sub(r'[^A-Za-z0-9_.-]', '_', run.name)[:40]}-{folder.name}"


def refusal(error: Exception) -> str:
    """What sbatch printed, from the error that submitit raises."""
    lines = [line for line in str(error).splitlines() if "sbatch: error" in line]
    text = " ".join(line.partition("error: ")[2] for line in lines) or str(error)
    return one_line(text, 500)


def refuse_path(run: Path) -> None:
    """Raises ConfigError for a run folder that sbatch would read as a pattern."""
    if "%" in str(run) or not str(run).isprintable():
        raise ConfigError(f"on Slurm run_dir must be printable and without %, a pattern there, got {run}")


def seconds(time: str) -> int:
    """The length of a time as sbatch takes it: minutes, m:s, h:m:s, d-h, d-h:m or d-h:m:s; else raises ConfigError."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", time)
    if found is None:
        raise ConfigError(f"--time must be a time such as 4:00:00, 30 (minutes) or 2-12 (days-hours), got {time!r}")
    days, *parts = (None if part is None else int(part) for part in found.groups())
    parts = [part for part in parts if part is not None]
    if days is None:  # one part: minutes; two: minutes and seconds
        parts = [0] * (len(parts) < 3) + parts
    hours, minutes, rest = (*parts, 0, 0)[:3]
    return (days or 0) * 86400 + hours * 3600 + minutes * 60 + rest


def require(program: str) -> None:
    """Raises ConfigError where a program of Slurm, or submitit, is absent."""
    if shutil.which(program) is None:
        raise ConfigError(ABSENT.format(program))
    package()


def package() -> Any:
    """The package submitit; raises ConfigError where it is absent."""
    # Its import would close the streams that other packages log to. Jobs inherit the variable.
    os.environ.setdefault("SUBMITIT_LOG_LEVEL", "NOCONFIG")
    try:
        import submitit.slurm.slurm
    except ImportError:
        raise ConfigError("jobs need the package submitit: uv pip install '.[slurm]'") from None
    return submitit


def jobs_of(run: Path) -> dict[Path, Job]:
    """The newest job of each batch that Slurm still knows of; empty if nothing of the run was ever submitted.

    Raises ConfigError if Slurm is absent, CannotWriteError if it does not answer.
    """
    submitted = {}
    for file in sorted((run / JOBS).glob(f"*/{TASKS}")):
        content = validated(read_json(file), Tasks, file)
        submitted[content.job_name] = content.tasks
    if not submitted:
        return {}
    if shutil.which("squeue") is None:
        raise ConfigError(ABSENT.format("squeue"))
    found: dict[Path, Job] = {}
    names = ",".join(submitted)
    listed = ask("squeue", "--noheader", "--array", "--states=all", f"--name={names}", "--format=%i|%T|%j|%R")
    for line in sorted(listed.splitlines(), key=_age):
        number, state, name, reason = line.split("|", 3)
        task = int(number.partition("_")[2] or 0)
        for batch in submitted[name][task]:
            found[run / batch] = Job(number, state, reason.strip("()"))
    return found


def _age(line: str) -> tuple[int, bool]:
    """A key that sorts jobs by age; of one job, what waits or runs comes after what has ended."""
    number, state, *_ = line.split("|")
    return int(number.partition("_")[0]), state not in ENDED


def cancel(run: Path) -> list[str]:
    """The ids of the tasks that were waiting or running, and are now cancelled; a running one saves first."""
    ids = sorted({job.id for job in jobs_of(run).values() if not job.ended})
    if ids:
        ask("scancel", *ids)
    return ids


def ask(*command: str) -> str:
    """What a program of Slurm prints; raises CannotWriteError with its last line if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotWriteError(f"{command[0]} does not answer: {one_line(error)}") from error
    if done.returncode:
        raise CannotWriteError(f"{command[0]} failed: {one_line(done.stderr.strip() or done.returncode)}")
    return done.stdout


def run_task(names: Sequence[str], options: Sequence[str]) -> None:
    """Trains the batches of one task on its node, one after another; ends the process with a code other than 0."""
    batches = [batch for batch in map(Path, names) if status_of(batch).state != "finished"]
    before = progress_of(batches)
    print(f"job {job_here()} on {socket.gethostname()}: {len(batches)} of {len(names)} batches are left", flush=True)
    with stopping(pass_on=False) as stop:  # Slurm signals every process of a job, the trainer too
        outcomes = train_batches(batches, options, stop)
        code = exit_code_of(outcomes, stop)
        if any(outcome.stopped for outcome in outcomes) or stop.received:
            code = Preempted.exit_code
            stopped = [outcome.batch for outcome in outcomes if outcome.stopped]
            print(end_of_task(stopped, progress_of(batches) != before, stop.received), flush=True)
    if code:
        sys.exit(code)


def progress_of(batches: Sequence[Path]) -> list[list[str]]:
    """The names of the checkpoints of each batch; they change whenever one is written."""
    folders = [batch / CHECKPOINTS for batch in batches]
    return [sorted(os.listdir(folder)) if folder.is_dir() else [] for folder in folders]


def end_of_task(batches: Sequence[Path], progressed: bool, received: Sequence[Any]) -> str:
    """One line about what was done with a task that a signal stopped: back into the queue if its job is meant to run.

    A job whose time ended before it wrote a checkpoint would never come further: it is not put back, and the reason
    becomes the last line of its batch's log.
    """
    job = job_here()
    try:
        shown = dict(item.partition("=")[::2] for item in ask("scontrol", "show", "job", "--oneliner", job).split())
        if shown.get("JobState") != "RUNNING":
            return f"stopped and saved: job {job} is {shown.get('JobState')}"
        if not progressed and shown.get("PreemptTime", "None") == "None":
            reason = f"no checkpoint was written in the time of job {job}; submit again with a longer --time"
            for batch in batches:
                note(batch, reason)
            return f"stopped: {reason}"
        print(f"stopped and saved: job {job} goes back into the queue", flush=True)
        ask("scontrol", "requeue", job)
        wait_for_the_end(received)
        return "Slurm ends this task"
    except CannotWriteError as error:
        return f"stopped and saved, but not put back into the queue: {error}; submit again to continue"


def job_here() -> str:
    """The id of the job that this process belongs to: 17_3, or 17 without an array."""
    array = [os.environ[key] for key in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID") if key in os.environ]
    return "_".join(array) or os.environ.get("SLURM_JOB_ID", "none")


def wait_for_the_end(received: Sequence[Any], seconds: float = 60) -> None:
    """Waits until Slurm ends this process, so that it does not see a job that ended by itself."""
    before, end = len(received), time.monotonic() + seconds
    while len(received) == before and time.monotonic() < end:
        time.sleep(0.1)
