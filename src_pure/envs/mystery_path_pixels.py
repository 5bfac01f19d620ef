"""The frames of Mystery Path, exact to the pixel, from formulas: no sprites are shipped.

Everything is indexed [x, y, color], x to the right and y downwards: the transpose of an image.
"""

import jax
import jax.numpy as jnp

from src_pure.types import Array

TILE = 12  # pixels along one cell
SCREEN = 84  # pixels along the arena, 7 tiles
WINDOW = 20  # pixels along the part of the frame that the agent can touch

WHITE, GREY = (255, 255, 255), (120, 120, 120)
ORIGIN_COLOR, GOAL_COLOR, CROSS_COLOR = (0, 0, 255), (0, 255, 0), (255, 0, 0)
BODY_COLOR, HAND_COLOR = (250, 204, 153), (50, 50, 50)
BODY, HAND = (7, 6), (2, 2)  # octagons: bounds of |dx| + |dy| and of the larger one

# Offsets of the two hands from the center, for rotations 0, 45, .. 315 degrees to the left of north. The original
# rounds towards zero, so the diagonal ones are not symmetric.
HANDS = (
    ((-4, -4), (4, -4)),
    ((-6, 0), (-1, -6)),
    ((-4, 4), (-4, -4)),
    ((0, 5), (-6, 0)),
    ((4, 4), (-4, 4)),
    ((5, 0), (0, 5)),
    ((4, -4), (4, 4)),
    ((0, -6), (5, 0)),
)


def blank() -> Array:
    """uint8 [84, 84, 3], a black frame."""
    return jnp.zeros((SCREEN, SCREEN, 3), jnp.uint8)


def paint_tile(frame: Array, cell: Array, color: tuple[int, int, int]) -> Array:
    """The frame with one cell [2] filled."""
    tile = jnp.broadcast_to(jnp.array(color, jnp.uint8), (TILE, TILE, 3))
    return jax.lax.dynamic_update_slice(frame, tile, (TILE * cell[0], TILE * cell[1], 0))


def paint_cells(frame: Array, cells: Array, color: tuple[int, int, int]) -> Array:
    """The frame with all marked cells [7, 7] filled."""
    mask = cells.repeat(TILE, axis=0).repeat(TILE, axis=1)
    return jnp.where(mask[:, :, None], jnp.array(color, jnp.uint8), frame)


def paint_agent(frame: Array, center: Array, rotation: Array, crossed: Array) -> Array:
    """The frame with body, hands and, where `crossed`, the red cross of a fall; parts beyond the border are lost.

    Only the window around the agent is computed, then written back: the rest of the frame costs nothing.
    """
    corner = jnp.clip(center - WINDOW // 2, 0, SCREEN - WINDOW)
    x = (corner[0] + jnp.arange(WINDOW) - center[0])[:, None]  # [20, 1], relative to the center
    y = (corner[1] + jnp.arange(WINDOW) - center[1])[None, :]  # [1, 20]
    window = jax.lax.dynamic_slice(frame, (corner[0], corner[1], 0), (WINDOW, WINDOW, 3))
    hands = jnp.array(HANDS)[rotation // 45]  # [2 hands, 2]
    u, v = x + 5, y + 5
    in_cross = (u >= 0) & (u < 10) & (v >= 0) & (v < 10) & ((jnp.abs(u - v) <= 1) | (jnp.abs(u + v - 9) <= 1))
    layers = (
        (_octagon(x, y, BODY), BODY_COLOR),
        (_octagon(x - hands[0, 0], y - hands[0, 1], HAND), HAND_COLOR),
        (_octagon(x - hands[1, 0], y - hands[1, 1], HAND), HAND_COLOR),
        (in_cross & crossed, CROSS_COLOR),
    )
    for mask, color in layers:
        window = jnp.where(mask[:, :, None], jnp.array(color, jnp.uint8), window)
    return jax.lax.dynamic_update_slice(frame, window, (corner[0], corner[1], 0))


def _octagon(x: Array, y: Array, bounds: tuple[int, int]) -> Array:
    """[20, 20] bool, the pixels inside; the center lies on the corner of four pixels, so distances are doubled."""
    across, down = jnp.abs(2 * x + 1), jnp.abs(2 * y + 1)
    return (across + down <= 2 * bounds[0]) & (jnp.maximum(across, down) <= 2 * bounds[1])
