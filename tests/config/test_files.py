"""Configuration files: what is read, what is refused, and that what was written reads the same."""

import os
import time

import pytest
import yaml

import trainer_pure
from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.config.files import MAX_BYTES, parse_yaml, to_yaml

BOMB = "a: &a [x, x]\n" + "".join(f"{after}: &{after} [*{name}, *{name}]\n" for name, after in zip("abcdefgh", "bcdefghi", strict=True))  # fmt: skip  # noqa: E501

ODD_FILES = {
    "empty": b"",
    "scalar": b"3",
    "list": b"- 1",
    "documents": b"seed: 1\n---\nseed: 2\n",
    "integer key": b"7: 3",
    "null key": b"null: 3",
    "boolean key": b"true: 3",
    "list as key": b"[a]: 3",
    "key twice": b"seed: 1\nseed: 2",
    "bomb": BOMB.encode(),
    "alias": b"a: &a 3\nseed: *a",
    "merge": b"a: &a {seed: 1}\nb: {<<: *a}",
    "python object": b"seed: !!python/object/apply:os.system ['touch mark']",
    "tag": b"seed: !!binary aGFsbG8=",
    "deep": b"a: " + b"[" * 10_000,
    "deep mapping": b"a: " + b"{a: " * 10_000,
    "deep blocks": b"\n".join(b" " * depth + b"a:" for depth in range(400)),
    "deep list in line": b"- " * 10_000,
    "huge": b"#" * (MAX_BYTES + 1),
    "long text": b"run_dir: " + b"a" * 90_000,
    "many keys": b"".join(b"k%d: 1\n" % number for number in range(9_000)),
    "many items": b"encoder: {_target_: src_pure.models.encoders.MLPEncoder, sizes: [" + b"8, " * 30_000 + b"8]}",
    "long number": b"seed: " + b"9" * 90_000,
    "not UTF-8": b"run_dir: \xff",
    "UTF-16": "seed: 1".encode("utf-16"),
    "null character": b"run_dir: \x00",
    "escaped null": b'run_dir: "a\\0b"',
    "control": b'run_dir: "\\e[31m"',
    "tab": b"\tseed: 1",
    "unfinished": b"seed: 'x",
    "directive": b"%YAML 9.9\n---\nseed: 1",
    "defaults": b"defaults: [{task: tmaze}, _self_]\nseed: 1",
    "hydra": b"hydra: {searchpath: [file:///tmp]}\nseed: 1",
    "environment": b"run_dir: ${oc.env:HOME}\nnum_envs: ${oc.env:HOME}",
}


def refused(file, capsys, what="error: "):
    begun = time.process_time()
    assert trainer_pure.main(["--config", str(file), "--help"]) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.startswith(what) and error.count("\n") == 1
    assert len(error) < 2_000 and error.strip().isprintable()
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("name", ODD_FILES)
def test_odd_files_are_one_short_line(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    whole = b"" if name in ("empty", "scalar", "list", "documents", "huge") else build(compose([])).config_yaml.encode()
    kept = [line for line in whole.splitlines() if not line.startswith((b"seed:", b"run_dir:", b"num_envs:"))]
    for number, content in enumerate((ODD_FILES[name], ODD_FILES[name] + b"\n" + b"\n".join(kept))):
        file = tmp_path / f"{number}.yaml"
        file.write_bytes(content)
        refused(file, capsys)
    assert not (tmp_path / "mark").exists()


def test_interpolation_is_text(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    file = tmp_path / "config.yaml"
    file.write_text(build(compose(["wandb.name=${oc.env:SECRET}"])).config_yaml)
    for config in (compose([], file), compose(["wandb.name=${oc.env:SECRET}"])):
        assert build(config).settings.wandb.name == "${oc.env:SECRET}"


def test_only_regular_files_are_opened(tmp_path, capsys):
    for name in ("loop.yaml", "a.yaml"):
        (tmp_path / name).symlink_to(tmp_path / {"loop.yaml": "loop.yaml", "a.yaml": "b.yaml"}[name])
    (tmp_path / "b.yaml").symlink_to(tmp_path / "a.yaml")
    os.mkfifo(tmp_path / "fifo.yaml")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "device.yaml").symlink_to("/dev/zero")
    names = [
        "loop.yaml",
        "a.yaml",
        "fifo.yaml",
        "folder.yaml",
        "device.yaml",
        "none.yaml",
        "x" * 300 + ".yaml",
        "x.txt",
    ]
    for name in names:
        refused(tmp_path / name, capsys)


def test_the_projects_own_file_has_groups_however_it_is_named(monkeypatch):
    monkeypatch.chdir(trainer_pure.CONFIG_FILE.parents[1])
    assert trainer_pure.main(["--config", "configs/../configs/config.yaml", "model=gru", "--help"]) == 0


TYPES = [
    {
        "a": "1e5",
        "b": "yes",
        "c": "0x1f",
        "d": "2020-01-01",
        "e": "1:30",
        "f": "null",
        "g": "",
        "h": "ä #x",
        "i": "010",
    },
    {"a": 1e-5, "b": float("inf"), "c": -float("inf"), "d": 10**20, "e": None, "g": [{}, []], "h": True, "i": 8.0},
]


@pytest.mark.parametrize("value", TYPES)
def test_yaml_reads_what_it_wrote_and_so_do_others(value):
    for read in (parse_yaml, yaml.safe_load):
        again = read(to_yaml(value))
        assert again == value and list(map(type, again.values())) == list(map(type, value.values()))
