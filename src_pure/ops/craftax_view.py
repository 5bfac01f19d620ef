"""The 8,268 numbers that an agent of Craftax-Symbolic sees, as 843: eight integers per tile, and the same 51 scalars.

A tile has 83 channels, all 0 or 1: 37 blocks, 5 items, 8 types of each of 5 classes of mobs, and whether it is lit. A
tile in the dark has only zeros. The integers of a tile:

    block, item     1 + the index of the channel that is set, 0 if none is
    5 mob classes   sum of 2^type over the types on the tile: two mobs of one class can share one
    lit             0 or 1

so nothing is lost: `unpack(pack(obs))` is obs, bit for bit. The idea is PufferLib's, which keeps one mob of a class.
"""

import jax.numpy as jnp
import numpy as np

from src_pure.ops.precision import matmul
from src_pure.types import Array

NUM_TILES = 9 * 11  # row by row
NUM_BLOCKS, NUM_ITEMS, MOB_CLASSES, MOB_TYPES = 37, 5, 5, 8
NUM_CHANNELS = NUM_BLOCKS + NUM_ITEMS + MOB_CLASSES * MOB_TYPES + 1  # 83
NUM_INTEGERS = 1 + 1 + MOB_CLASSES + 1  # 8
NUM_SCALARS = 51
FULL_SIZE = NUM_TILES * NUM_CHANNELS + NUM_SCALARS  # 8,268
PACKED_SIZE = NUM_TILES * NUM_INTEGERS + NUM_SCALARS  # 843
LARGEST = 2**MOB_TYPES - 1


def _weights() -> np.ndarray:
    """[83, 8]: what each channel adds to each integer."""
    weights = np.zeros((NUM_CHANNELS, NUM_INTEGERS), np.float32)
    weights[:NUM_BLOCKS, 0] = 1 + np.arange(NUM_BLOCKS)
    weights[NUM_BLOCKS : NUM_BLOCKS + NUM_ITEMS, 1] = 1 + np.arange(NUM_ITEMS)
    for index in range(MOB_CLASSES):
        start = NUM_BLOCKS + NUM_ITEMS + index * MOB_TYPES
        weights[start : start + MOB_TYPES, 2 + index] = 2 ** np.arange(MOB_TYPES)
    weights[-1, -1] = 1
    return weights


WEIGHTS = _weights()


def split(obs: Array, channels: int) -> tuple[Array, Array]:
    """Tiles [..., 99, channels] and scalars [..., 51] of an observation [..., 99 * channels + 51]."""
    tiles, scalars = jnp.split(obs, [NUM_TILES * channels], axis=-1)
    return tiles.reshape(*obs.shape[:-1], NUM_TILES, channels), scalars


def join(tiles: Array, scalars: Array) -> Array:
    """The inverse of `split`."""
    return jnp.concatenate([tiles.reshape(*scalars.shape[:-1], -1), scalars], axis=-1)


def pack(obs: Array) -> Array:
    """[..., 8268] -> [..., 843], both float32."""
    tiles, scalars = split(obs, NUM_CHANNELS)
    integers = matmul(tiles, jnp.asarray(WEIGHTS))  # exact: sums of different powers of two, or of one term
    return join(integers, scalars)


def channels_of(integers: Array) -> Array:
    """The channels [..., 83] of tiles of which [..., 8] are the integers; float32, 0 or 1."""
    integers = integers.astype(jnp.int32)
    block = integers[..., :1] == 1 + np.arange(NUM_BLOCKS)
    item = integers[..., 1:2] == 1 + np.arange(NUM_ITEMS)
    mobs = integers[..., 2:-1, None] >> np.arange(MOB_TYPES) & 1  # [..., 5, 8]
    mobs = mobs.reshape(*integers.shape[:-1], MOB_CLASSES * MOB_TYPES)
    return jnp.concatenate([x.astype(jnp.float32) for x in (block, item, mobs, integers[..., -1:])], axis=-1)


def unpack(packed: Array) -> Array:
    """[..., 843] -> [..., 8268]."""
    integers, scalars = split(packed, NUM_INTEGERS)
    return join(channels_of(integers), scalars)
