"""Whether a memory model keeps its promises (src_pure/models/base.py): python scripts/check_model.py model=NAME

    python scripts/check_model.py model=gtrxl model.memory_len=32
    python scripts/check_model.py model._target_=my_package.my_module.MyModel model.size=64 --trust my_package

With model._target_, only the given values are passed on. Exit codes: 0 all promises hold, 1 one is broken, 2 wrong
input.
"""

if __name__ == "__main__":
    from src_pure.interrupt import imported  # first: from here on Ctrl-C prints one line instead of a traceback

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from src_pure.config.compose import compose
from src_pure.config.targets import TRUST_HELP, instantiate
from src_pure.conformance import NUM_STEPS, WINDOWS, check_model
from src_pure.device import check_device, computing
from src_pure.errors import Parser, between, guarded

TARGET = "model._target_"


def arguments(command_line: Sequence[str] | None) -> argparse.Namespace:
    """The parsed command line."""
    parser = Parser(description="Checks what every memory model promises.")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="model=NAME, model._target_=CLASS, model.KEY")
    default = f"{WINDOWS} times model.memory_len, at least {NUM_STEPS}"
    parser.add_argument("--steps", type=between(int, 2, 100_000), help=f"of a history (default: {default})")
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE", help=TRUST_HELP)
    return parser.parse_intermixed_args(command_line)


def model_component(overrides: Sequence[str]) -> dict[str, Any]:
    """The model section of the configuration; with model._target_, only the values that were given."""
    keys = [override.lstrip("+").partition("=")[0] for override in overrides]
    if TARGET not in keys:
        return compose(overrides)["model"]
    given = [
        f"++{text.lstrip('+')}" if key.startswith("model.") else text for key, text in zip(keys, overrides, strict=True)
    ]
    component = compose(given)["model"]
    return {key: value for key, value in component.items() if f"model.{key}" in keys}


@guarded
def main(command_line: Sequence[str] | None = None) -> int:
    """0 if all promises hold, else 1."""
    options = arguments(command_line)
    check_device()
    model = instantiate(model_component(options.overrides), "model", options.trust)
    with computing():
        checks = check_model(model, options.steps)
    print(f"{'property':38}{'error':>10}{'tolerance':>11}")
    for check in checks:
        print(f"{check.name:38}{check.error:>10.1e}{check.tolerance:>11.1e}  {'pass' if check.passed else 'FAIL'}")
    return 0 if all(check.passed for check in checks) else 1


if __name__ == "__main__":
    imported()
    sys.exit(main())
