"""One process at a time: the kernel frees the lock of a dead owner, and a folder of the same name is another folder."""

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager

import pytest

from src_pure.errors import OddFileError
from src_pure.runs.folder import Folder
from src_pure.runs.lock import LockedError, locked

HOLD = """
import sys, pathlib, time
from src_pure.runs.folder import Folder
from src_pure.runs.lock import locked
with locked(Folder(pathlib.Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def hold(path):
    with Folder(path) as folder, locked(folder):
        yield


def test_the_second_learns_who_holds_it(tmp_path):
    with hold(tmp_path):
        owner = re.escape(f"in use by host {socket.gethostname()}, pid {os.getpid()}; wait")
        with pytest.raises(LockedError, match=owner), hold(tmp_path):
            pass
    with hold(tmp_path):  # and it is free again
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_dead_owners_lock_is_taken_over(tmp_path):
    owner = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert owner.stdout.readline() == "held\n"
    with pytest.raises(LockedError, match=f"pid {owner.pid};"), hold(tmp_path):
        pass
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert f"pid {owner.pid}" in (tmp_path / ".lock").read_text()
    with hold(tmp_path):
        assert f"pid {os.getpid()}\n" in (tmp_path / ".lock").read_text()


def test_a_folder_that_vanished_is_no_obstacle_to_the_end(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with hold(folder):
        (folder / ".lock").unlink()
        folder.rmdir()


def test_the_lock_of_another_folder_that_took_the_name_stays(tmp_path):
    folder, moved = tmp_path / "run", tmp_path / "moved"
    folder.mkdir()
    with hold(folder):
        folder.rename(moved)
        folder.mkdir()
        (folder / ".lock").write_text("of another process")
    assert (folder / ".lock").read_text() == "of another process"
    assert list(moved.iterdir()) == []


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_lock_that_is_not_a_file_is_refused_and_left_alone(tmp_path, kind):
    target, folder = tmp_path / "precious", tmp_path / "run"
    folder.mkdir()
    target.write_text("precious")
    make = {"link": lambda path: path.symlink_to(target), "pipe": os.mkfifo, "folder": os.mkdir}[kind]
    make(folder / ".lock")
    with pytest.raises(OddFileError, match=rf"\.lock must be a file, found a .*{kind}"), hold(folder):
        pass
    assert target.read_text() == "precious"
