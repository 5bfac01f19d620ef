"""How the agent of Memory Maze moves: a heavy body on a driven ball, between walls that stick.

A model with few numbers, fitted to recordings of the original's physics (MuJoCo); docs/envs.md has its errors. Units
are metres, seconds and radians; x points east, y north, and headings count from east to north.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from src_pure.types import Array, Number

CELL = 2.0  # m, the side of a cell
INNER_STEP = 0.025  # s
TOP_SPEED = 2.0  # m/s
GRIP, SLIPPING_GRIP = 0.154, 0.224  # s, how soon the speed follows the drive; a turning ball slips
SLIPS_FROM = 0.05  # rad/s
MOST_ACCELERATION, ACCELERATION_AT_WALL, SIDEWAYS = 7.3, 4.2, 9.81  # m/s^2
TORQUE, DRY_FRICTION, DAMPING, INERTIA = 30.0, 4.28, 20.0, 1.18  # of the yaw: N m, N m, N m s, kg m^2
MASS = 22.0  # kg
RADIUS = 0.2023  # m, of the ball where it meets a wall
WALL_FRICTION, WALL_SLIP = 1.5, 0.43  # the second in m/s
REACH = math.sqrt((0.6 + 0.2) ** 2 - 0.2**2)  # m, the distance at which the ball touches the dome of an object


class Body(NamedTuple):
    position: Array  # [2] m
    velocity: Array  # [2] m/s
    heading: Array  # [] rad
    yaw_rate: Array  # [] rad/s


def move(body: Body, drive: Number, turn: Number, is_open: Array, target: Array, steps: int) -> tuple[Body, Array]:
    """(body after `steps` inner steps, least distance to `target` [2] after any of them); drive and turn in [-1, 1]."""

    def inner_step(_, loop):
        body, touching, nearest = loop
        body, touching = _meet_walls(_glide(body, drive, turn, touching), is_open)
        return body, touching, jnp.minimum(nearest, jnp.hypot(*(body.position - target)))

    body = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), body)
    body, _, nearest = lax.fori_loop(0, steps, inner_step, (body, jnp.bool_(False), jnp.float32(jnp.inf)))
    return body, nearest


def cell_at(place: Array, n: int) -> Array:
    """[..., 2] int32, row and column of places [..., 2]."""
    return jnp.round(jnp.stack([-place[..., 1], place[..., 0]], axis=-1) / CELL + (n - 1) / 2).astype(jnp.int32)


def place_of(cell: Array, n: int) -> Array:
    """[..., 2] float32 m, the centre of cells [..., 2]."""
    across = cell.astype(jnp.float32) - (n - 1) / 2
    return CELL * jnp.stack([across[..., 1], -across[..., 0]], axis=-1)


def dot(a: Array, b: Array) -> Array:
    """[...] the inner products of vectors [..., 2]; not by a matrix product, which a GPU would round to fewer bits."""
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1]


def _glide(body: Body, drive: Number, turn: Number, touching: Array) -> Body:
    """The body after an inner step without walls."""
    ahead, left = axes(body.heading)
    forward, sideways = dot(body.velocity, ahead), dot(body.velocity, left)
    turned, yaw_rate = _yaw(body.yaw_rate, turn)
    heading = body.heading + turned

    delay = jnp.where(jnp.abs(yaw_rate) <= SLIPS_FROM, GRIP, SLIPPING_GRIP)
    gained = (TOP_SPEED * drive - forward) * -jnp.expm1(-INNER_STEP / delay)
    most = INNER_STEP * MOST_ACCELERATION
    gained = jnp.clip(gained, -most, jnp.where(touching, INNER_STEP * ACCELERATION_AT_WALL, most))
    braked = INNER_STEP * jnp.where(touching, ACCELERATION_AT_WALL, SIDEWAYS)
    sideways = jnp.sign(sideways) * jnp.maximum(jnp.abs(sideways) - braked, 0.0)

    ahead, left = axes(heading)
    velocity = (forward + gained) * ahead + sideways * left
    position = body.position + INNER_STEP * (body.velocity + velocity) / 2
    return Body(position, velocity, heading, yaw_rate)


def axes(heading: Array) -> tuple[Array, Array]:
    """Unit vectors [2] ahead of the agent and to its left."""
    cos, sin = jnp.cos(heading), jnp.sin(heading)
    return jnp.stack([cos, sin]), jnp.stack([-sin, cos])


def _yaw(yaw_rate: Array, turn: Number) -> tuple[Array, Array]:
    """(angle turned, yaw rate) after an inner step: a driven, damped turn with dry friction, which can stop it."""
    delay, dt = INERTIA / DAMPING, INNER_STEP
    torque = TORQUE * jnp.asarray(turn, jnp.float32)
    sign = jnp.where(jnp.abs(yaw_rate) < 1e-6, jnp.sign(torque), jnp.sign(yaw_rate))
    limit = (torque - DRY_FRICTION * sign) / DAMPING
    decay = math.exp(-dt / delay)
    after = limit + (yaw_rate - limit) * decay
    turned = dt * limit + (yaw_rate - limit) * delay * (1 - decay)

    stops = after * sign < 0  # what is left of the step begins at rest
    until = delay * jnp.log(jnp.where(stops, (yaw_rate - limit) / jnp.where(stops, -limit, 1.0), 1.0))
    left = dt - until
    restart = jnp.sign(torque) * jnp.maximum(jnp.abs(torque) - DRY_FRICTION, 0.0) / DAMPING
    grown = -jnp.expm1(-left / delay)
    turned_stopping = until * limit + yaw_rate * delay + restart * (left - delay * grown)
    return jnp.where(stops, turned_stopping, turned), jnp.where(stops, restart * grown, after)


def _meet_walls(body: Body, is_open: Array) -> tuple[Body, Array]:
    """(body pushed out of the walls, slowed and turned by their friction; whether a wall pushed back)."""
    n = is_open.shape[0]
    cell = cell_at(body.position, n)
    offset = body.position - place_of(cell, n)
    side = jnp.where(offset >= 0, 1, -1)  # [2] to the nearer neighbours, x and y
    column, row = cell[1] + side[0], cell[0] - side[1]
    wall_x, wall_y = ~is_open[cell[0], column], ~is_open[row, cell[1]]
    wall_corner = ~is_open[row, column] & ~wall_x & ~wall_y

    gap = CELL / 2 - jnp.abs(offset)  # [2] to the borders of the cell
    away = -side.astype(jnp.float32)
    distance = jnp.hypot(*gap)
    contacts = (
        (wall_x, away * jnp.array([1.0, 0.0]), RADIUS - gap[0]),
        (wall_y, away * jnp.array([0.0, 1.0]), RADIUS - gap[1]),
        (wall_corner, away * gap / jnp.maximum(distance, 1e-6), RADIUS - distance),
    )
    touching = jnp.bool_(False)
    for wall, normal, depth in contacts:
        body, pushed = _bounce(body, normal, jnp.where(wall, jnp.maximum(depth, 0.0), 0.0))
        touching |= pushed
    return body, touching


def _bounce(body: Body, normal: Array, depth: Array) -> tuple[Body, Array]:
    """(body after contact with a wall that it enters by `depth`, whether the wall pushed back)."""
    tangent = jnp.stack([-normal[1], normal[0]])
    push = jnp.where(depth > 0, jnp.maximum(-dot(body.velocity, normal), 0.0), 0.0)
    velocity = body.velocity + push * normal
    slip = dot(velocity, tangent) - RADIUS * body.yaw_rate
    lever = MASS * RADIUS / INERTIA  # rad/m, how much a push along the wall turns
    bound = WALL_FRICTION * push * jnp.abs(slip) / jnp.hypot(slip, WALL_SLIP)
    along = -jnp.clip(slip / (1 + lever * RADIUS), -bound, bound)
    moved = body._replace(
        position=body.position + depth * normal,
        velocity=velocity + along * tangent,
        yaw_rate=body.yaw_rate - lever * along,
    )
    return moved, push > 0
