"""The devices that lanes are spread over: each computes its own lanes, and they never exchange anything.

Or those that the environments of every lane are spread over: they add up gradients.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

AXIS = "run"
ENVS = "env"
EACH = PartitionSpec(AXIS)  # leaves [R, ...]: every device has its own lanes
ROWS = PartitionSpec(None, AXIS)  # leaves [U, R]
SAME = PartitionSpec()  # every device has the same


def mesh_of(num_devices: int, axis: str = AXIS, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The first of the devices in a row; None: those of this process."""
    known = jax.local_devices() if devices is None else devices
    return Mesh(np.array(known[:num_devices]), (axis,))


def on_each_device(function: Callable, mesh: Mesh, arguments: Any, results: Any) -> Callable:
    """The function, computed by each device for its own lanes; with one device, or without lanes of its own, as it is.

    arguments, results: EACH, ROWS or SAME for each of them. Nothing is exchanged between devices, so a loop that ends
    when a device's lanes are done does not wait for the others.
    """
    if mesh.size == 1 or AXIS not in mesh.axis_names:
        return function
    return jax.shard_map(function, mesh=mesh, in_specs=arguments, out_specs=results, check_vma=False)
