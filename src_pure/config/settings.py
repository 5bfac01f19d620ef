"""The configuration without its components; configs/config.yaml explains every key."""

import os
from typing import Annotated, Any, Literal, TypeGuard, get_args, get_origin

import pydantic
from annotated_types import Ge, Gt, Lt, MinLen

from src_pure.config.names import COMPONENTS
from src_pure.types import NonNegativeInt, PositiveFloat, PositiveInt, Resets, Truncation


def printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("Input should be printable text in one line")
    return text


Text = Annotated[str, pydantic.AfterValidator(printable)]
Folder = Annotated[str, MinLen(1), pydantic.AfterValidator(printable), pydantic.AfterValidator(os.path.expanduser)]


class Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def refuse_other_kinds(cls, value: Any, info: pydantic.ValidationInfo) -> Any:
        """Rejects true for a number and text for anything else: pydantic alone would read true as 1 and "8" as 8."""
        name: Any = info.field_name  # never None for a field
        annotation = cls.model_fields[name].annotation
        if annotation is not bool and isinstance(value, bool) and not is_section(annotation):
            raise ValueError("Input should be a number")
        if isinstance(value, str) and not is_section(annotation) and not holds_text(annotation):
            wanted = (
                "true or false" if annotation is bool else "a valid integer" if is_integer(annotation) else "a number"
            )
            raise ValueError(f"Input should be {wanted}")
        return value


class Vector(Section):
    truncation: Truncation
    resets: Resets
    reset_ratio: PositiveInt | None


class Observation(Section):
    last_action: bool
    last_reward: bool


class Evaluation(Section):
    num_episodes: PositiveInt
    interval: NonNegativeInt
    max_steps: PositiveInt | None


class Checkpointing(Section):
    minutes: PositiveFloat | None
    updates: PositiveInt | None
    keep: PositiveInt
    metric: Text | None
    min_episodes: PositiveInt


class MetricsTable(Section):
    rows_per_run: PositiveInt | None


class Wandb(Section):
    mode: Literal["disabled", "offline", "online"]
    project: Text
    group: Text | None
    name: Text | None


class Settings(Section):
    num_envs: PositiveInt
    num_steps: PositiveInt
    total_steps: Annotated[int, Gt(0), Lt(2**63)]
    seed: NonNegativeInt
    num_seeds: PositiveInt
    lanes_per_block: PositiveInt | None
    devices: Literal["runs", "envs"]
    vector: Vector
    observation: Observation
    evaluation: Evaluation
    log_seconds: PositiveFloat | None
    metrics: MetricsTable
    wandb: Wandb
    tensorboard: bool
    run_dir: Folder | None
    warm_start: Folder | None
    resume: Literal["auto", "must", "never"]
    resume_anyway: bool
    checkpoint: Checkpointing
    grace_seconds: PositiveFloat

    @property
    def steps_per_update(self) -> int:
        return self.num_envs * self.num_steps

    @property
    def num_updates(self) -> int:
        return self.total_steps // self.steps_per_update

    @property
    def updates_per_row(self) -> int:
        """The number of updates that a row of metrics.parquet averages."""
        rows = self.metrics.rows_per_run
        return 1 if rows is None else -(-self.num_updates // rows)


class Sweep(Section):
    """The settings of a sweep, whose axes stand next to them in the configuration."""

    mode: Literal["grid", "random", "search"]
    samples: PositiveInt | None
    random_seed: NonNegativeInt
    trials: PositiveInt | None
    lanes: PositiveInt | None
    eta: Annotated[int, Ge(2)]
    rungs: PositiveInt
    metric: Text | None
    sampler: Literal["tpe", "random"]
    file: Folder | None
    points: list[dict[str, Any]] | None
    lanes_per_batch: PositiveInt | None


class Command(Settings):
    """What a command line sets besides components: the settings of trainings, and which trainings."""

    sweep: Sweep
    plan: Literal["only"] | None
    device: Text | None


def is_section(annotation: Any) -> TypeGuard[type[Section]]:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def is_integer(annotation: Any) -> bool:
    return annotation is int or any(is_integer(part) for part in get_args(annotation))


def holds_text(annotation: Any) -> bool:
    """Whether an annotation allows text, perhaps among other values; text inside a list does not count."""
    if get_origin(annotation) is list:
        return False
    return annotation is str or any(isinstance(part, str) or holds_text(part) for part in get_args(annotation))


def is_text(key: str) -> bool:
    """Whether a dotted key holds text; the command line then takes its value literally."""
    top, *rest = key.split(".")
    if top in COMPONENTS:
        return rest in (["name"], ["_target_"])
    annotation: Any = Command
    for name in (top, *rest):
        if not is_section(annotation) or name not in annotation.model_fields:
            return False
        annotation = annotation.model_fields[name].annotation
    return holds_text(annotation)


def keys_of(section: type[Section], prefix: str = "") -> list[str]:
    """All dotted keys of a section."""
    keys = []
    for name, field in section.model_fields.items():
        annotation = field.annotation
        keys += keys_of(annotation, f"{prefix}{name}.") if is_section(annotation) else [prefix + name]
    return keys
