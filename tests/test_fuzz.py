"""Random wrong overrides: exit code 2 and one line, never a traceback."""

import random

import pytest

import trainer_pure
from src_pure.build import compose, dotted

VALUES = "nan -1 0 1.5 [] {} '' null true [1,2] {a:1} ${oops} 1e400 é = a|b".replace("|", " |").split(" ")
KEYS = ["nope", "task.nope", "+nope.deeper", "++model", "algo", "@x", "=", "model@y", "+tmaze", "a=b=c", "checkpoint."]


def random_override(rng: random.Random, keys: list[str]) -> str:
    key = rng.choice(keys)
    if rng.random() < 0.3:
        place = rng.randrange(len(key) + 1)
        key = key[:place] + rng.choice("x.~+@ ${}[]=,'\"\\") + key[place:]
    return f"{rng.choice(['', '', '+', '++', '~'])}{key}{rng.choice(['=', '=', '=', ''])}{rng.choice(VALUES)}"


class MeansSomethingError(Exception):
    """A random command line that happens to be right: it would train."""


@pytest.mark.slow
def test_wrong_overrides_are_one_line(monkeypatch, capsys):
    def opened(path, experiment):
        raise MeansSomethingError

    monkeypatch.setattr(trainer_pure, "opened", opened)
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
