"""The installed wheel works from any folder; compiled programs are cached where expected."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import jax
import pytest

import trainer_pure

ROOT = Path(__file__).parents[1]
SOURCES = ("src_pure", "configs", "scripts", "trainer_pure.py", "pyproject.toml", "README.md", "LICENSE")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TINY = ["model=gru", "model.size=8", "policy.head_size=8", "num_envs=4", "num_steps=16", "algo.num_minibatches=2",
        "task.corridor_len=2", "evaluation.num_episodes=8", "total_steps=640"]  # fmt: skip


def test_every_package_is_in_the_wheel():
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "src_pure").rglob("*.py")}
    own = {str(folder).replace(os.sep, ".") for folder in folders}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == own | {"src_pure.configs", "src_pure.scripts"}


def test_images_hold_what_the_wheel_is_built_from():
    docker, ignored, apptainer = (
        (ROOT / name).read_text() for name in ("Dockerfile", ".dockerignore", "apptainer.def")
    )
    copied = " ".join(line for line in docker.splitlines() if line.startswith("COPY ")).split()
    for name in (*SOURCES, "requirements.lock"):
        assert name in copied and f"!{name}\n" in ignored
        assert f"    {name} /opt/source/{name}\n" in apptainer


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A function that runs an installed command in a separate folder, without the checkout on its path."""
    folder = tmp_path_factory.mktemp("installed")
    copy, target, elsewhere = folder / "copy", folder / "target", folder / "elsewhere"
    for path in (copy, elsewhere):
        path.mkdir()
    subprocess.run(["cp", "-r", *SOURCES, copy], cwd=ROOT, check=True)
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--target", target, copy]
    subprocess.run(install, check=True, timeout=300)
    unset = ("PYTHONPATH", "JAX_COMPILATION_CACHE_DIR")
    environment = {key: value for key, value in os.environ.items() if key not in unset}
    environment |= {"PYTHONPATH": str(target), "XDG_CACHE_HOME": str(folder / "cache")}

    def run(name, *arguments, **more):
        command = [sys.executable, target / "bin" / name, *arguments]
        options = {"cwd": elsewhere, "env": environment | more, "capture_output": True, "text": True, "timeout": 300}
        return subprocess.run(command, **options)

    run.folder, run.cache = elsewhere, folder / "cache"
    return run


@pytest.mark.slow
def test_installed_commands_work_from_any_folder(installed):
    done = installed("src-pure-train", "+tmaze=gru", "--help")
    assert done.returncode == 0 and "cells from the start to the junction" in done.stdout, done.stderr
    done = installed("src-pure-train", *TINY, "run_dir=run")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert (installed.folder / "run" / "summary.json").is_file() and any(
        (installed.cache / "src-pure").rglob("*-cache")
    )
    assert sorted(path.name for path in installed.folder.iterdir()) == ["run"]
    for command in (
        ["plot", "run"],
        ["export", "run"],
        ["watch", "run", "--episodes", "1"],
        ["check-model", "model=gruu"],
        ["submit", "status", "run"],
    ):
        done = installed(f"src-pure-{command[0]}", *command[1:])
        assert done.returncode == (2 if "gruu" in command[1] else 0), done.stderr
    for name in ("bsuite-score", "sweep-report"):
        assert installed(f"src-pure-{name}", "run").returncode == 2


@pytest.mark.slow
def test_a_package_in_the_current_folder_can_be_trusted(installed):
    (installed.folder / "mine.py").write_text("from src_pure.models.rnn import GRU\nclass Mine(GRU): pass\n")
    command = ["src-pure-train", "model=gru", "model._target_=mine.Mine", "--help"]
    assert installed(*command).returncode == 2
    assert installed(*command, "--trust", "mine").returncode == 0


@pytest.fixture
def cache():
    """jax's cache setting, restored afterwards."""
    before = jax.config.jax_compilation_cache_dir
    yield lambda folder: jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_dir", before)


def test_a_cache_that_cannot_be_written_is_one_warning(cache, tmp_path, capsys):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "cache", "/proc/none/cache"):
        cache(folder)
        trainer_pure.keep_compiled_programs()
        out, error = capsys.readouterr()
        assert out == "" and error.startswith("warning: ") and error.count("\n") == 1
        assert "JAX_COMPILATION_CACHE_DIR" in error
        assert jax.config.jax_compilation_cache_dir is None


def test_a_cache_that_can_be_written_is_used(cache, tmp_path, capsys):
    cache(tmp_path / "new" / "cache")
    trainer_pure.keep_compiled_programs()
    assert capsys.readouterr().err == "" and jax.config.jax_compilation_cache_dir == str(tmp_path / "new" / "cache")
