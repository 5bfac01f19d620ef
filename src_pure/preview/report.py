"""A preview as lines of text and as plain values."""

from collections.abc import Iterator
from typing import Any

import jax

from src_pure.device import GIB
from src_pure.preview.compiling import Cost, Preview
from src_pure.preview.counting import BYTES, COLLECTIVES, LAUNCHES, OTHER, SCOPES, Counted
from src_pure.preview.devices import ELEMENTWISE, Device
from src_pure.preview.roofline import bound

LARGEST = 5  # loops that are listed
PARTS = (*SCOPES, OTHER)


def lines(found: Preview) -> Iterator[str]:
    """The report that people read."""
    target, device = found.target, found.target.device
    chips = f"{found.num_devices} x {device.name}" if found.num_devices > 1 else device.name
    yield f"{found.name} on {target.text} ({chips}, {device.memory / GIB:,.1f} GiB for arrays), jax {jax.__version__}"
    yield f"lanes: {found.num_lanes:,}, in blocks of {found.block:,}, {found.width:,} of a block on each device"
    if found.training:
        what = f"one update of one block: {found.env_steps * found.block:,} environment steps"
        yield from _cost("training", what, found.training, device)
        yield f"  memory holds about {found.lanes_at_once:,} lanes at a time, {found.lanes_in_turns:,} in turns"
        yield from _speed(found)
    if found.evaluation:
        yield from _cost("evaluation", "a call with one step of each episode", found.evaluation, device)


def _cost(name: str, what: str, cost: Cost, device: Device) -> Iterator[str]:
    yield f"{name}: compiled in {cost.compile_seconds:,.0f} s"
    memory = (cost.argument_bytes, cost.temporary_bytes, cost.needed_bytes)
    yield "  {:,.1f} MB of arguments, {:,.1f} MB of temporaries, {:,.1f} MB in all".format(*(x / 1e6 for x in memory))
    yield f"  {what}"
    yield "  " + f"{'':24}{'all':>16}" + "".join(f"{part:>16}" for part in PARTS)
    for quantity in (LAUNCHES, BYTES, *device.rates):
        numbers = [cost.counted.total(quantity, part) for part in (None, *PARTS)]
        if any(numbers):
            yield f"  {_label(quantity):24}" + "".join(f"{number:>16,}" for number in numbers)
    yield f"  collectives: {_collectives(cost.counted) or 'none'}"
    yield from _loops(cost.counted)
    least = bound(cost.counted, device)
    seconds = f"launches {least.launches:.3g} s, memory {least.memory:.3g} s, arithmetic {least.arithmetic:.3g} s"
    yield f"  at least {least.seconds:.3g} s, by {least.resource} ({seconds})"
    if cost.needed_bytes < device.cache:
        yield "  all of it fits into the cache, so memory may be faster than that"


def _label(quantity: str) -> str:
    return quantity if quantity in (LAUNCHES, BYTES, ELEMENTWISE) else f"{quantity} products"


def _collectives(counted: Counted) -> str:
    found = {kind: counted.total(kind) for kind in COLLECTIVES}
    return ", ".join(f"{number:,} {kind}" for kind, number in found.items() if number)


def _loops(counted: Counted) -> Iterator[str]:
    """The loops that launch most, and those that may turn more often than was counted."""
    largest = sorted(counted.loops, key=lambda loop: -loop.turns * loop.launches)[:LARGEST]
    for loop in largest:
        yield f"  loop: {loop.turns:,} turns x {loop.launches:,} launches in {loop.scope}, {_shortened(loop.name)}"
    if unknown := [loop for loop in counted.loops if not loop.known]:
        places = sorted({f"{loop.scope} ({loop.launches:,} launches)" for loop in unknown})
        yield f"  loops of unknown length, counted as one turn: {', '.join(places)}"


def _shortened(op_name: str) -> str:
    """The last parts of a name, without those that jax adds to all of them."""
    parts = [part for part in op_name.split("/") if part not in ("while", "body", "eval_jaxpr", "closed_call")]
    return "/".join(parts[-3:])


def _speed(found: Preview) -> Iterator[str]:
    assert found.training is not None
    seconds = bound(found.training.counted, found.target.device).seconds * found.num_blocks
    if seconds:
        steps = found.env_steps * found.num_lanes / seconds
        yield f"  at least {seconds:.3g} s for all lanes, at most {steps:,.0f} environment steps per second"


def values(found: Preview) -> dict[str, Any]:
    """The report as plain values, for JSON."""
    costs = {name: getattr(found, name) for name in ("training", "evaluation")}
    return {
        "name": found.name,
        "device": found.target.text,
        "jax": jax.__version__,
        "lanes": found.num_lanes,
        "lanes_per_block": found.width,
        "env_steps": found.env_steps * found.block,
        **{name: _values(cost, found.target.device) for name, cost in costs.items() if cost},
    }


def _values(cost: Cost, device: Device) -> dict[str, Any]:
    quantities = (LAUNCHES, BYTES, *device.rates, *COLLECTIVES)
    least = bound(cost.counted, device)
    return {
        "compile_seconds": round(cost.compile_seconds, 1),
        "argument_bytes": cost.argument_bytes,
        "temporary_bytes": cost.temporary_bytes,
        **{name: total for name in quantities if (total := cost.counted.total(name)) or name in (LAUNCHES, BYTES)},
        **{f"{LAUNCHES} in {part}": cost.counted.total(LAUNCHES, part) for part in PARTS},
        **{f"{BYTES} in {part}": cost.counted.total(BYTES, part) for part in PARTS},
        "bound_seconds": {name: float(f"{getattr(least, name):.3g}") for name in least._fields},
        "bound": least.resource,
    }
