"""Makes objects from the classes that a configuration names: this project's, and those that the caller trusts.

A configuration may come from a stranger, and importing or calling what it names runs code. Therefore a name is checked
before anything is imported, its class must be of the right kind, and its values must match the declared types.
"""

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Sequence
from types import UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import flax.linen as nn
import jax

from src_pure.config.names import DERIVED, unknown_key
from src_pure.config.validation import check_name, check_plain, validate
from src_pure.errors import ConfigError, naming, shown

TRUST_HELP = "package whose classes a configuration may name, besides this project's own; may be repeated"


class Kind(NamedTuple):
    """What the class of a component must provide."""

    what: str
    home: str  # the package of this project's own classes
    methods: tuple[str, ...]
    base: type = object


KINDS = {
    "task": Kind("an environment", "src_pure.envs", ("reset_env", "step_env", "observation_space", "action_space")),
    "model": Kind("a memory model", "src_pure.models", ("initialize_carry", "__call__"), nn.Module),
    "encoder": Kind("an encoder", "src_pure.models", ("__call__",), nn.Module),
    "policy": Kind("a policy", "src_pure.models", ("initialize_carry", "__call__", "distribution"), nn.Module),
    "algo": Kind("an algorithm", "src_pure.algos", ("check", "optimizer", "init", "explore", "update", "schedule_end")),
}


def instantiate(component: dict[str, Any], group: str, trust: Sequence[str] = (), **derived: Any) -> Any:
    """The object that a component's _target_ makes from its values, checked against their annotations, and `derived`.

    The target is a class, or a function annotated to return one. Raises ConfigError for everything else. Imports and
    calls run in 32 bits even under JAX_ENABLE_X64, because both may create constants that training computes with.
    """
    check_plain(component, group)
    check_name(component.get("name", group), f"{group}.name")
    values = {key: value for key, value in component.items() if key not in ("_target_", "name")}
    target = resolve(component.get("_target_"), group, trust)
    with jax.enable_x64(False), naming(group):
        parameters = parameters_of(target, group)
        for key in values:
            if key not in parameters:
                raise unknown_key(f"{group}.{key}", [f"{group}.{known}" for known in parameters])
        given = {key: validate(parameters[key], value, f"{group}.{key}") for key, value in values.items()}
        made = target(**given, **derived)
    if not is_kind(type(made), KINDS[group]):
        raise ConfigError(f"{group}._target_ must make {KINDS[group].what}, got {type(made).__name__}")
    return made


def parameters_of(target: Any, group: str) -> dict[str, Any]:
    """The parameters of a target that a configuration sets, with their annotations; Any without one."""
    annotations = get_type_hints(target, include_extras=True)
    if isinstance(target, type):
        annotations |= get_type_hints(target.__init__, include_extras=True)
    names = [name for name in inspect.signature(target).parameters if name not in ("parent", "name")]
    return {name: annotations.get(name, Any) for name in names if f"{group}.{name}" not in DERIVED}


def resolve(name: Any, group: str, trust: Sequence[str]) -> Any:
    """The class or function of a dotted name; its module is imported only if that is allowed."""
    kind, path = KINDS[group], f"{group}._target_"
    allowed = (kind.home, *package_names(trust))
    if not isinstance(name, str) or name.count(".") < 1 or not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f"{path} must be the dotted name of a class, got {shown(name)}")
    if not within(name, allowed):
        raise refused(path, kind, name)
    module, _, attribute = name.rpartition(".")
    with jax.enable_x64(False), naming(f"{path} cannot be imported: {name!r}"):
        target = getattr(imported(module), attribute)
        if not is_kind(target, kind):
            raise ConfigError(f"{path} must be {described(kind)}, got {name!r}")
        for own in targets_of(target):
            if not within(f"{own.__module__}.{own.__qualname__}", allowed):
                if within(name, (kind.home,)):  # imported here but defined elsewhere: not a component
                    raise ConfigError(f"{path} must be {kind.what} of {kind.home}, got {name!r}")
                raise refused(path, kind, f"{own.__module__}.{own.__qualname__}")
    return target


def imported(module: str) -> Any:
    """The imported module; a trusted package may also lie in the current folder."""
    package = module.partition(".")[0]
    if importlib.util.find_spec(package) is None and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    return importlib.import_module(module)


def package_names(trust: Sequence[str]) -> tuple[str, ...]:
    """The names of trusted packages; raises ConfigError for anything else."""
    names = (trust,) if isinstance(trust, str) else tuple(trust)
    for name in names:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise ConfigError(f"--trust must be the name of a package, such as my_package, got {shown(name)}")
    return names


def within(name: str, packages: Sequence[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def targets_of(target: Any) -> tuple[Any, ...]:
    """The class or function itself, and the classes that the function is annotated to return."""
    if isinstance(target, type):
        return (target,)
    returned = get_type_hints(target).get("return")
    union = get_origin(returned) in (Union, UnionType)
    return (target, *(get_args(returned) if union else (returned,)))


def is_kind(target: Any, kind: Kind) -> bool:
    """Whether a target is a class of this kind, or a function annotated to return one."""
    if inspect.isfunction(target):
        return all(isinstance(made, type) and is_kind(made, kind) for made in targets_of(target)[1:])
    return (
        isinstance(target, type)
        and issubclass(target, kind.base)
        and all(any(name in vars(base) for base in target.__mro__) for name in kind.methods)
    )


def described(kind: Kind) -> str:
    methods = ", ".join(f"{name}()" for name in kind.methods)
    module = "flax module" if kind.base is nn.Module else "class"
    return f"{kind.what}: a {module} with {methods}, or a function annotated to return one"


def refused(path: str, kind: Kind, name: str) -> ConfigError:
    """The error for a class that is neither trusted nor in this project's package of that kind."""
    package = name.partition(".")[0]
    if package == "src_pure":
        return ConfigError(f"{path} must be {kind.what} of {kind.home}, got {name!r}")
    return ConfigError(
        f"{path}: {name!r} is not code of src_pure, and to build it would run it; if you trust it, add "
        f"--trust {package} (in Python trust=({package!r},))"
    )
