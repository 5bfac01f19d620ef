"""Speed of published trainings on one GPU or TPU: python scripts/bench_device.py [--json FILE] [--seconds N] [--small]

Measures the device (copies, products of matrices, launches), then AGaLiTe, GTrXL-128 and a GRU on Craftax Symbolic and
AGaLiTe on T-Maze with many seeds: compile time, environment steps per second, memory, where the time of an update goes,
next to the bound of docs/performance.md. Each case is a process of its own with a time limit, the most valuable first;
of one that does not fit into the memory or the time, FILE says so. The same command again measures what FILE lacks.
--small tries all this with tiny trainings. Compile times are those of a cold start unless JAX_COMPILATION_CACHE_DIR is
set.
"""

if __name__ == "__main__":
    from src_pure.interrupt import imported  # first: from here on Ctrl-C prints one line instead of a traceback

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src_pure.errors import ConfigError, DeviceError, Parser, between, guarded
from src_pure.preview.counting import SCOPES
from src_pure.preview.table import read_table, write_table

CASE = Path(__file__).with_name("_device_case.py")
CASES = {  # arguments of a training, and its time limit in seconds: compiling takes most of it
    "+craftax=agalite num_envs=1024": 200,
    "+tmaze=agalite num_seeds=1024": 150,
    "+craftax=gtrxl128 num_envs=1024": 150,
    "+craftax=gru num_envs=1024": 100,
    "+craftax=agalite num_envs=4096": 200,
    "+tmaze=agalite num_seeds=1": 100,
    "+tmaze=agalite num_seeds=32": 100,
    "+tmaze=agalite num_seeds=256": 100,
    "+craftax=agalite num_envs=16384": 250,
    "+craftax=gtrxl128 num_envs=4096": 150,
    "+craftax=gru num_envs=4096": 100,
    "+craftax=gtrxl128 num_envs=16384": 200,
    "+craftax=gru num_envs=16384": 150,
}
TINY = "task.corridor_len=5 num_envs=4 num_steps=8"
SMALL = {
    f"+tmaze=agalite num_seeds=2 model.num_layers=1 model.d_model=16 model.num_heads=2 model.d_ffc=16 {TINY}": 120,
    f"model=gru model.size=8 algo.num_minibatches=2 {TINY}": 120,
}
COLUMNS = ("compile s", "steps/s", "update s", "memory GB", *SCOPES, "bound s")


def measured(arguments: str, seconds: float, calls: int, small: bool) -> dict[str, Any]:
    """What the process of a case found within its time; under `missing`, why that is not everything."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "case.json"
        command = [sys.executable, str(CASE), str(file), *arguments.split(), f"--calls={calls}"]
        command += ["--small"] if small else []
        try:
            done = subprocess.run(command, timeout=seconds, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            reason = failure(done)
        except subprocess.TimeoutExpired:
            reason = f"not finished within {seconds:.0f} s"
        found = read_table(file) if file.exists() else {}
    return found | ({"missing": reason} if reason else {})


def failure(done: subprocess.CompletedProcess) -> str | None:
    """Why a process failed: the signal that ended it, or its last error line; None if it did not."""
    if done.returncode == 0:
        return None
    if done.returncode < 0:
        return f"ended by signal {-done.returncode}"
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")] or lines
    return errors[-1] if errors else f"ended with exit code {done.returncode}"


def measured_device(seconds: float, options: Any, before: dict[str, Any]) -> dict[str, Any]:
    """What the device itself can do; raises an error if it cannot be measured or is not the one of before."""
    found = measured("", seconds, options.calls, options.small)
    if "missing" in found:
        raise DeviceError(f"the device could not be measured: {found['missing']}")
    for name in ("kind", "jax"):
        if before.get(name, found[name]) != found[name]:
            raise ConfigError(
                f"{options.json} was measured with {name} {before[name]}, this is {found[name]}; give another --json"
            )
    return found


def read(path: Path) -> dict[str, Any]:
    """The table that an earlier command wrote, or an empty one."""
    table = read_table(path) if path.exists() else {}
    if table and (table.keys() != {"device", "cases"} or not all(isinstance(x, dict) for x in table.values())):
        raise ConfigError(f"{path} is not a table of scripts/bench_device.py; give another --json")
    return {"device": {}, "cases": {}} | table


def row(found: dict[str, Any]) -> str:
    """The numbers of one case in columns; those that are missing are a dash."""
    parts = [found.get("part_seconds", {}).get(name) for name in SCOPES]
    memory = found.get("peak_bytes", found.get("needed_bytes"))
    least = max(found.get("bound_seconds", {}).values(), default=None)
    values = (
        (found.get("compile_seconds"), ",.1f"),
        (found.get("env_steps_per_second"), ",.0f"),
        (found.get("update_seconds"), ".3g"),
        (memory and memory / 1e9, ".3g"),
        *((x, ".3g") for x in parts),
        (least, ".3g"),
    )
    return "".join(f"{'-' if x is None else format(x, form):>13}" for x, form in values)


@guarded
def main(command_line: Sequence[str] | None = None) -> int:
    """0 once everything that fits is measured."""
    started = time.monotonic()
    parser = Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--json", type=Path, default=Path("bench_device.json"), metavar="FILE", help="the table")
    parser.add_argument("--seconds", type=between(int, 1, 86_400), default=540, help="for everything (540)")
    parser.add_argument("--calls", type=between(int, 1, 10_000), default=3, help="timed calls of each program (3)")
    names = (*CASES, *SMALL)
    parser.add_argument("--only", nargs="+", choices=names, metavar="CASE", help="these, as FILE names them")
    parser.add_argument("--small", action="store_true", help="tiny trainings, to try the script")
    options = parser.parse_args(command_line)
    table, cases = read(options.json), SMALL if options.small else CASES
    write_table(options.json, table)  # a path that cannot be is refused before anything is measured
    table["device"] = measured_device(options.seconds, options, table["device"])
    write_table(options.json, table)
    for name, value in table["device"].items():
        print(f"{name}: {value if isinstance(value, str) else format(value, '.3g')}")
    print("".join(f"{name:>13}" for name in COLUMNS))
    for arguments in options.only or cases:
        left = started + options.seconds - time.monotonic()
        found = table["cases"].get(arguments, {"missing": "no time was left"})
        if "missing" in found and left > 0:
            found = measured(arguments, min(left, (CASES | SMALL)[arguments]), options.calls, options.small)
        table["cases"][arguments] = found
        write_table(options.json, table)
        print(f"{arguments}\n{row(found)}  {found.get('missing', '')}".rstrip(), flush=True)
        if isinstance(least := found.get("bound"), str) and "bound_seconds" not in found:
            print(f"  bound: {least}")
    return 0


if __name__ == "__main__":
    imported()
    sys.exit(main())
