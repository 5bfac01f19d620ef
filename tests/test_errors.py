"""One line and an exit code for errors that a user can fix, a traceback for bugs."""

import argparse
import errno
import subprocess
import sys

import pytest

from src_pure.errors import (
    CANNOT_WRITE,
    INTERRUPTED,
    WRONG_INPUT,
    CannotWriteError,
    ConfigError,
    DamagedError,
    Parser,
    between,
    guarded,
    one_line,
)
from tests.conftest import REPOSITORY


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("a must be\n1"), WRONG_INPUT, "a must be 1"),
        (DamagedError("a is damaged"), WRONG_INPUT, "a is damaged"),
        (CannotWriteError("cannot write a"), CANNOT_WRITE, "cannot write a"),
        (FileNotFoundError("no run folder a"), WRONG_INPUT, "no run folder a"),
        (OSError(errno.ENOTDIR, "Not a directory", "a/b"), WRONG_INPUT, "a/b: Not a directory"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "a" * 20_000), WRONG_INPUT, "a" * 5000 + " ... "),
        (OSError(errno.ELOOP, "Too many levels", "a\x1b[31m"), WRONG_INPUT, "a\\x1b[31m: Too many levels"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), CANNOT_WRITE, "a: Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device"), CANNOT_WRITE, "[Errno 28] No space left on device"),
        (MemoryError("Unable to allocate 8 TiB"), CANNOT_WRITE, "out of memory: Unable to allocate 8 TiB"),
        (KeyboardInterrupt(), INTERRUPTED, "interrupted"),
    ],
)
def test_an_error_is_one_line_and_its_exit_code(error, code, line, capsys):
    @guarded
    def main(command_line):
        raise error

    assert main([]) == code
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {line}") and printed.count("\n") == 1 and len(printed) < 11_000


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyError("a"), AssertionError()])
def test_a_bug_stays_one(error):
    @guarded
    def main(command_line):
        raise error

    with pytest.raises(type(error)):
        main([])


def test_the_exit_code_of_main_is_kept_and_help_is_0(capsys):
    assert guarded(lambda command_line: 1)([]) == 1
    assert guarded(lambda command_line: Parser(prog="play").parse_args(command_line))(["--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: play")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [(int, "1", 1), (int, "10", 10), (float, "2.5", 2.5)]
    + [(int, text, None) for text in ("0", "11", "-1", "1.5", "x", "", "1" + "0" * 5000)]
    + [(float, text, None) for text in ("nan", "inf", "1e999", "0.99")],
)
def test_numbers_have_bounds(kind, text, value):
    convert = between(kind, 1, 10)
    if value is not None:
        assert convert(text) == value
        return
    with pytest.raises(
        argparse.ArgumentTypeError, match=r"^must be a (whole )?number from 1 to 10, got '[^\n]{0,50}'$"
    ):
        convert(text)


def test_a_line_has_printable_characters_alone():
    assert one_line("a\n\tb\x00\x1b[2J\udce4\u202eä") == "a b\\x00\\x1b[2J\\udce4\\u202eä"
    assert len(one_line("x" * 10_000)) == 305


PROGRAM = "from src_pure.errors import guarded\n@guarded\ndef main(_):\n {}\n return 0\nimport sys; sys.exit(main())"


@pytest.mark.parametrize(
    ("body", "after", "code", "out", "err"),
    [
        ("[print(i) for i in range(100_000)]", "| head -1", 0, "0\n", ""),
        ("[print(i, flush=True) for i in range(100_000)]", "| head -1", 0, "0\n", ""),
        ("print(1)", "> /dev/full", 4, "", "error: standard output cannot be written: [Errno 28] No space left"),
        ("print(1)", ">&-", 0, "", ""),
        ("print('läufe \\udce4')", "", 0, "l\\xe4ufe \\udce4\n", ""),
        ("raise KeyboardInterrupt", "", 130, "", "error: interrupted\n"),
    ],
)
def test_a_program_ends_quietly(body, after, code, out, err):
    shell = f'set -o pipefail; "$0" -c "$1" {after}'
    command = ["bash", "-c", shell, sys.executable, PROGRAM.format(body)]
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (code, out)
    assert done.stderr.startswith(err) and done.stderr.count("\n") == bool(err)


@pytest.mark.parametrize(
    ("body", "code", "error"),
    [
        ("os.kill(os.getpid(), signal.SIGINT); time.sleep(9)", 130, "error: interrupted"),
        ("raise ValueError('bad')", 2, "error: the program cannot start: bad"),
        ("interrupt.imported(); raise ValueError('bad')", 1, "Traceback"),
    ],
)
def test_what_happens_while_the_rest_is_imported_is_one_line_too(body, code, error):
    program = f"import src_pure.interrupt as interrupt, os, signal, time; {body}"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == code and done.stderr.startswith(error)
    assert done.stderr.count("\n") == 1 or code == 1
