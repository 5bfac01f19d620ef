"""Memory Maze under the names that the original registers."""

from typing import Any, Literal

from src_pure.envs.memory_maze import MemoryMaze
from src_pure.envs.names import check_name
from src_pure.types import FiniteFloat, PositiveInt

TOP: dict[str, Any] = {"view": "top", "resolution": 256}
VARIANTS: dict[str, dict[str, Any]] = {  # the part of the name after the size
    "": {},
    "Vis": {"low_walls": True},
    "HD": {"resolution": 256},
    "Top": TOP,
    "ExtraObs": {},
    "ExtraObs-Vis": {"low_walls": True},
    "ExtraObs-Top": TOP,
    "Oracle": {"minimap": True},
    "Oracle-Top": {"minimap": True, **TOP},
    "Oracle-ExtraObs": {"minimap": True},
    "HiFreq": {"frequency": 40},
    "HiFreq-Vis": {"frequency": 40, "low_walls": True},
    "HiFreq-HD": {"frequency": 40, "resolution": 256},
    "6CL": {"shuffle_colors": True},
    "6CL-Top": {"shuffle_colors": True, **TOP},
    "6CL-ExtraObs": {"shuffle_colors": True},
}
NAMES: dict[str, dict[str, Any]] = {
    "-".join(filter(None, (f"MemoryMaze-{size}x{size}", variant, "v0"))): {"size": size, **options}
    for size in (9, 11, 13, 15)
    for variant, options in VARIANTS.items()
}


def memory_maze_task(
    env_name: str,
    observation: Literal["pixels", "symbolic", "extra"] = "pixels",
    textures: bool = True,
    actions: Literal["discrete", "continuous"] = "discrete",
    time_limit: PositiveInt | None = None,
    reward_target: FiniteFloat = 1.0,
    maze: tuple[str, ...] | None = None,
    cue_steps: PositiveInt | None = None,
) -> MemoryMaze:
    """The Memory Maze of a published name; those with Oracle have no symbolic observation.

    ExtraObs shows the same picture; what it adds comes from `extra_observations`, or alone with observation="extra".
    """
    check_name(env_name, NAMES)
    return MemoryMaze(
        **NAMES[env_name],
        observation=observation,
        textures=textures,
        actions=actions,
        time_limit=time_limit,
        reward_target=reward_target,
        maze=maze,
        cue_steps=cue_steps,
    )
