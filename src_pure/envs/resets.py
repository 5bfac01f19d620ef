"""Where new episodes come from: three strategies that a batch of environments asks when some of its episodes end.

An episode is (obs, state), with None for obs where the batch observes states by itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from src_pure.types import Array, Key, Resets

Episodes = Any  # leaves [N, ...]
Make = Callable[[Key, int], Episodes]  # (key, N)


class Pool(NamedTuple):
    episodes: Episodes  # leaves [B, ...], made before the rollout
    taken: Array  # [] int32, how many environments have started one


class Strategy(Protocol):
    """`at_once` episodes are drawn at a time."""

    shares: ClassVar[bool]  # whether two environments may get the same episode
    has_pool: ClassVar[bool]  # whether episodes come from a pool, which the batch keeps in its state

    def prepare(self, key: Key, pool: Pool | None) -> Episodes | None:
        """The episodes from which this step draws; None: they are made as they are drawn."""

    def draw(self, key: Key, prepared: Episodes | None, turn: Array, taken: Array) -> tuple[Episodes, Array]:
        """(episodes, again [at_once]) of one turn of a step; `again`: another environment began the same one before.

        turn: [], 0, 1, ... within the step; taken: [], how many episodes of the pool have been taken.
        """


@dataclass(frozen=True)
class OnDemand:
    """Episodes are made when they are needed: every world is new."""

    make: Make
    at_once: int
    shares: ClassVar[bool] = False
    has_pool: ClassVar[bool] = False

    def prepare(self, key: Key, pool: Pool | None) -> None:
        return None

    def draw(self, key: Key, prepared: None, turn: Array, taken: Array) -> tuple[Episodes, Array]:
        return self.make(jax.random.fold_in(key, turn), self.at_once), jnp.zeros(self.at_once, bool)


@dataclass(frozen=True)
class Optimistic:
    """Episodes are made on every step; further turns of the same step use them again (arXiv:2402.16801)."""

    make: Make
    at_once: int
    shares: ClassVar[bool] = True
    has_pool: ClassVar[bool] = False

    def prepare(self, key: Key, pool: Pool | None) -> Episodes:
        return self.make(key, self.at_once)

    def draw(self, key: Key, prepared: Episodes, turn: Array, taken: Array) -> tuple[Episodes, Array]:
        return prepared, jnp.full(self.at_once, turn > 0)


@dataclass(frozen=True)
class FromPool:
    """Episodes are made before each rollout; when all are taken, they are taken again from the first one on."""

    make: Make
    at_once: int
    shares: ClassVar[bool] = True
    has_pool: ClassVar[bool] = True

    def prepare(self, key: Key, pool: Any) -> Episodes:
        return pool.episodes

    def draw(self, key: Key, prepared: Episodes, turn: Array, taken: Array) -> tuple[Episodes, Array]:
        number = taken + jnp.arange(self.at_once)
        size = jax.tree.leaves(prepared)[0].shape[0]
        return jax.tree.map(lambda x: x[number % size], prepared), number >= size


STRATEGIES: dict[Resets, Callable[[Make, int], Strategy]] = {
    "on_demand": OnDemand,
    "optimistic": Optimistic,
    "pool": FromPool,
}
