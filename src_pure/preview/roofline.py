"""The roofline: the least time that a device needs for what was counted."""

from typing import NamedTuple

from src_pure.preview.counting import BYTES, LAUNCHES, Counted
from src_pure.preview.devices import Device


class Bound(NamedTuple):
    """Seconds that each resource alone would take; none can be faster than the slowest of them."""

    launches: float
    memory: float
    arithmetic: float

    @property
    def seconds(self) -> float:
        return max(self)

    @property
    def resource(self) -> str:
        """The one that dominates."""
        return max(self._fields, key=lambda name: getattr(self, name))


def bound(counted: Counted, device: Device, scope: str | None = None) -> Bound:
    """The bound of everything, or of one scope.

    Bytes count as if nothing stayed in the device's cache from one kernel to the next.
    """
    return Bound(
        launches=counted.total(LAUNCHES, scope) * device.launch_seconds,
        memory=counted.total(BYTES, scope) / device.bandwidth,
        arithmetic=sum(counted.total(kind, scope) / rate for kind, rate in device.rates.items()),
    )
