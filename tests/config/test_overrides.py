"""What a command line may say: the grammar, its hints, and values of the wrong type."""

import inspect
import os
import re
import time

import pytest

import trainer_pure
from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.config.names import COMPONENTS, known_names
from src_pure.config.settings import Settings, is_text, keys_of
from src_pure.config.targets import resolve
from src_pure.errors import ConfigError

TEXTS = [
    "runs/lr=1e-3", "runs/läufe (1)", "12345", "1e5", "true", "a,b", "[x]", "{x}", "${x}", "a: b", "#x", "x #y", "'",
    "it's", "*x", "&x", "!x", "%x", "@x", "`x`", "null x", "Null", "-", "range(3)", "a'b'", " ", "\\", "🙂",
]  # fmt: skip


def test_text_is_what_the_settings_declare():
    assert {key for key in keys_of(Settings) if is_text(key)} == {
        *("run_dir", "warm_start", "resume", "checkpoint.metric", "vector.truncation", "vector.resets", "devices"),
        *("wandb.mode", "wandb.project", "wandb.group", "wandb.name"),
    }
    assert is_text("task.name") and is_text("model._target_") and not is_text("task.env_name")


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_literal_and_survives_a_file(text, tmp_path):
    experiment = build(
        compose([f"run_dir={text}", f"wandb.name={text}", f"warm_start={text}", f"wandb.group='{text}'"])
    )
    settings = experiment.settings
    assert (settings.run_dir, settings.wandb.name, settings.warm_start, settings.wandb.group) == (text,) * 4
    file = tmp_path / "config.yaml"
    file.write_text(experiment.config_yaml)
    assert build(compose([], file)).settings.wandb.name == text


def test_null_quotes_and_home():
    assert compose(["run_dir=null"])["run_dir"] is None
    assert compose(["run_dir='null'"])["run_dir"] == "null"
    assert compose(['run_dir="runs/läufe"'])["run_dir"] == "runs/läufe"
    settings = build(compose(["run_dir=~/x", "warm_start=~/y", "wandb.name=~/z"])).settings
    assert (settings.run_dir, settings.warm_start) == (os.path.expanduser("~/x"), os.path.expanduser("~/y"))
    assert settings.wandb.name == "~/z"


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("total_steps=1e6", 1e6),
        ("total_steps=1_000_000", 1_000_000),
        ("total_steps=+2000000", 2_000_000),
        ("algo.gamma=.5", 0.5),
        ("algo.gamma=1", 1),
        ("algo.learning_rate=2.5E-4", 2.5e-4),
        ("algo.max_grad_norm=inf", float("inf")),
        ("algo.max_grad_norm=.inf", float("inf")),
        ("evaluation.interval= 3", 3),
        ("tensorboard=true", True),
        ("policy.head_size=null", None),
        ("+task.options={a: 1, b: [x, 2]}", {"a": 1, "b": ["x", 2]}),
        ("+task.options={a:1,'b:c':true}", {"a": 1, "b:c": True}),
        ("+task.options.a.b=1", {"a": {"b": 1}}),
        ("+task.sides=[1,2]", [1, 2]),
        ("task.variant=on", "on"),
        ("task.variant=2020-01-01", "2020-01-01"),
        ("task.variant='1,2'", "1,2"),
        ("++seed=3", 3),
    ],
)
def test_other_values_are_plain_yaml(override, value):
    keys = override.lstrip("+").partition("=")[0].split(".")
    config = compose([override])
    for key in keys[: 1 if len(keys) == 1 else 2]:
        config = config[key]
    assert config == value and type(config) is type(value)


def test_a_dictionary_changes_the_entries_that_it_names():
    assert compose(["checkpoint={keep: 3}"]) == compose(["checkpoint.keep=3"])
    with pytest.raises(ConfigError, match=r"unknown key checkpoint.kep; did you mean checkpoint.keep\?"):
        compose(["checkpoint={kep: 3}"])


# wrong commands, each of which says what to write instead
HINTED = [
    ["seed=0,1,2"], ["seed=[0,1,2]"], ["seed=[3, 4]"], ["seed=range(3)"], ["seed=range(2,5)"], ["seed=1,5,9"],
    ["seed=0..4"], ["seed=choice(0,1)"], ["seed=all"], ["--multirun", "seed=0"], ["-m"], ["model.d_ffc=64,128"],
    ["model.d_ffc=[64,128]"], ["algo.learning_rate=1e-3,1e-4"], ["model.d_ffc=choice(64,128)"],
    ["encoder=mlp", "encoder.sizes=64,64"], ["encoder=mlp", "encoder.sizes=(64,64)"], ["tmaze=agalite"],
    ["+tmaze=agalit"], ["+model=gru"], ["++model=gru"], ["model=grru"], ["mdel=gru"], ["nun_envs=8"],
    ["+nun_envs=8"], ["task.corridr_len=3"], ["+task.corridr_len=3"], ["algo.num_steps=64"],
    ["+tmaze=gru", "+bsuite=gru"], ["checkpoint.mintes=2"],
    ["task=gymnax", "task.env_name=MemoryChain-bsuite", "task.options.num_bits=2"],
    ["task=gymnax", "task.env_name=CartPole"], ["task._target_=tests.probes.BrokenTMaze"],
    ["trust=tests"], ["++tmaze=agalit"], ["tmaze=agalit"], ["encoder=mlp", "+encoder.sizes=8,8"], ["+seed=0,1"],
]  # fmt: skip


def corrected(arguments, message):
    """The arguments as the message says; None if it does not say how."""
    if match := re.search("leave out ([^;]+)", message):
        arguments = [text for text in arguments if text not in (*match[1].split(), "-m")]
        if "write" not in message:
            return arguments
    wrong = arguments[-1] if arguments else ""
    key, _, value = wrong.partition("=")
    if match := re.search(r"--trust (\w+)", message):
        return [*arguments, "--trust", match[1]]
    if match := re.search(r"write ([^;]+)", message):
        return [*arguments[:-1], *match[1].split()]
    if match := re.search(r"did you mean (\S+)\?", message):
        new = match[1] if "unknown key" in message or "=" in match[1] else f"{key}={match[1]}"
        return [*arguments[:-1], new if "=" in new else wrong.replace(key.strip("+"), new, 1)]
    if match := re.search(r"follows from (\w+): set that", message):
        return [*arguments[:-1], f"{match[1]}={value}"]
    return None


@pytest.mark.parametrize("arguments", HINTED, ids=" ".join)
def test_every_hint_leads_to_a_command_that_works(arguments, capsys):
    assert trainer_pure.main([*arguments, "--help"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and not re.search("hydra|omegaconf|token|LexerNoViable|mismatched", message, re.I)
    right = corrected(arguments, message.removeprefix("error: ").strip())
    assert right is not None, message
    assert trainer_pure.main([*right, "--help"]) == 0, (message, right, capsys.readouterr().err)


WRONG_ARGUMENTS = [
    "", "=", "=3", "seed", "x y", "seed=", "seed=[", "seed={", "seed='", "seed=\"", "seed=&a", "seed=*a",
    "seed=!!int 3", "seed=a: b: c", "seed=\t- 1", "seed=%", "seed=1\n2", "seed.x=3", "seed=" + "9" * 5000,
    "num_envs=" + "[" * 5000, "a" * 100_000 + "=1", "+" + "a." * 5000 + "a=1", "policy=3", "wandb.mode=null",
    "task.name=", "task.name=a/b", "task.name=..", "task.name=" + "a" * 65, "run_dir=a\x1b[31mb", "run_dir=\udcff",
    "model.name=../x", "algo.name=a b", "task.name=\x00", "wandb.name=a\nb",
]  # fmt: skip


@pytest.mark.parametrize("argument", WRONG_ARGUMENTS, ids=range(len(WRONG_ARGUMENTS)))
def test_wrong_arguments_are_one_short_line(argument, capsys):
    begun = time.process_time()
    assert trainer_pure.main([argument, "--help"]) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.startswith("error: ") and error.count("\n") == 1
    assert len(error) < 2_000 and error.strip().isprintable()
    assert time.process_time() - begun < 5


VALUES = (3, -1, 1.5, "x", True, None, [], {}, [1], {"a": 1}, "", [[]], {"_target_": "os.system"}, "${seed}", 1e400)


def test_wrong_types_are_one_line():
    """Every value in place of every key is built or refused."""
    config = build(compose(["model=gru", "model.size=8", "encoder=mlp", "task.corridor_len=3"])).config
    sections = [config, *(value for value in config.values() if isinstance(value, dict))]
    places = [(section, key) for section in sections for key in section]
    accepted = 0
    for section, key in places:
        before = section[key]
        for value in VALUES:
            section[key] = value
            try:
                build(config)
                accepted += 1
            except ConfigError as error:
                assert str(error).isprintable() and len(str(error)) < 1_000
        section[key] = before
    assert accepted < len(places) * len(VALUES) / 4
    for value in (3, None, [], "x", {1: 2}, {None: 1}, {"task": (1,)}):
        with pytest.raises(ConfigError):
            build(value)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("wandb={name: http://x}", {"name": "http://x"}),
        ("wandb={name:a}", {"name": "a"}),
        ('wandb={name: "a:b"}', {"name": "a:b"}),
        (" seed=3", 3),
    ],
)
def test_values_are_what_was_typed(override, value):
    key = override.partition("=")[0].strip()
    found = compose([override])[key]
    assert found == (found | value if isinstance(value, dict) else value)


@pytest.mark.parametrize(
    ("override", "error"),
    [
        ("algo.learning_rate=0,001", "write algo.learning_rate=0.001"),
        ("num_envs=[]", "num_envs must be one value"),
        ("num_envs=- 8", "write num_envs=8"),
        ("run_dir.x=1", "run_dir is a single value"),
        ("task.=3", "must be KEY=VALUE"),
        ("encoder.sizes=8", "encoder.sizes must be a list, such as [8]"),
        ("encoder.sizes=[true]", "encoder.sizes must be a number, got True"),
        ('encoder.sizes=[8,"8"]', "encoder.sizes must be a number, got '8'"),
        ("total_steps=1e19", "total_steps must be a smaller number"),
        ("observation=true", "observation is a section"),
        ("wandb.x=1", "known: wandb.group, wandb.mode, wandb.name, wandb.project"),
        ("model.r=2147483647", "model.r must be less than 129"),
        ("algo.update_epochs=2147483647", "algo.update_epochs * num_envs must be below 2**31"),
    ],
)
def test_other_wrong_values_are_named(override, error):
    with pytest.raises(ConfigError, match=re.escape(error)):
        build(compose(["encoder=mlp", override]))


def test_one_experiment_at_a_time():
    with pytest.raises(ConfigError, match=r"leave out \+tmaze=lstm"):
        compose(["+tmaze=gru", "+tmaze=lstm"])


@pytest.mark.parametrize("group", COMPONENTS)
def test_defaults_of_files_and_classes_agree(group):
    """Of the files that name one class, one holds exactly the defaults of the class; the others are variants."""
    differing = {}
    for name in known_names(group):
        component = compose([f"{group}={name}"])[group]
        parameters = inspect.signature(resolve(component["_target_"], group, ())).parameters
        defaults = {key: x.default for key, x in parameters.items() if key != "name" and x.default is not x.empty}
        given = {key: tuple(x) if isinstance(x, list) else x for key, x in component.items() if key in defaults}
        wrong = {key: (x, defaults[key]) for key, x in given.items() if x != defaults[key]}
        differing.setdefault(component["_target_"], []).append(wrong)
    assert {target: min(wrong, key=len) for target, wrong in differing.items()} == {target: {} for target in differing}
