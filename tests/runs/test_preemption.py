"""Signals set an event, a second one or the end of the grace period ends the process wherever it is."""

import os
import signal
import subprocess
import sys
import time

import pytest

from src_pure.runs.preemption import PREEMPTED, noticed

LINE = "error: stopped at once: {}; what was saved before stays\n"
BUSY = """
import ctypes, sys
from src_pure.runs.preemption import noticed
with noticed(float(sys.argv[1])):
    print("ready", flush=True)
    for _ in range(8):  # a call that Python cannot interrupt, as a compiled program is
        ctypes.CDLL(None).sleep(10)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_noticed_and_handlers_are_put_back(number):
    before = signal.getsignal(number)
    with noticed(grace_seconds=60) as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), signal.SIGWINCH)  # others are none of its business
        os.kill(os.getpid(), number)
        assert stop.wait(5)
    assert signal.getsignal(number) is before


@pytest.mark.filterwarnings("error")
def test_a_grace_period_may_be_longer_than_a_timer_can_wait():
    with noticed(grace_seconds=1e300) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(5)
        time.sleep(0.1)


def busy_process(grace):
    command = [sys.executable, "-c", BUSY, str(grace)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    return process


def test_a_second_signal_exits_at_once():
    process = busy_process(grace=60)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGUSR1)
    assert process.wait(5) == PREEMPTED
    assert process.stderr.read() == LINE.format("a second signal")


def test_the_grace_period_is_kept_whatever_runs():
    process = busy_process(grace=1)
    assert process.wait(6) == PREEMPTED
    assert process.stderr.read() == LINE.format("grace_seconds=1 are over")
