"""Mazes of Memory Maze that a user draws: walls as text, the same in all episodes."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from src_pure.envs.memory_maze_layout import NUM_TARGETS, NUM_TEXTURES, Layout
from src_pure.types import Array, Key

WALL, OBJECT, START = "#", "o", "s"
MEANINGS = f"{WALL} (a wall), . (open), {OBJECT} (open, may have an object) or {START} (open, the agent may start here)"


def check_drawing(rows: Sequence[str], size: int) -> None:
    """Raises ValueError if the rows do not draw a maze of this size."""
    if [len(row) for row in rows] != [size] * size:
        raise ValueError(f"maze must be {size} rows of {size} cells, got {len(rows)} of {[len(row) for row in rows]}")
    cells = "".join(rows)
    if unknown := sorted(set(cells) - set(f".{WALL}{OBJECT}{START}")):
        raise ValueError(f"each cell of maze must be {MEANINGS}, got {unknown[0]!r}")
    if cells.count(OBJECT) < NUM_TARGETS[size] or START not in cells:
        raise ValueError(
            f"maze must have at least {NUM_TARGETS[size]} cells {OBJECT} for objects and one {START} for the agent, "
            f"got {cells.count(OBJECT)} and {cells.count(START)}"
        )


def draw_cells(key: Key, rows: Sequence[str]) -> Layout:
    """The maze of `rows`, north at the top: objects in random cells `o`, the agent in a random cell `s`.

    The looks of walls are random; floors have the colour of rooms where objects may be.
    """
    size = len(rows)
    cells = np.pad(np.array([list(row) for row in rows]), 1, constant_values=WALL)
    key_objects, key_spawn, key_texture = jax.random.split(key, 3)
    objects = jax.random.permutation(key_objects, _places(cells, OBJECT))
    return Layout(
        open=jnp.asarray(cells != WALL),
        room=jnp.asarray(cells == OBJECT, jnp.int32),
        targets=objects[: NUM_TARGETS[size]],
        spawn=jax.random.choice(key_spawn, _places(cells, START)),
        wall_texture=jax.random.randint(key_texture, (3, 3), 0, NUM_TEXTURES),
    )


def _places(cells: np.ndarray, kind: str) -> Array:
    """[K, 2] int32, the cells of a kind."""
    return jnp.asarray(np.argwhere(cells == kind), jnp.int32)
