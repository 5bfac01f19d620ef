"""Patterns on the walls of Memory Maze: uneven panels and thin dark lines, our own in place of the original's images.

A face of a wall is 2 m wide and as high as the wall, 1.5 m. Only brightness varies; a texture's colour is its own.
"""

from functools import lru_cache

import numpy as np

from src_pure.envs.memory_maze_layout import NUM_TEXTURES

FACE_HEIGHT, FACE_WIDTH = 48, 64  # texels
NUM_LEVELS = 4  # each is half as sharp as the one before, for walls farther away
FINE = 8  # parts of a texel, from which it is averaged
PANEL = 0.08  # most that the brightness of a panel differs
LINES, LINE_WIDTH, LINE_DARKNESS = 10, 0.006, 0.8
MEAN = 1.02  # of the panels: lines darken a face


@lru_cache
def wall_textures() -> np.ndarray:
    """float32 [NUM_LEVELS, textures, FACE_HEIGHT, FACE_WIDTH]: brightness, relative to a flat colour.

    Row 0 is at the floor. The coarser levels are as large as the first one, so that one index finds a texel in each.
    """
    faces = np.stack([_face(np.random.default_rng(number)) for number in range(NUM_TEXTURES)])
    levels = []
    for level in range(NUM_LEVELS):
        side = FINE * 2**level
        means = faces.reshape(NUM_TEXTURES, faces.shape[1] // side, side, faces.shape[2] // side, side).mean((2, 4))
        levels.append(means.repeat(2**level, axis=1).repeat(2**level, axis=2))
    return np.stack(levels).astype(np.float32)


def _face(random: np.random.Generator) -> np.ndarray:
    """[FINE * FACE_HEIGHT, FINE * FACE_WIDTH]: panels of an eighth of a face's width, and lines along the axes."""
    panels = random.uniform(-PANEL, PANEL, (6, 8))
    side = FINE * FACE_WIDTH // 8
    face = MEAN + panels.repeat(side, axis=0).repeat(side, axis=1)
    for number in range(LINES):
        start = random.integers(0, 13, 2)  # in sixteenths of a face's width
        length = random.integers(3, 8)
        across = number % 2 == 0
        unit = FINE * FACE_WIDTH // 16
        row, column = (start * unit) % np.array(face.shape)
        thick, long = max(1, round(LINE_WIDTH * FINE * FACE_WIDTH)), int(length * unit)
        height, width = (thick, long) if across else (long, thick)
        face[row : row + height, column : column + width] *= 1 - LINE_DARKNESS
    return face
