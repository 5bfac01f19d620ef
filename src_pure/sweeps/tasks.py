"""Trains batches in processes of their own: `python trainer_pure.py --config <batch>/config.yaml run_dir=<batch>`.

A failed batch does not stop the others. Its reason becomes the last line of its log.txt, where everybody looks for it.
"""

import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from src_pure.errors import INTERRUPTED, CheckpointError, ConfigError, LockedError, NumericalError, Preempted, one_line
from src_pure.runs.preemption import SIGNALS
from src_pure.runs.rundir import CONFIG
from src_pure.sweeps.folder import ERROR, is_sweep_folder, log_line, refresh_runs

TRAINER = Path(__file__).parents[2] / "trainer_pure.py"  # next to the package in a checkout and where it is installed
CGROUP = Path("/sys/fs/cgroup")
STOPPED = (Preempted.exit_code, INTERRUPTED)
IN_USE = 5


class Outcome(NamedTuple):
    """How the process of a batch ended."""

    batch: Path
    code: int  # its exit code; negative: the signal that killed it
    last_line: str  # its last error line, or else its last line

    @property
    def stopped(self) -> bool:
        """Whether a signal stopped it, so that starting it again continues it."""
        return self.code in STOPPED


class Stop:
    """Signals that this process received, passed on to the children that do not receive them anyway."""

    def __init__(self, pass_on: bool):
        self.pass_on = pass_on
        self.received: list[signal.Signals] = []
        self._children: list[subprocess.Popen] = []
        self._lock = threading.RLock()

    def start(self, command: Sequence[str]) -> subprocess.Popen:
        """A child process whose output is a pipe; with `pass_on`, no terminal's Ctrl-C reaches it."""
        with self._lock:
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                     errors="replace", start_new_session=self.pass_on)  # fmt: skip
            self._children.append(child)
            if self.received and self.pass_on:
                child.send_signal(self.received[-1])
        return child

    def handle(self, number: int, _) -> None:
        """Notes a signal and passes it on; the second one makes the children exit at once."""
        self.received.append(signal.Signals(number))
        for child in self._children if self.pass_on else ():
            with suppress(ProcessLookupError):
                child.send_signal(number)


@contextmanager
def stopping(pass_on: bool) -> Generator[Stop]:
    """A Stop that handles signals in the block; those that were ignored stay ignored."""
    stop = Stop(pass_on)
    handled = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop.handle) for number in handled}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def train_batches(batches: Sequence[Path], options: Sequence[str], stop: Stop, workers: int = 1) -> list[Outcome]:
    """How each batch ended, `workers` at a time in the given order; a signal keeps the rest from starting.

    options: further arguments of the trainer. Each line of output is printed after the name of its batch.
    """

    def train(batch: Path) -> Outcome | None:
        if stop.received:
            return None
        outcome = train_batch(batch, options, stop)
        if is_sweep_folder(run := batch.parents[1]):
            # a copy for readers, which `collect` writes again
            with suppress(CheckpointError, ConfigError, LockedError, OSError):
                refresh_runs(run, [batch])
        return outcome

    with ThreadPoolExecutor(workers) as pool:
        outcomes = list(pool.map(train, batches))
    return [outcome for outcome in outcomes if outcome is not None]


def train_batch(batch: Path, options: Sequence[str], stop: Stop) -> Outcome:
    """How the training of one batch ended; a failure is noted in its log.txt."""
    killed = out_of_memory_kills()
    child = stop.start(
        [sys.executable, "-u", str(TRAINER), "--config", str(batch / CONFIG), f"run_dir={batch}", *options]
    )
    error = line = ""
    for printed in child.stdout or ():
        sys.stdout.write(f"{batch.name}  {printed}")
        sys.stdout.flush()
        line = printed.strip() or line
        error = line if line.startswith(ERROR) else error
    code = child.wait()
    if stop.received and code < 0:  # killed before it could handle signals: nothing is lost
        code = Preempted.exit_code
    outcome = Outcome(batch, code, one_line(error.removeprefix(ERROR) or line))
    if code not in (0, *STOPPED, IN_USE, NumericalError.exit_code):
        note_failure(outcome, out_of_memory_kills() > killed)
    return outcome


def note_failure(outcome: Outcome, out_of_memory: bool) -> None:
    """Makes the reason of a failure the last line of the batch's log, and prints it."""
    reason = outcome.last_line or f"exit code {outcome.code}"
    if outcome.code < 0:
        name = signal.Signals(-outcome.code).name
        reason = f"out of memory: ended by {name}" if out_of_memory else f"killed by {name}"
        reason += "; out of memory?" if name == "SIGKILL" and not out_of_memory else ""
    print(f"{outcome.batch.name}  failed: {reason}", flush=True)
    note(outcome.batch, reason)


def note(batch: Path, reason: str) -> None:
    """Adds the reason of a failure, already printed, to the batch's log.txt if that can be written."""
    with suppress(OSError):
        log_line(batch, f"{ERROR}{reason}")


def out_of_memory_kills() -> int:
    """How many processes of this control group the kernel has ended for want of memory; 0 where it does not say."""
    with suppress(OSError, ValueError, StopIteration):
        group = next(line[3:] for line in Path("/proc/self/cgroup").read_text().split() if line.startswith("0::"))
        events = (CGROUP / group.lstrip("/") / "memory.events").read_text().split()
        return int(events[events.index("oom_kill") + 1])
    return 0


def exit_code_of(outcomes: Sequence[Outcome], stop: Stop) -> int:
    """The exit code for several trainings: of the signal that stopped them, else the first that is not 0."""
    if stop.received:
        return INTERRUPTED if stop.received[0] == signal.SIGINT else Preempted.exit_code
    codes = [outcome.code for outcome in outcomes if outcome.code not in (0, IN_USE)]
    return 0 if not codes else codes[0] if codes[0] > 0 else 128 - codes[0]


def label_of(paths: Sequence[Path]) -> str:
    """Names of batches for people: 000 001 002, or 000 to 041."""
    names = [path.name for path in paths]
    return " ".join(names) if len(names) <= 4 else f"{names[0]} to {names[-1]}"


def in_packs(batches: Sequence[Path], size: int) -> list[list[Path]]:
    """The batches in groups of `size`, each trained by one task, one after another."""
    return [list(batches[start : start + size]) for start in range(0, len(batches), size)]
