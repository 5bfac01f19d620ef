"""Craftax and Craftax-Classic (Matthews et al., arXiv:2402.16801), the package's own games with one interface."""

import importlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from craftax.craftax_env import make_craftax_env_from_name

from src_pure.envs.base import typed_like
from src_pure.envs.names import check_name
from src_pure.envs.spaces import Box, Discrete
from src_pure.ops import craftax_view
from src_pure.ops.precision import matmul
from src_pure.types import Array, Key, Metrics, PositiveInt

PACKAGES = {  # where each game is
    "Craftax-Symbolic-v1": "craftax.craftax",
    "Craftax-Pixels-v1": "craftax.craftax",
    "Craftax-Classic-Symbolic-v1": "craftax.craftax_classic",
    "Craftax-Classic-Pixels-v1": "craftax.craftax_classic",
}
START_HEALTH, REWARD_PER_HEALTH = 9.0, 0.1
NO_LIMIT = 2**31 - 1

CraftaxState = Any  # the package's own, with achievements [67 or 22], player_health, timestep


class CraftaxParams(NamedTuple):
    time_limit: Array | int


@dataclass(frozen=True)
class Craftax:
    """Survive, gather, craft and descend in a world of its own for every episode.

    - observation: float32 in [0, 1]; Symbolic [8268] (Classic [1345]): one-hot map around the player and inventory;
      Pixels [130, 110, 3] (Classic [63, 63, 3]), an upright image. observation="packed": the same as Symbolic in 843
      numbers, integers up to 255 among them (`ops.craftax_view`), of which a rollout stores a tenth; not for Classic.
    - action: int32 [], 43 actions (Classic 17).
    - reward: float32 [], the value of every achievement when it is first unlocked, in sum 226 (Classic 22), and 0.1 for
      each point of health gained or lost.
    - end: terminated by death (Classic: also in lava) or by beating the last boss, truncated at time_limit steps.
    - state: the package's own, 273 kB (Classic 21 kB).

    The package's variants that reset themselves make a world on every step; this class never resets.
    """

    env_name: str = "Craftax-Symbolic-v1"
    time_limit: PositiveInt | None = None  # None: 100,000, Classic 10,000
    observation: Literal["full", "packed"] = "full"

    numbers = ("time_limit",)
    reset_ratio = 16

    def __post_init__(self):
        check_name(self.env_name, PACKAGES)
        if self.observation == "packed" and self.env_name != "Craftax-Symbolic-v1":
            raise ValueError(
                f"observation=packed needs env_name=Craftax-Symbolic-v1, got {self.env_name}; set observation=full"
            )
        self._environment  # noqa: B018 here, because pixels need textures, which cannot be made while tracing

    @cached_property
    def _environment(self) -> Any:
        with only_textures_seen(self._module("renderer"), self._module("constants")):
            return make_craftax_env_from_name(self.env_name, auto_reset=False)

    @cached_property
    def _renderer(self) -> Callable[[CraftaxState], Array]:
        renderer, constants = self._module("renderer"), self._module("constants")
        with only_textures_seen(renderer, constants), jax.ensure_compile_time_eval():
            return renderer.make_craftax_pixel_renderer(constants.BLOCK_PIXEL_SIZE_AGENT)

    @cached_property
    def achievements(self) -> dict[str, float]:
        """The value of each achievement by name, in the order of the state's `achievements`."""
        constants = self._module("constants")
        names = [achievement.name.lower() for achievement in constants.Achievement]
        classic = self._module("constants").__name__.startswith("craftax.craftax_classic")
        values = [1.0] * len(names) if classic else constants.ACHIEVEMENT_REWARD_MAP.tolist()
        return dict(zip(names, values, strict=True))

    @cached_property
    def action_names(self) -> tuple[str, ...]:
        return tuple(action.name.lower() for action in self._module("constants").Action)

    def _module(self, name: str) -> ModuleType:
        return importlib.import_module(f"{PACKAGES[self.env_name]}.{name}")

    @property
    def default_params(self) -> CraftaxParams:
        limit = self._environment.default_params.max_timesteps if self.time_limit is None else self.time_limit
        return CraftaxParams(limit)

    @property
    def _package_params(self) -> Any:
        """The package's numbers, but without its time limit, which it does not distinguish from death."""
        return self._environment.default_params.replace(max_timesteps=NO_LIMIT)

    def reset_env(self, key: Key, params: CraftaxParams) -> tuple[Array, CraftaxState]:
        """(obs, state) of a new episode in a new world."""
        obs, state = self._environment.reset_env(key, self._package_params)
        return self._view(obs), typed_like(state, state)

    def step_env(
        self, key: Key, state: CraftaxState, action: Array, params: CraftaxParams
    ) -> tuple[Array, CraftaxState, Array, Array, Array, Metrics]:
        """(obs, state, reward, terminated, truncated, info).

        info: of the episode so far, percent (the return in % of all that can be achieved) and for every achievement
        1 where it is unlocked.
        """
        step = self._environment.step_env(key, state, action, self._package_params)
        obs, state, reward, terminated = step[0], typed_like(step[1], state), *step[2:4]
        truncated = state.timestep >= params.time_limit
        unlocked = state.achievements.astype(jnp.float32)
        values = jnp.array(list(self.achievements.values()))
        episode_return = matmul(unlocked, values) + REWARD_PER_HEALTH * (state.player_health - START_HEALTH)
        info = {"percent": 100.0 * episode_return / values.sum()}
        info |= {f"achievement/{name}": unlocked[index] for index, name in enumerate(self.achievements)}
        return self._view(obs), state, reward.astype(jnp.float32), terminated, truncated, info

    def observe(self, state: CraftaxState, params: CraftaxParams) -> Array:
        """The observation of a state."""
        return self._view(self._environment.get_obs(state))

    def _view(self, obs: Array) -> Array:
        return craftax_view.pack(obs) if self.observation == "packed" else obs

    def observation_space(self, params: CraftaxParams) -> Box:
        if self.observation == "packed":
            return Box(low=0.0, high=craftax_view.LARGEST, shape=(craftax_view.PACKED_SIZE,))
        space = self._environment.observation_space(self._package_params)
        return Box(low=0.0, high=1.0, shape=tuple(space.shape))

    def longest_episode(self, params: CraftaxParams) -> int:
        """Steps after which every episode has ended."""
        return int(params.time_limit)

    def action_space(self, params: CraftaxParams) -> Discrete:
        return Discrete(self._environment.num_actions)

    def render(self, state: CraftaxState, params: CraftaxParams) -> Array:
        """uint8 [130, 110, 3] (Classic [63, 63, 3]), what the agent of Pixels sees."""
        return self._renderer(state).astype(jnp.uint8)


@contextmanager
def only_textures_seen(renderer: Any, constants: Any) -> Generator[None]:
    """Inside, textures are made in the size that agents see, seconds of work that need no file.

    The package would make those for human players too, which takes minutes, and write them into its own folder.
    """
    size, original = constants.BLOCK_PIXEL_SIZE_AGENT, renderer.load_all_textures
    renderer.load_all_textures = lambda: {size: constants.load_all_textures_given_size(size)}
    try:
        yield
    finally:
        renderer.load_all_textures = original
