"""Random wrong overrides and configuration files give exit code 2 and one line, never a traceback, and run nothing."""

import copy
import os
import random
import subprocess
import sys

import pytest
import yaml

import trainer_pure
from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.config.names import dotted
from src_pure.runs import training

VALUES = "nan -1 0 1.5 [] {} '' null true [1,2] {a:1} ${oops} 1e400 é = a|b".replace("|", " |").split(" ")
KEYS = ["nope", "task.nope", "+nope.deeper", "++model", "algo", "@x", "=", "model@y", "+tmaze", "a=b=c", "checkpoint."]

# values for files: every type, and right, wrong and hostile class names
PLAIN = (
    *(None, True, False, 0, -1, 1, 7, 2**31, 10**30, 0.5, -1e-3, float("inf"), float("nan")),
    *("", "x", "8", "../x", "${seed}", "\x1b[31m", "a\nb", "ä", "x" * 5000),
    *([], [1], [[[[]]]], {}, {"a": {"b": 1}}, {1: 2}, {None: None}),
)
TARGETS = (
    *("subprocess.getoutput", "subprocess.Popen", "os.system", "mine.Model", "src_pure.train.make_train"),
    *("src_pure.envs.tmaze.TMaze", "src_pure.envs.gymnax.Gymnax", "src_pure.envs.memory_chain.memory_task"),
    *("src_pure.envs.tmaze.jax.device_get", "src_pure.envs.spaces.Discrete", "src_pure.algos.a2c.A2C"),
    *("src_pure.models.rnn.GRU", "src_pure.models.rnn.LSTM", "src_pure.models.encoders.MLPEncoder"),
    "src_pure.models.policy.ActorCritic",
)
NAMES = ("_target_", "_args_", "_partial_", "name", "size", "env_name", "options", "time_limit", "cmd", "nope", "hydra")


def random_override(rng: random.Random, keys: list[str]) -> str:
    key = rng.choice(keys)
    if rng.random() < 0.3:
        place = rng.randrange(len(key) + 1)
        key = key[:place] + rng.choice("x.~+@ ${}[]=,'\"\\") + key[place:]
    return f"{rng.choice(['', '', '+', '++', '~'])}{key}{rng.choice(['=', '=', '=', ''])}{rng.choice(VALUES)}"


def random_config(rng: random.Random, config: dict) -> dict:
    """A copy of a configuration with one to three changes of structure, type or target."""
    config = copy.deepcopy(config)
    for _ in range(rng.randint(1, 3)):
        sections = [config, *(value for value in config.values() if isinstance(value, dict))]
        section = rng.choice(sections)
        key = rng.choice([*map(str, section), *NAMES])
        change = rng.randrange(4)
        if change == 0:
            section.pop(key, None)
        elif change == 1:
            section["_target_"] = rng.choice(TARGETS)
        elif change == 2:
            section[key] = copy.deepcopy(rng.choice([*config.values(), {"_target_": rng.choice(TARGETS)}]))
        else:
            section[key] = rng.choice(PLAIN)
    return config


class MeansSomethingError(Exception):
    """A random command line that happens to be valid and would train."""


@pytest.mark.slow
def test_wrong_overrides_are_one_line(monkeypatch, capsys):
    def open_run(path, experiment):
        raise MeansSomethingError

    monkeypatch.setattr(training, "open_run", open_run)
    rng = random.Random(0)
    keys, refused = [*dotted(compose([])), *KEYS], 0
    while refused < 300:
        override = random_override(rng, keys)
        try:
            assert trainer_pure.main([override]) == 2, override
        except MeansSomethingError:
            continue
        out, error = capsys.readouterr()
        assert out == "" and error.startswith("error: ") and error.count("\n") == 1, override
        refused += 1


@pytest.mark.slow
def test_configuration_files_are_built_of_our_own_or_refused_in_one_line(tmp_path, monkeypatch, capsys):
    """Runs no command and imports no foreign module; accepted files name only classes of src_pure."""
    ran = []
    for module, name in ((subprocess, "getoutput"), (subprocess, "Popen"), (os, "system")):
        monkeypatch.setattr(module, name, lambda *args, **kwargs: ran.append(args))
    rng, file = random.Random(0), tmp_path / "config.yaml"
    bases = [build(compose(options)).config for options in (["model=gru"], ["task=bsuite", "encoder=mlp", "algo=a2c"])]
    refused = 0
    for _ in range(300):
        config = random_config(rng, rng.choice(bases))
        file.write_text(yaml.dump(config))  # writes an alias where a value occurs twice
        code = trainer_pure.main(["--config", str(file), "--help"])
        out, error = capsys.readouterr()
        if code == 0:
            experiment = build(compose([], file))
            parts = (experiment.env.env, experiment.policy.encoder, experiment.policy.memory, experiment.algo)
            assert all(type(part).__module__.startswith("src_pure.") for part in parts), config
        else:
            assert code == 2 and out == "" and error.startswith("error: ") and error.count("\n") == 1, config
            assert error.strip().isprintable() and len(error) < 3_000, config
            refused += 1
    assert 200 < refused < 300 and not ran and "mine" not in sys.modules
