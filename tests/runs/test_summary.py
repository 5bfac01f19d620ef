import subprocess

import jax
import numpy as np

from src_pure.runs.summary import git_commit, versions


def test_versions_name_the_packages_and_the_device():
    found = versions()
    assert found["jax"] == jax.__version__ and found["numpy"] == np.__version__
    assert found["device_kind"] == jax.devices()[0].device_kind and found["platform"] == jax.default_backend()
    assert {"python", "jaxlib", "flax", "optax", "src-pure", "cpu_count"} <= set(found)


def test_git_commit_has_the_hash_and_whether_files_differ(tmp_path):
    def git(*words):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "core.hooksPath=/dev/null")
        command = ["git", "-C", str(tmp_path), *identity, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert git_commit(tmp_path) is None
    git("init")
    assert git_commit(tmp_path) is None  # nothing committed yet
    git("commit", "--allow-empty", "-m", "first")
    assert git_commit(tmp_path) == {"hash": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "new_environment.py").write_text("")
    assert git_commit(tmp_path)["dirty"]


def test_git_commit_ignores_a_repository_further_up(tmp_path):
    subprocess.run(["git", "init", tmp_path], check=True, capture_output=True)
    (tmp_path / "copy").mkdir()
    assert git_commit(tmp_path / "copy") is None


def test_git_commit_without_git_is_none(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_commit() is None
