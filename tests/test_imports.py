"""Imports go only downwards: a module may import what stands to its left.

bits <- distributions <- types; errors <- device
device, types <- ops <- envs | models | algos <- train, evaluate, conformance <- build <- runs
envs, algos <- lanes <- experiment <- build; errors, types <- config <- build
runs <- preview <- sweeps <- results <- scripts; sweeps <- trainer_pure
"""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src_pure"
GROUND = {"bits", "distributions", "types"}
BELOW = {
    "errors": set(),
    "device": {"errors"},
    "bits": set(),
    "distributions": {"bits"},
    "types": {"distributions"},
    "interrupt": {"errors"},
    "ops": {"types"},
    "envs": GROUND | {"errors", "ops"},
    "models": GROUND | {"ops"},
    "algos": GROUND | {"ops"},
}
BELOW["train"] = GROUND | {"ops", "envs", "models", "algos"}
BELOW["evaluate"] = BELOW["train"] | {"train"}
BELOW["conformance"] = BELOW["train"] | {"train", "errors"}
BELOW["config"] = {"types", "errors"}
BELOW["lanes"] = GROUND | {"errors", "ops", "algos", "envs"}
BELOW["experiment"] = BELOW["lanes"] | {"lanes", "config", "models"}
BELOW["build"] = BELOW["train"] | {"config", "errors", "device", "lanes", "experiment"}
BELOW["runs"] = BELOW["build"] | {"train", "evaluate", "build"}
BELOW["preview"] = BELOW["runs"] | {"runs"}
BELOW["sweeps"] = BELOW["preview"] | {"preview"}
BELOW["results"] = BELOW["sweeps"] | {"sweeps"}
CONCRETE = ("envs.base", "envs.spaces", "models.base", "models.policy", "algos.base")  # allowed in train.py


def imported(path):
    """Modules of the package that a file imports, without the package's name: envs.base, types, ..."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in getattr(node, "names", [])]
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (name.removeprefix("src_pure.") for name in names if name and name.startswith("src_pure."))


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room == "__init__":
        return
    for module in imported(path):
        assert module.split(".")[0] in BELOW[room] | {room}, f"{path.name} imports {module}"


def test_train_names_nothing_concrete():
    modules = [name for name in imported(PACKAGE / "train.py") if name.split(".")[0] in ("envs", "models", "algos")]
    assert set(modules) <= set(CONCRETE)
