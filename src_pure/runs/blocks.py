"""Blocks: lanes are trained a few at a time by one compiled program, so that what it works on stays in the cache."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding
from jax.tree_util import GetAttrKey, tree_map_with_path

from src_pure.build import Experiment
from src_pure.device import bytes_of, device_memory
from src_pure.errors import ConfigError
from src_pure.lanes import GENERATOR
from src_pure.runs.arrays import is_key, key_impl, numbers_of
from src_pure.runs.mesh import EACH, ENVS, SAME, mesh_of
from src_pure.train import example_of_rollout, make_train
from src_pure.types import TrainState

Path = tuple[Any, ...]  # of jax.tree_util
CACHE_BYTES = 2**23  # on CPU: state and rollout of a block on all devices; measured, see docs/results
SHARE = 8  # on an accelerator: the block's state and rollout may take this part of its memory, gradients need more


@dataclass(frozen=True)
class Blocks:
    """How lanes are divided: `width` lanes on each device of the mesh make a block.

    The last block is filled up by repeating the last lane; `join` leaves these out.
    """

    num_lanes: int
    width: int
    mesh: Mesh

    @property
    def shares(self) -> int:
        """How many parts of a block are on different devices."""
        return self.mesh.size

    @property
    def size(self) -> int:
        """Lanes of a block, on all devices."""
        return self.width * self.shares

    def __len__(self) -> int:
        return -(-self.num_lanes // self.size)

    def place(self, spec: PartitionSpec = EACH) -> Sharding | None:
        """Where the arrays of a block lie; None with one device: wherever jax puts them."""
        return None if self.mesh.size == 1 else NamedSharding(self.mesh, spec)

    def place_of(self, path: Path, array: Any, spec: PartitionSpec = EACH) -> Sharding | None:
        """Where one array of a block lies; path: to it from the tree that it is part of."""
        return self.place(spec)

    def pin(self, function: Callable) -> Callable:
        """The function, whose results lie where they are to lie."""
        return function

    def split(self, tree: Any, like: Any = None) -> list[Any]:
        """One tree for each block, leaves [size, ...] on the devices, in memory of their own; tree: leaves [R, ...].

        like: the tree with typed keys where they are to be made of key data; None: those of `tree` itself.
        """
        like = tree if like is None else like
        arrays = jax.tree.map(lambda x: np.asarray(numbers_of(x)), tree)
        starts = range(0, len(self) * self.size, self.size)
        return [tree_map_with_path(partial(self._placed, start), arrays, like) for start in starts]

    def join(self, blocks: Sequence[Any], axis: int = 0) -> Any:
        """The tree of all lanes as numpy arrays of their own, without the filling; typed keys become their key data.

        blocks: one tree for each block, leaves [size, ...], or [U, size] with axis=1.
        """
        first, *_ = blocks
        arrays = jax.device_get([[numbers_of(x) for x in jax.tree.leaves(block)] for block in blocks])
        joined = [np.concatenate(parts, axis) for parts in zip(*arrays, strict=True)]
        kept = [x[(slice(None),) * axis + (slice(self.num_lanes),)] for x in joined]
        return jax.tree.unflatten(jax.tree.structure(first), kept)

    def shapes(self, tree: Any, spec: PartitionSpec = EACH) -> Any:
        """Shapes with the places of the arrays; tree: arrays of one block, or their shapes."""

        def shape(path: Path, x: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self.place_of(path, x, spec))

        return tree_map_with_path(shape, tree)

    def resized(self, tree: Any, num_lanes: int | None = None) -> Any:
        """Shapes with another number of lanes, None: that of a block; tree: shapes [..., ...]."""
        number = self.size if num_lanes is None else num_lanes
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((number, *x.shape[1:]), x.dtype), tree)

    def _placed(self, start: int, path: Path, array: np.ndarray, like: Any) -> jax.Array:
        """The lanes of one block from `start` on, in memory that the program may reuse."""
        lanes = np.minimum(np.arange(start, start + self.size), self.num_lanes - 1)
        placed = jax.device_put(array[lanes], self.place_of(path, array), may_alias=False)
        return jax.random.wrap_key_data(placed, impl=key_impl(like)) if is_key(like) else placed


@dataclass(frozen=True)
class EnvBlocks(Blocks):
    """Blocks whose lanes are on every device, which has a part of the environments of each lane.

    The compiler divides acting and learning by environments and adds up gradients.
    """

    num_envs: int

    @property
    def shares(self) -> int:
        return 1

    def place(self, spec: PartitionSpec = EACH) -> Sharding:
        return NamedSharding(self.mesh, SAME)

    def place_of(self, path: Path, array: Any, spec: PartitionSpec = EACH) -> Sharding:
        of_actor = bool(path) and path[0] == GetAttrKey("actor")
        divided = of_actor and array.ndim > 1 and array.shape[1] == self.num_envs
        return NamedSharding(self.mesh, PartitionSpec(None, ENVS) if divided else SAME)

    def pin(self, function: Callable) -> Callable:
        def pinned(*arguments: Any) -> Any:
            results = function(*arguments)
            if isinstance(results, TrainState):
                return self._pinned(results)
            return tuple(map(self._pinned, results)) if isinstance(results, tuple) else results

        return pinned

    def _pinned(self, tree: Any) -> Any:
        return tree_map_with_path(lambda path, x: lax.with_sharding_constraint(x, self.place_of(path, x)), tree)


def blocks_of(experiment: Experiment, width: int | None = None) -> Blocks:
    """How the lanes of an experiment are divided.

    width: lanes per device that the training began with, which it keeps: a program of another width rounds differently.
    None: lanes_per_block of the configuration, or else chosen by bytes. Raises ConfigError if the environments cannot
    be divided between the devices.
    """
    return blocks_on(jax.local_devices(), experiment, width)


def blocks_on(
    devices: Sequence[jax.Device], experiment: Experiment, width: int | None = None, most: int | None = None
) -> Blocks:
    """As blocks_of, on the given devices; most: what `most_lanes` is there, None: as in this process."""
    num_lanes, num_devices = len(experiment.lanes), len(devices)
    if experiment.settings.devices == "envs":
        num_envs = experiment.settings.num_envs
        if num_envs % num_devices:
            raise ConfigError(
                f"num_envs must be a multiple of the {num_devices} devices with devices=envs, got {num_envs}; change "
                "it, or set devices=runs"
            )
        mesh = mesh_of(num_devices, ENVS, devices)
        return EnvBlocks(num_lanes, width or width_of(experiment, 1, most), mesh, num_envs)
    width = width or width_of(experiment, num_devices, most)
    return Blocks(num_lanes, width, mesh_of(min(num_devices, -(-num_lanes // width)), devices=devices))


def width_of(experiment: Experiment, num_devices: int, most: int | None = None) -> int:
    """Lanes per device of a new training's blocks; most: None for that of this process."""
    even = -(-len(experiment.lanes) // num_devices)  # if there were a single block
    if wanted := experiment.settings.lanes_per_block:
        return min(even, wanted)
    return even if even == 1 else fitting(even, most or most_lanes(experiment))


def fitting(even: int, most: int) -> int:
    """`even` if it is at most `most`, else the width that leaves the fewest lanes to fill up.

    Few widths are tried, so that trainings of many numbers of lanes share a compiled program, and none below half of
    `most`, which would be slow.
    """
    widths = (most, 3 * most // 4, most // 2) if most > 4 else (most,)
    return even if even <= most else min(widths, key=lambda width: -(-even // width) * width)


def most_lanes(experiment: Experiment) -> int:
    """The most lanes of one device's block, a power of two, by the bytes of one lane; compiles nothing.

    On a CPU the blocks of all devices have to stay in the cache; an accelerator takes as many as its memory can hold.
    """
    on_cpu = jax.default_backend() == "cpu"
    blocks = 1 if experiment.settings.devices == "envs" else jax.local_device_count()  # that are computed at a time
    return lanes_in(CACHE_BYTES // blocks if on_cpu else device_memory() // SHARE, experiment)


def lanes_in(available: int, experiment: Experiment) -> int:
    """A power of two of lanes whose state and rollout take no more bytes than are available; at least 1."""
    return 2 ** max(0, (available // bytes_of_lane(experiment)).bit_length() - 1)


def bytes_of_lane(experiment: Experiment) -> int:
    """Bytes of the state and of one rollout of one lane, from shapes alone."""
    init, _ = make_train(experiment.env, experiment.policy)
    key = jax.eval_shape(lambda: jax.random.key(0, impl=GENERATOR))
    state = jax.eval_shape(init, key, experiment.algo)
    _, trajectory = example_of_rollout(experiment.env, experiment.policy, experiment.algo)
    return bytes_of(jax.tree.map(numbers_of, (state, trajectory)))
