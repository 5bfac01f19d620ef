"""What a plan costs: memory, time and size of the tables, from compiled programs and a short piece of training."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp

from src_pure.device import GIB, bytes_of, device_memory
from src_pure.experiment import Experiment
from src_pure.lanes import GENERATOR, SeedLanes
from src_pure.preview.compiling import devices_of, preview
from src_pure.preview.devices import Target
from src_pure.preview.report import lines
from src_pure.preview.roofline import bound
from src_pure.runs.arrays import numbers_of
from src_pure.runs.blocks import Blocks
from src_pure.runs.columns import to_arrow
from src_pure.runs.compilation import bytes_needed
from src_pure.runs.loggers import clock
from src_pure.runs.mesh import mesh_of
from src_pure.runs.parquet import encode
from src_pure.runs.program import MAX_SEGMENT, compile_program, functions
from src_pure.runs.rows import metric_rows
from src_pure.sweeps.plan import Group, Plan, counted, described

MEASURED = 2  # updates of the piece of training that is measured, after a first one


class Memory(NamedTuple):
    """Bytes that an update needs on a device: `fixed` and `per_lane` for each lane that it computes at once."""

    fixed: int
    per_lane: int
    state: int  # of each lane that waits for its turn


class Estimate(NamedTuple):
    """What one program and its batches cost."""

    memory: Memory
    width: int  # lanes that a device computes at once
    compile_seconds: float
    seconds: float  # all batches: training and the final evaluation, without compilation
    table_bytes: int


def describe(plan: Plan) -> Iterator[str]:
    """The lines that plan=only prints; compiles every program and trains a short piece of its first batch."""
    yield str(plan)
    total, size = 0.0, 0
    for number, group in enumerate(plan.groups):
        found = estimate(plan, number)
        total, size = total + found.seconds + found.compile_seconds, size + found.table_bytes
        yield from _lines(plan, number, group, found)
    devices = counted(jax.local_device_count(), "device")
    yield f"in all about {clock(total)} on {devices}, tables of {size / 1e6:,.1f} MB"


def describe_on(target: Target, plan: Plan) -> Iterator[str]:
    """The lines that plan=only prints for a device that need not be here; compiles every program, trains nothing."""
    yield str(plan)
    total = 0.0
    for number, group in enumerate(plan.groups):
        batches = [batch for batch in plan.batches if batch.program == number]
        experiment = max(batches, key=lambda batch: len(batch.lanes)).experiment()
        found = preview(experiment, target, evaluation=False)
        assert found.training is not None
        blocks = sum(-(-len(batch.lanes) // found.block) for batch in batches)
        least = bound(found.training.counted, target.device).seconds
        total += blocks * least * experiment.settings.num_updates
        yield _heading(number, group)
        yield from (f"  {line}" for line in lines(found))
    yield f"in all at least {clock(total)} of training on {target.text}"


def memory_on(target: Target) -> int:
    """Bytes that arrays may take on all devices of a target together."""
    return target.device.memory * len(devices_of(target))


def _heading(number: int, group: Group) -> str:
    fixed = {key: value for key, value in group.points[0].values.items() if key not in group.swept}
    return f"program {number}" + (f" ({described(fixed)})" if fixed else "")


def _lines(plan: Plan, number: int, group: Group, found: Estimate) -> Iterator[str]:
    sizes = [len(batch.lanes) for batch in plan.batches if batch.program == number]
    memory, limit = found.memory, device_memory()
    held = (limit - memory.fixed - found.width * memory.per_lane) // memory.state
    yield _heading(number, group)
    yield (
        f"  {counted(sum(sizes), 'lane')} in {counted(len(sizes), 'batch', 'batches')} of at most {max(sizes):,}, "
        f"{found.width:,} at once on a device"
    )
    yield (
        f"  memory: {memory.state / 1e6:,.3f} MB per lane, {memory.per_lane / 1e6:,.3f} MB for each that is computed, "
        f"{memory.fixed / 1e6:,.3f} MB besides; {limit / GIB:,.1f} GiB hold about {max(held, 0):,} lanes"
    )
    yield (
        f"  compiled in {found.compile_seconds:,.0f} s, trains and evaluates in about {clock(found.seconds)}; "
        f"tables of {found.table_bytes / 1e6:,.1f} MB"
    )


def estimate(plan: Plan, number: int) -> Estimate:
    """What the program of a group and its batches cost."""
    batches = [batch for batch in plan.batches if batch.program == number]
    experiment = max(batches, key=lambda batch: len(batch.lanes)).experiment()
    num_lanes, settings = len(experiment.lanes), experiment.settings
    program = compile_program(experiment)
    state, _ = program.segment(program.init(), 1)
    jax.block_until_ready(state)
    begun = time.perf_counter()
    state, metrics = program.segment(state, min(MEASURED, program.max_updates))
    per_update = (time.perf_counter() - begun) / min(MEASURED, program.max_updates)
    begun = time.perf_counter()
    program.evaluate(state, 1)
    evaluations = 1 + (settings.num_updates - 1) // settings.evaluation.interval if settings.evaluation.interval else 1
    evaluating = (time.perf_counter() - begun) * evaluations
    rows = metric_rows(metrics, experiment.lanes, settings.steps_per_update, 0)
    per_row = len(encode(to_arrow(rows), None)) / len(rows)
    num_rows = -(-settings.num_updates // settings.updates_per_row)
    share = sum(len(batch.lanes) for batch in batches) / num_lanes
    return Estimate(
        memory=memory_of(experiment),
        width=program.blocks.width,
        compile_seconds=program.compile_seconds,
        seconds=share * (per_update * settings.num_updates + evaluating),
        table_bytes=int(share * num_lanes * num_rows * per_row),
    )


def memory_of(experiment: Experiment) -> Memory:
    """Bytes of an update by the number of lanes, from the compiler's analysis of programs for one and for two lanes."""
    alone = experiment.of_lane(0)
    (one, state), (two, _) = (_needed(replace(alone, lanes=SeedLanes(range(number)))) for number in (1, 2))
    return Memory(fixed=max(2 * one - two, 0), per_lane=two - one, state=state)


def _needed(experiment: Experiment) -> tuple[int, int]:
    """(bytes of an update of all lanes at once on one device, bytes of the state of a lane)."""
    num_lanes = len(experiment.lanes)
    (init, _), (segment, donated), _ = functions(experiment, Blocks(num_lanes, num_lanes, mesh_of(1)), MAX_SEGMENT)
    keys = jax.ShapeDtypeStruct((num_lanes,), jax.random.key(0, impl=GENERATOR).dtype)
    numbers = jax.eval_shape(experiment.numbers)
    state = jax.eval_shape(init, keys, numbers)
    count = jax.ShapeDtypeStruct((), jnp.int32)
    compiled = jax.jit(segment, donate_argnums=donated).lower(state, numbers, count).compile()
    return bytes_needed(compiled), bytes_of(jax.tree.map(numbers_of, state)) // num_lanes
