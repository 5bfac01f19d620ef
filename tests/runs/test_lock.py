import os
import re
import signal
import socket
import subprocess
import sys

import pytest

from src_pure.runs.lock import LockedError, locked

HOLD = "import sys, pathlib, time\nfrom src_pure.runs.lock import locked\n" \
       "with locked(pathlib.Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)"  # fmt: skip


def test_the_second_is_told_who_holds_it(tmp_path):
    with locked(tmp_path):
        owner = re.escape(f"in use by host {socket.gethostname()}, pid {os.getpid()}; wait")
        with pytest.raises(LockedError, match=owner), locked(tmp_path):
            pass
    with locked(tmp_path):  # and it is free again
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_dead_owners_lock_is_taken_over(tmp_path):
    owner = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert owner.stdout.readline() == "held\n"
    with pytest.raises(LockedError, match=f"pid {owner.pid};"), locked(tmp_path):
        pass
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert f"pid {owner.pid}" in (tmp_path / ".lock").read_text()
    with locked(tmp_path):
        assert f"pid {os.getpid()}\n" in (tmp_path / ".lock").read_text()


def test_a_folder_that_vanished_is_no_obstacle_to_the_end(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with locked(folder):
        (folder / ".lock").unlink()
        folder.rmdir()
