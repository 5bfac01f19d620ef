"""An encoder for the symbolic view of Craftax: all tiles share one table, of which a tile is the sum of some rows.

    tile = sum of table[c] over the channels c that are set    features = 99 tiles of `size` numbers, and 51 scalars

as in PufferLib's recipe for Craftax, but without rows for "nothing", and with a smaller scale to make up for them. The
table has 83 rows; the memory model has its own first layer, as after `encoder=none`. Parameters up to 128 units:

    flat     8,268 * 128                  1,058,304
    table    83 * 16 + 1,635 * 128          210,608

The sum of rows is the product of the channels, zeros and ones, with the table: gradients of a product are fast where
those of looking up rows would be added one by one.
"""

import flax.linen as nn
import jax

from src_pure.ops import craftax_view
from src_pure.ops.dense import product
from src_pure.types import Array, PositiveInt

SCALE = 0.5  # most lit tiles are the sum of three rows (block, item or "no item", lit): a variance of 3/4


@jax.checkpoint  # the backward pass makes the channels again: kept, they are ten times as large as the observation
def embed_packed(integers: Array, table: Array) -> Array:
    """Tiles [..., D] from their integers [..., 8] and the table [83, D]."""
    return product(craftax_view.channels_of(integers), table)


class CraftaxEncoder(nn.Module):
    """Features [T, B, 99 * size + 51] of an observation of Craftax-Symbolic, [T, B, 8268] or packed [T, B, 843]."""

    size: PositiveInt = 16  # numbers for each tile

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        table = self.param("table", nn.initializers.normal(SCALE), (craftax_view.NUM_CHANNELS, self.size))
        if obs.shape[2:] == (craftax_view.FULL_SIZE,):
            channels, scalars = craftax_view.split(obs, craftax_view.NUM_CHANNELS)
            tiles = product(channels, table)
        elif obs.shape[2:] == (craftax_view.PACKED_SIZE,):
            integers, scalars = craftax_view.split(obs, craftax_view.NUM_INTEGERS)
            tiles = embed_packed(integers, table)
        else:
            raise ValueError(
                "craftax needs the observation of Craftax-Symbolic-v1, [8268] or packed [843], but the task's "
                f"observation has shape {list(obs.shape[2:])}; choose encoder=mlp, or encoder=conv for pixels"
            )
        return craftax_view.join(tiles, scalars)
