"""Mystery Path under the names that the literature gives its four difficulties."""

from dataclasses import dataclass, field
from typing import Literal

from src_pure.envs.mystery_path import MysteryPath
from src_pure.envs.names import check_name

NAMES = {  # name -> (variant, easy)
    "MysteryPath-Grid-Easy-v0": ("grid", True),
    "MysteryPath-Easy-v0": ("continuous", True),
    "MysteryPath-Grid-v0": ("grid", False),
    "MysteryPath-v0": ("continuous", False),
}
EASY_PATH_PROGRESS = 0.1


@dataclass(frozen=True)
class NamedMysteryPath(MysteryPath):
    """The Mystery Path that `env_name` means; easy ones show origin and goal and reward progress (arXiv:2310.15719).

    What is not None here takes precedence over the name.
    """

    variant: Literal["grid", "continuous"] = field(init=False, default="grid")
    env_name: str = "MysteryPath-Grid-v0"
    show_origin: bool | None = None
    show_goal: bool | None = None

    def __post_init__(self):
        check_name(self.env_name, NAMES)
        variant, easy = NAMES[self.env_name]
        object.__setattr__(self, "variant", variant)
        for name in ("show_origin", "show_goal"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, easy)
        if easy and self.reward_path_progress is None:
            object.__setattr__(self, "reward_path_progress", EASY_PATH_PROGRESS)
        super().__post_init__()
