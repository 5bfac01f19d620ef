"""Mystery Path under the names that the literature gives its four difficulties."""

from typing import Literal

from src_pure.envs.mystery_path import DEFAULT_SPEED, SIDES, MysteryPath
from src_pure.envs.names import check_name
from src_pure.types import FiniteFloat, NonNegativeFloat, PositiveInt

NAMES: dict[str, tuple[Literal["grid", "continuous"], bool]] = {  # name -> (variant, easy)
    "MysteryPath-Grid-Easy-v0": ("grid", True),
    "MysteryPath-Easy-v0": ("continuous", True),
    "MysteryPath-Grid-v0": ("grid", False),
    "MysteryPath-v0": ("continuous", False),
}
EASY_PATH_PROGRESS = 0.1


def mystery_path_task(
    env_name: str,
    time_limit: PositiveInt | None = None,
    origin_sides: tuple[int, ...] = SIDES,
    show_origin: bool | None = None,
    show_goal: bool | None = None,
    visual_feedback: bool = True,
    reward_goal: FiniteFloat = 1.0,
    reward_fall_off: FiniteFloat = 0.0,
    reward_path_progress: FiniteFloat | None = None,
    reward_step: FiniteFloat = 0.0,
    agent_speed: NonNegativeFloat = DEFAULT_SPEED,
    observation: Literal["pixels", "symbolic"] = "pixels",
) -> MysteryPath:
    """The Mystery Path of a published name; easy ones show origin and goal and reward progress (arXiv:2310.15719).

    A value other than None takes precedence over the name.
    """
    check_name(env_name, NAMES)
    variant, easy = NAMES[env_name]
    return MysteryPath(
        variant=variant,
        time_limit=time_limit,
        origin_sides=origin_sides,
        show_origin=easy if show_origin is None else show_origin,
        show_goal=easy if show_goal is None else show_goal,
        visual_feedback=visual_feedback,
        reward_goal=reward_goal,
        reward_fall_off=reward_fall_off,
        reward_path_progress=EASY_PATH_PROGRESS if easy and reward_path_progress is None else reward_path_progress,
        reward_step=reward_step,
        agent_speed=agent_speed,
        observation=observation,
    )
