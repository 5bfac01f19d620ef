"""A configuration from a stranger runs no code: what it may name, and what an explicit word adds."""

import json
import sys
from types import SimpleNamespace

import pytest
import yaml

import trainer_pure
from scripts import bsuite_score, export, watch
from src_pure import load_policy
from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.config.targets import KINDS, instantiate
from src_pure.errors import ConfigError
from src_pure.results import bsuite
from src_pure.runs import policies

GRU = {"_target_": "src_pure.models.rnn.GRU", "size": 8}
SHELL = "touch {mark}"

# (component, what it is set to): each runs a command, imports a module, or makes something of another kind, if it can
HOSTILE = [
    *((group, {"_target_": "subprocess.getoutput", "cmd": SHELL}) for group in KINDS),
    ("encoder", {"_target_": "subprocess.Popen", "args": SHELL, "shell": True}),
    ("encoder", {"_target_": "os.system", "command": SHELL}),
    ("encoder", {"_target_": "os:system", "command": SHELL}),
    ("encoder", {"_target_": "posix.system", "command": SHELL}),
    ("encoder", {"_target_": "builtins.exec", "source": SHELL}),
    ("encoder", {"_target_": "builtins.open", "file": "{mark}", "mode": "w"}),
    ("encoder", {"_target_": "runpy.run_path", "path_name": "evil/__init__.py"}),
    ("encoder", {"_target_": "importlib.import_module", "name": "evil"}),
    ("encoder", {"_target_": "pkgutil.resolve_name", "name": "evil"}),
    ("encoder", {"_target_": "hydra.utils.call", "config": {"_target_": "os.system"}}),
    ("encoder", {"_target_": "hydra.utils.get_method", "path": "os.system"}),
    ("encoder", {"_target_": "functools.partial", "_args_": ["os.system"]}),
    ("encoder", {"_target_": "flax.linen.Dense", "features": 8}),
    ("encoder", {"_target_": "numpy.load", "file": "evil.npy", "allow_pickle": True}),
    ("encoder", {"_target_": "pickle.loads"}),
    *((group, {"_target_": "evil.Evil"}) for group in KINDS),
    ("encoder", {"_target_": "evil:Evil"}),
    ("encoder", {"_target_": "evil"}),
    ("encoder", {"_target_": "src_pure_evil.Evil"}),
    ("encoder", {"_target_": "src_pure.models.evil.Evil"}),
    ("encoder", {"_target_": "src_pure.models:evil.Evil"}),
    ("encoder", {"_target_": "src_pure.models.encoders.jnp.load"}),
    ("encoder", {"_target_": "src_pure.models.encoders:lax.map"}),
    ("encoder", {"_target_": "src_pure.models.encoders.__loader__"}),
    ("encoder", {"_target_": "src_pure.models.encoders.Flatten.__class__"}),
    ("encoder", {"_target_": "src_pure.models.encoders.flatten"}),
    ("encoder", {"_target_": "src_pure.models.encoders.dense"}),
    ("encoder", {"_target_": "src_pure.models.encoders"}),
    ("encoder", {"_target_": "src_pure.models.encoders."}),
    ("encoder", {"_target_": ".src_pure.models.encoders.Flatten"}),
    ("encoder", {"_target_": "src_pure.models.encoders.Flatten "}),
    ("encoder", {"_target_": "src_pure/models/encoders.Flatten"}),
    ("encoder", {"_target_": "\u0455rc_pure.models.encoders.Flatten"}),  # a Cyrillic letter
    ("encoder", {"_target_": "src_pure.build.hydra.utils.call"}),
    ("encoder", {"_target_": "src_pure.build.build"}),
    ("encoder", {"_target_": "src_pure.load_policy", "folder": "evil"}),
    ("encoder", {"_target_": "src_pure.config.files.read_bytes", "path": "evil"}),
    ("encoder", {"_target_": ["os.system"]}),
    ("encoder", {"_target_": {"_target_": "os.system"}}),
    ("encoder", {"_target_": 3}),
    ("encoder", {"_target_": None}),
    ("encoder", {"_target_": ""}),
    ("encoder", {"_target_": "."}),
    ("encoder", {"_target_": "a" * 50_000}),
    ("encoder", {"_target_": "src_pure.models.rnn.GRU"}),
    ("encoder", {"_target_": "src_pure.models.encoders.MLPEncoder", "_args_": [[8]]}),
    ("encoder", {"_target_": "src_pure.models.encoders.MLPEncoder", "_partial_": True}),
    ("encoder", {"_target_": "src_pure.models.encoders.MLPEncoder", "_recursive_": True}),
    ("encoder", {"_target_": "src_pure.models.encoders.MLPEncoder", "sizes": {"_target_": "os.system"}}),
    ("encoder", {"_target_": "src_pure.models.encoders.MLPEncoder", "parent": GRU}),
    ("model", {"_target_": "src_pure.models.policy.ActorCritic", "encoder": GRU, "memory": GRU, "num_actions": 2}),
    ("model", {"_target_": "src_pure.models.base.MemoryModel"}),
    ("model", {"_target_": "src_pure.models.rnn.gru_cell"}),
    ("model", GRU | {"size": "${oc.env:HOME}"}),
    ("model", GRU | {"size": "${oc.decode:8}"}),
    ("model", GRU | {"name": "../../x"}),
    ("task", {"_target_": "src_pure.envs.base.Environment"}),
    ("task", {"_target_": "src_pure.envs.vector.VectorEnv"}),
    ("task", {"_target_": "src_pure.envs.history.WithHistory", "env": {"_target_": "os.system"}}),
    ("task", {"_target_": "src_pure.envs.memory_chain.distributed_schedule", "memory_length": 3, "num_bits": 3}),
    ("task", {"_target_": "src_pure.envs.spaces.Box", "low": 0, "high": 1, "shape": [3]}),
    ("task", {"_target_": "src_pure.envs.gymnax.Gymnax", "options": {"_target_": "os.system", "command": SHELL}}),
    ("task", {"_target_": "src_pure.envs.gymnax.Gymnax", "env_name": "os.system"}),
    ("algo", {"_target_": "src_pure.algos.base.Algorithm"}),
    ("algo", {"_target_": "src_pure.algos.ppo.Distribution"}),
    ("algo", {"_target_": "src_pure.algos.optimizer.adam"}),
]


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A current folder, importable, with a package evil that leaves a mark when it is imported."""
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "__init__.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\nclass Evil: pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("evil", "mine", "mine.models", "broken"):
        sys.modules.pop(name, None)


def marked(component, folder):
    """The component with the path of the mark filled in."""
    return json.loads(json.dumps(component).replace("{mark}", str(folder / "mark")))


def refused(arguments, capsys):
    assert trainer_pure.main(arguments) == 2, arguments
    out, error = capsys.readouterr()
    assert out == "" and error.startswith("error: ") and error.count("\n") == 1, arguments


def test_a_hostile_file_runs_nothing(stranger, capsys):
    """Read with --help, the first thing a user does with it, and as JSON in a checkpoint or policy."""
    config = build(compose(["model=gru"])).config
    for group, component in HOSTILE:
        hostile = config | {group: marked(component, stranger)}
        (stranger / "hostile.yaml").write_text(yaml.safe_dump(hostile))
        refused(["--config", "hostile.yaml", "--help"], capsys)
        with pytest.raises(ConfigError):
            build(json.loads(json.dumps(hostile)))
        assert not (stranger / "mark").exists(), component
    assert "evil" not in sys.modules


@pytest.mark.slow
def test_hostile_arguments_run_nothing(stranger, capsys):
    for group, component in HOSTILE:
        values = marked(component, stranger)
        refused([*(f"++{group}.{key}={json.dumps(value)}" for key, value in values.items()), "--help"], capsys)
        assert not (stranger / "mark").exists(), component
    assert "evil" not in sys.modules


def test_an_exported_policy_runs_nothing(stranger, monkeypatch):
    hostile = build(compose(["model=gru"])).config | {"model": {"_target_": "evil.Evil"}}
    monkeypatch.setattr(policies, "read_params", lambda folder: (SimpleNamespace(config=hostile), {}))
    with pytest.raises(ConfigError, match="add --trust evil"):
        load_policy(stranger)
    assert not (stranger / "mark").exists()
    with pytest.raises(ConfigError, match="must be a memory model: a flax module"):
        load_policy(stranger, trust=("evil",))
    assert (stranger / "mark").exists()


@pytest.mark.parametrize("script", [watch, export, bsuite_score])
def test_scripts_run_nothing(script, stranger, monkeypatch, capsys):
    """They read the configuration of a run folder; --trust reaches the place where it is built."""
    hostile = build(compose(["model=gru"])).config | {"model": {"_target_": "evil.Evil"}}
    checkpoint = SimpleNamespace(config=hostile, update=1, path=stranger)
    monkeypatch.setattr(policies, "latest", lambda folder, identity: (checkpoint, {}))
    monkeypatch.setattr(policies, "read_identity", lambda folder: None)
    monkeypatch.setattr(policies.RunDir, "continuable", lambda path: True)
    monkeypatch.setattr(bsuite, "read_config", lambda path: hostile)
    for trust, message in (([], "add --trust evil"), (["--trust", "evil"], "must be a memory model: a flax module")):
        assert script.main([str(stranger), *trust]) == 2
        assert message in capsys.readouterr().err
        assert (stranger / "mark").exists() == bool(trust)


def test_the_error_names_the_word_that_allows(stranger):
    (stranger / "mine").mkdir()
    (stranger / "mine" / "models.py").write_text(
        "from src_pure.models.rnn import GRU\nclass Mine(GRU): pass\ndef make(size: int) -> Mine: return Mine(size)\n"
        "def other(size: int) -> Mine: return size\n"
    )
    component = {"_target_": "mine.models.Mine", "size": 8}
    with pytest.raises(ConfigError, match=r"add --trust mine \(in Python trust=\('mine',\)\)"):
        instantiate(component, "model")
    for trust in (("mine",), ("mine.models",), ["other", "mine"], "mine"):
        assert instantiate(component, "model", trust).size == 8
    for trust in (("min",), ("mine.mod",), ("m",)):
        with pytest.raises(ConfigError, match="add --trust mine"):
            instantiate(component, "model", trust)
    assert instantiate(component | {"_target_": "mine.models.make"}, "model", ["mine"]).size == 8
    with pytest.raises(ConfigError, match="must make a memory model, got int"):
        instantiate(component | {"_target_": "mine.models.other"}, "model", ["mine"])
    command = ["model=gru", "model._target_=mine.models.Mine", "--help"]
    assert trainer_pure.main(command) == 2
    assert trainer_pure.main([*command, "--trust", "mine"]) == 0
    assert trainer_pure.main([*command, "--trust=mine", "--trust=other"]) == 0


def test_trust_is_for_the_named_package_alone(stranger):
    """What it imports from elsewhere stays refused, and so does a class of another kind."""
    (stranger / "mine.py").write_text("from flax.linen import Dense\nfrom subprocess import getoutput\n")
    with pytest.raises(ConfigError, match="add --trust flax "):
        instantiate({"_target_": "mine.Dense", "features": 3}, "encoder", ["mine"])
    for name in ("mine.getoutput", "subprocess.getoutput"):
        with pytest.raises(ConfigError, match="must be an encoder: a flax module with __call__"):
            instantiate({"_target_": name, "cmd": f"touch {stranger / 'mark'}"}, "encoder", ["mine", "subprocess"])
    assert not (stranger / "mark").exists()


@pytest.mark.parametrize("trust", ["", ".", "*", "my-package", "../x", "a.", "mine/models"])
def test_trust_is_the_name_of_a_package(trust):
    with pytest.raises(ConfigError, match="--trust must be the name of a package"):
        instantiate(GRU, "model", [trust])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise RuntimeError('at import')", "cannot be imported: 'broken.Model': RuntimeError: at import"),
        ("import sys\nsys.exit(1)", "SystemExit: 1"),
        ("def", "SyntaxError|invalid syntax"),
        ("class Model(GRU):\n    def __post_init__(self): raise KeyError('a\\nb')", "model: KeyError: 'a"),
        ("class Model(GRU):\n    def __post_init__(self): 1 / 0", "model: ZeroDivisionError: division by zero"),
        ("class Model(GRU):\n    other: 'Missing' = 1", "model: NameError: name 'Missing' is not defined"),
        ("class Model(GRU):\n    size: GRU = None", "model.size cannot be set in a configuration"),
    ],
)
def test_a_trusted_class_that_raises_is_one_line(body, message, stranger):
    (stranger / "broken.py").write_text(f"from src_pure.models.rnn import GRU\n{body}\n")
    with pytest.raises(ConfigError, match=message) as error:
        build(compose(["model=gru", "model._target_=broken.Model"]), ["broken"])
    assert "\n" not in str(error.value)
