"""Checks the values of a configuration against the types that the code declares; errors name the key."""

import re
from typing import Any, get_args

import pydantic

from src_pure.config.names import COMPONENTS, experiment_groups, unknown_key
from src_pure.config.settings import keys_of
from src_pure.errors import ConfigError, shown

MAX_DEPTH = 16  # nested sections, lists and dictionaries
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")  # becomes the name of a folder


def validate(annotation: Any, value: Any, path: str) -> Any:
    """The value converted to the annotated type; raises ConfigError naming the first wrong key."""
    try:
        typed = pydantic.TypeAdapter(annotation).validate_python(value)
    except pydantic.ValidationError as error:
        raise config_error(error, annotation, path) from None
    except pydantic.errors.PydanticUserError as error:  # pydantic cannot validate this annotation
        raise ConfigError(f"{path} cannot be set in a configuration") from error
    refuse_other_kinds(annotation, value, path)
    return typed


def refuse_other_kinds(annotation: Any, value: Any, path: str) -> None:
    """Raises ConfigError for true or text in place of a number, also in lists: pydantic would read "8" as 8."""
    if isinstance(value, list):
        for item in value:
            refuse_other_kinds(annotation, item, path)
    elif isinstance(value, bool | str) and not declares(annotation, type(value)):
        raise ConfigError(f"{path} must be a number, got {shown(value)}")


def declares(annotation: Any, kind: type) -> bool:
    """Whether an annotation allows values of this type."""
    if annotation is Any or isinstance(annotation, kind):  # an instance: a value of a Literal
        return True
    return annotation is kind or any(declares(part, kind) for part in get_args(annotation))


def config_error(error: pydantic.ValidationError, annotation: Any, path: str) -> ConfigError:
    """The first error that pydantic found, in terms of the configuration."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in (path, *first["loc"]) if part != "")
    if first["type"] == "extra_forbidden":
        return unknown_key(key, [*keys_of(annotation), *COMPONENTS, *(f"+{group}" for group in experiment_groups())])
    if first["type"] == "missing":
        return ConfigError(f"{key} is missing; leave it at its default instead of deleting it")
    got = shown(first["input"])
    if first["type"] == "model_type":
        return ConfigError(f"{key} is a section: set its values as {key}.NAME=VALUE, got {got}")
    if first["type"] in ("tuple_type", "list_type"):
        return ConfigError(f"{key} must be a list, such as [{got}], got {got}")
    if first["type"] in ("int_parsing_size", "int_from_float") and abs(float(first["input"])) >= 2**63:
        return ConfigError(f"{key} must be a smaller number, got {got}")
    message = first["msg"].removeprefix("Value error, ")
    wanted = f" must be {message.removeprefix('Input should be ')}" if "Input should be" in message else f": {message}"
    return ConfigError(f"{key}{wanted}, got {got}")


def check_plain(value: Any, path: str = "", depth: int = 0) -> None:
    """Raises ConfigError unless a value could stand in a YAML or JSON file, nested at most MAX_DEPTH deep."""
    what = path or "a configuration"
    if depth > MAX_DEPTH:
        raise ConfigError(f"{what[:100]} has more than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ConfigError(f"{what}: a key must be text, got {shown(key)}")
            check_plain(item, f"{path}.{key}" if path else key, depth + 1)
    elif isinstance(value, list):
        for item in value:
            check_plain(item, path, depth + 1)
    elif value is not None and not isinstance(value, str | int | float):
        raise ConfigError(f"{what} must be a plain value, got {shown(value)}")


def check_name(name: Any, path: str) -> str:
    """The name, if a folder's name can contain it; else raises ConfigError."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ConfigError(
            f"{path} must be 1 to 64 letters, digits, '.', '_' and '-', not beginning with '.', got {shown(name)}"
        )
    return name
