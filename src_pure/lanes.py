"""Lanes: the runs that train side by side in one program, each with its own seed and numbers."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np

from src_pure.algos.base import Algorithm
from src_pure.bits import in_32_bits
from src_pure.envs.base import EnvParams
from src_pure.errors import ConfigError
from src_pure.types import Key

GENERATOR = "threefry2x32"


class Lane(NamedTuple):
    """One run, as the host sees it."""

    run: int  # the number that identifies it in the tables
    seed: int
    values: Mapping[str, float | int]  # what differs from the base configuration, by dotted key

    @property
    def label(self) -> str:
        """The seed, and the values if there are any: identifies the run in a message."""
        values = ", ".join(f"{key}={value}" for key, value in self.values.items())
        return f"{self.seed} with {values}" if values else str(self.seed)


class SeedLanes(Sequence[Lane]):
    """Lanes that differ only in their seeds; each is made on access, so a range of billions takes no memory."""

    def __init__(self, seeds: Sequence[int]):
        self.seeds = seeds

    def __len__(self) -> int:
        return len(self.seeds)

    @overload
    def __getitem__(self, index: int) -> Lane: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Lane]: ...

    def __getitem__(self, index: int | slice) -> Lane | Sequence[Lane]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(len(self))[index])
        run = range(len(self))[index]
        return Lane(run, self.seeds[run], {})


class Numbers(NamedTuple):
    """What may differ between the lanes of one program, as the device sees it; for all lanes, leaves are [R, ...]."""

    algo: Algorithm
    task: EnvParams | None  # None: all lanes use those that the environment was built with


@in_32_bits
def repeat(numbers: Numbers, num_lanes: int) -> Numbers:
    """The same numbers for every lane, with leaves [R, ...]; each keeps its dtype, so integers stay integers."""
    return jax.tree.map(lambda x: jnp.full((num_lanes, *jnp.shape(x)), x, jnp.result_type(x)), numbers)


@in_32_bits
def stack(numbers: Sequence[Numbers]) -> Numbers:
    """The numbers of all lanes, leaves [R, ...]; raises ConfigError if shapes or dtypes differ."""
    shapes = [jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), each) for each in numbers]
    for shape in shapes:
        if shape != shapes[0]:
            raise ConfigError(f"lanes must have numbers of the same kinds, got {shapes[0]} and {shape}")
    return jax.tree.map(lambda *xs: jnp.asarray(np.stack([np.asarray(x, jnp.result_type(x)) for x in xs])), *numbers)


def training_keys(lanes: Sequence[Lane]) -> Key:
    """One key for each lane, [R]: a run depends only on its own seed, not on the other lanes."""
    return _split_keys(lanes)[:, 0]


def evaluation_keys(lanes: Sequence[Lane], update: int | np.ndarray) -> Key:
    """One key for each lane, [R], for the evaluation after `update`; training never uses these keys.

    update: of all lanes, or of each lane, [R].
    """
    updates = np.broadcast_to(np.asarray(update, np.int32), len(lanes))
    return jax.vmap(jax.random.fold_in)(_split_keys(lanes)[:, 1], updates)


def _split_keys(lanes: Sequence[Lane]) -> Key:
    """Keys [R, 2], always of threefry: with rbg, a vmapped run would draw other numbers than the same run alone."""
    seeds = np.array([lane.seed for lane in lanes], np.int32)
    return jax.vmap(lambda seed: jax.random.split(jax.random.key(seed, impl=GENERATOR)))(seeds)
