"""Whether numbers grew: python scripts/bench_compare.py OLD.json NEW.json

Reads JSON files of scripts/preview.py or of benchmarks: names and numbers, nested as deep as one likes. Prints every
number that both have and that changed. Exit codes: 0 nothing grew by more than 5 %, 1 something did, 2 wrong input.
Names that end in per_second may not shrink instead; compile_seconds is left out.
"""

if __name__ == "__main__":
    from src_pure.interrupt import imported  # first: from here on Ctrl-C prints one line instead of a traceback

import sys
from collections.abc import Sequence
from pathlib import Path

from src_pure.errors import ConfigError, Parser, guarded
from src_pure.preview.table import TOLERANCE, changes, read_table


@guarded
def main(command_line: Sequence[str] | None = None) -> int:
    """1 if a number grew, else 0."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", type=Path, metavar="TABLE", help="two files: the old one, the new one")
    tables = parser.parse_args(command_line).tables
    if len(tables) != 2:
        raise ConfigError(f"give two files, OLD.json and NEW.json, got {len(tables)}")
    found = changes(*map(read_table, tables))
    if not found:
        raise ConfigError(f"{tables[0]} and {tables[1]} have no number of the same name")
    for change in (change for change in found if change.old != change.new):
        mark = "  WORSE" if change.is_worse else ""
        print(f"{change.ratio:8.3f}  {change.old:>18,.6g} -> {change.new:<18,.6g}  {change.name}{mark}")
    worse = sum(change.is_worse for change in found)
    print(f"{len(found):,} numbers, {worse:,} of them worse by more than {TOLERANCE:.0%}")
    return 1 if worse else 0


if __name__ == "__main__":
    imported()
    sys.exit(main())
