"""Signals set an event; a second one, or the end of the grace period, ends the process wherever it is."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from src_pure.runs.preemption import SIGNALS, stop_on_signals

LINE = "error: stopped at once: {}; what was saved before stays\n"
BUSY = """
import ctypes, sys
from src_pure.runs.preemption import stop_on_signals
with stop_on_signals(float(sys.argv[1])) as stop:
    stop.training = True
    print("ready", flush=True)
    for _ in range(8):  # a call that Python cannot interrupt, as a compiled program is
        ctypes.CDLL(None).sleep(10)
"""


def comes(stop):
    """The signal that a StopRequest receives within five seconds."""
    end = time.monotonic() + 5
    while stop.signal is None and time.monotonic() < end:
        time.sleep(0.01)
    return stop.signal


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noticed_and_handlers_are_put_back(number):
    before = signal.getsignal(number)
    with stop_on_signals(grace_seconds=60) as stop:
        stop.training = True
        assert stop.signal is None
        os.kill(os.getpid(), signal.SIGWINCH)  # not one of its signals
        os.kill(os.getpid(), number)
        assert comes(stop) == number
        assert stop.error.exit_code == (130 if number == signal.SIGINT else 75)
    assert signal.getsignal(number) is before


def test_ctrl_c_before_training_interrupts_at_once():
    with pytest.raises(KeyboardInterrupt), stop_on_signals(grace_seconds=60):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGUSR2])
def test_a_signal_that_is_ignored_stays_ignored(number):
    """As SIGHUP is under nohup, and SIGINT in the background of a script."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with stop_on_signals(grace_seconds=60) as stop:
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), signal.SIGTERM)
            assert comes(stop) == signal.SIGTERM
    finally:
        signal.signal(number, before)


def test_another_thread_gets_no_handlers_and_a_line(capsys):
    before = [signal.getsignal(number) for number in SIGNALS]
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: stop_on_signals(60).__enter__()).result()
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert "does not run in the main thread" in capsys.readouterr().err


@pytest.mark.filterwarnings("error")
def test_a_grace_period_may_be_longer_than_a_timer_can_wait():
    with stop_on_signals(grace_seconds=1e300) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert comes(stop) == signal.SIGTERM
        time.sleep(0.1)


def busy_process(grace, number=signal.SIGTERM):
    command = [sys.executable, "-c", BUSY, str(grace)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    return process


@pytest.mark.parametrize(("first", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_second_signal_exits_at_once(first, code):
    process = busy_process(60, first)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == code
    assert process.stderr.read() == LINE.format("a second signal")


def test_the_grace_period_is_kept_whatever_runs():
    process = busy_process(grace=1)
    assert process.wait(6) == 75
    assert process.stderr.read() == LINE.format("grace_seconds=1 are over")


def test_a_signal_that_comes_twice_at_once_counts_once():
    """As `timeout` sends it, to the process and to its group."""
    process = busy_process(grace=60)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 75
