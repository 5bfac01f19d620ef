"""CONTRIBUTING.md followed to the letter, in a copy of the project: three toy parts, each one file and one YAML."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

PROJECT = Path(__file__).parents[1]
SMALL = ["num_envs=8", "num_steps=8", "total_steps=128", "evaluation.num_episodes=8"]
TOYS = {"A memory model": "mean", "An environment": "light", "An algorithm": "reinforce"}


class Recipe(NamedTuple):
    files: dict[str, str]  # path -> content
    commands: list[str]


def recipe(heading):
    """The steps of one section of CONTRIBUTING.md, with NAME filled in."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## )", (PROJECT / "CONTRIBUTING.md").read_text(), re.M | re.S)[1]
    section = section.replace("NAME", TOYS[heading])
    files = re.findall(r"Write `([\w/]+\.(?:py|yaml))`.*?```\w+\n(.*?)```", section, re.S)
    commands = "\n".join(re.findall(r"```bash\n(.*?)```", section, re.S))
    lines = [line.split("#")[0].strip() for line in commands.splitlines()]
    return Recipe({path: unindented(text) for path, text in files}, [line for line in lines if line])


def unindented(text):
    """A code block from a list, without the indentation of the list."""
    return "".join(line.removeprefix("   ") for line in text.splitlines(keepends=True))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A copy of the project with all three toys added; no existing file is changed."""
    copy = tmp_path_factory.mktemp("scratch") / "project"
    for name in ("src_pure", "configs", "scripts", "tests"):
        shutil.copytree(PROJECT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("trainer_pure.py", "pyproject.toml"):
        shutil.copy(PROJECT / name, copy)
    for heading in TOYS:
        for path, text in recipe(heading).files.items():
            assert not (copy / path).exists(), f"{path} is a shared file"
            (copy / path).write_text(text)
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("heading", TOYS)
def test_recipe_works_as_printed(heading, scratch):
    found = recipe(heading)
    assert sorted(Path(path).suffix for path in found.files) == [".py", ".yaml"]
    for line in found.commands:
        run(line, scratch)


def run(line, folder):
    """Runs a documented command in a folder; trainings get a small size."""
    words = line.split()
    python = {"python": [sys.executable], "pytest": [sys.executable, "-m", "pytest", "-n", "0", "-q"]}[words[0]]
    small = SMALL if "trainer_pure.py" in words else []
    environment = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run([*python, *words[1:], *small], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
