"""What a compiled program does: kernels, bytes and operations, with every loop counted as often as it turns."""

import re
from collections import Counter
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

from src_pure.preview.hlo import Computation, Instruction, Module
from src_pure.preview.operations import ARITHMETIC, operations
from src_pure.preview.traffic import NOTHING, traffic

SCOPES = ("environment", "acting", "learning")  # jax.named_scope, see train.py
OTHER = "other"
LAUNCHES, BYTES = "launches", "bytes"
COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-broadcast", "collective-permute", "reduce-scatter")
# what starts nothing on the device: names of values, and the ends of what was started before
SILENT = {
    "add-dependency", "after-all", "async-update", "bitcast", "constant", "domain", "get-dimension-size",
    "get-tuple-element", "opt-barrier", "optimization-barrier", "parameter", "partition-id", "replica-id", "tuple",
}  # fmt: skip


class Part(NamedTuple):
    """One thing that is counted, in one part of the program."""

    scope: str
    quantity: str  # launches, bytes, a kind of operation, or a collective


class Loop(NamedTuple):
    """A loop, as often as it turns in one call of what was counted."""

    name: str  # where in the Python program it comes from
    scope: str
    turns: int
    launches: int  # of one turn, with the loops inside
    known: bool  # whether the program says how often it turns; otherwise one turn is counted


@dataclass(frozen=True)
class Counted:
    """Everything that was counted: numbers by part, and loops, the outer ones after the inner ones."""

    numbers: Counter[Part]
    loops: tuple[Loop, ...] = ()

    def __add__(self, other: "Counted") -> "Counted":
        return Counted(self.numbers + other.numbers, self.loops + other.loops)

    def times(self, number: int) -> "Counted":
        loops = tuple(loop._replace(turns=loop.turns * number) for loop in self.loops)
        return Counted(Counter({part: number * value for part, value in self.numbers.items()}), loops)

    def total(self, quantity: str, scope: str | None = None) -> int:
        """The number of one quantity, in one scope or in all of them."""
        parts = (part for part in self.numbers if part.quantity == quantity and scope in (None, part.scope))
        return sum(self.numbers[part] for part in parts)


NONE = Counted(Counter())


def count(module: Module, counted_loop: bool = False) -> Counted:
    """What one call of the program does; counted_loop: what one turn of its largest outer loop of unknown length does.

    A segment of training is such a loop over updates.
    """
    whole = _computation(module, module.entry, OTHER)
    if not counted_loop:
        return whole
    entry = module.computations[module.entry]
    loops = [x for x in entry.instructions.values() if x.opcode == "while" and trip_count(x, entry, module) is None]
    turns = [_turn(loop, OTHER, module) for loop in loops]
    return max(turns, key=lambda turn: turn.total(LAUNCHES), default=whole)


def _computation(module: Module, name: str, scope: str) -> Counted:
    computation = module.computations[name]
    found = (_instruction(x, computation, module, scope) for x in computation.instructions.values())
    return reduce(Counted.__add__, found, NONE)


def _instruction(instruction: Instruction, computation: Computation, module: Module, scope: str) -> Counted:
    """What one instruction does; scope: of the instruction around it."""
    opcode = instruction.opcode
    own = scope_of(instruction, module) or scope
    if opcode in SILENT or opcode.endswith("-done") or _is_scalar(instruction) or NOTHING in instruction.attributes:
        return NONE
    if opcode == "while":
        return _while(instruction, computation, module, own)
    if opcode == "conditional":
        return max((_computation(module, name, own) for name in branches(instruction)), key=_launches)
    if opcode == "call" or (opcode == "async-start" and instruction.called("calls")):
        return _computation(module, instruction.called("to_apply") or instruction.called("calls") or "", own)
    numbers = Counter({Part(own, LAUNCHES): 1, Part(own, BYTES): traffic(instruction, computation, module)})
    numbers += Counter({Part(own, kind): n for kind, n in operations(instruction, computation, module).items()})
    kind = opcode.removesuffix("-start")
    return Counted(numbers + Counter({Part(own, kind): 1} if kind in COLLECTIVES else {}))


def _while(loop: Instruction, computation: Computation, module: Module, scope: str) -> Counted:
    trips = trip_count(loop, computation, module)
    turn = _turn(loop, scope, module)
    loops = (Loop(loop.op_name, scope, 1 if trips is None else trips, _launches(turn), trips is not None),)
    turns = turn if trips is None else turn.times(trips)
    return Counted(turns.numbers, turns.loops + loops)


def _turn(loop: Instruction, scope: str, module: Module) -> Counted:
    """What one turn of a loop does. The condition of a loop of known length is not evaluated."""
    names = ["body"] if "known_trip_count" in loop.attributes else ["body", "condition"]
    return reduce(Counted.__add__, (_computation(module, loop.called(name) or "", scope) for name in names), NONE)


def _launches(counted: Counted) -> int:
    return counted.total(LAUNCHES)


def _is_scalar(instruction: Instruction) -> bool:
    """Whether it is arithmetic of a single number outside of a kernel, which a TPU does between kernels."""
    return instruction.opcode in ARITHMETIC and instruction.elements == 1


def branches(conditional: Instruction) -> list[str]:
    """The computations of which a conditional calls one."""
    listed = conditional.text(r"branch_computations={([^}]*)}")
    found = (conditional.called(f"{side}_computation") for side in ("true", "false"))
    return [name.strip().lstrip("%") for name in listed.split(",")] if listed else [name for name in found if name]


def scope_of(instruction: Instruction, module: Module) -> str | None:
    """The innermost scope in the name of an instruction, or of what it fuses; None without one."""
    names = [instruction.op_name]
    if instruction.opcode in ("fusion", "fusion-start"):
        inside = module.computations[instruction.called("calls") or ""]
        names += [inside.root.op_name, *(x.op_name for x in inside.instructions.values())]
    return next((found for name in names if (found := scope_in(name))), None)


def scope_in(op_name: str) -> str | None:
    found = re.findall(rf"\b({'|'.join(SCOPES)})\b", op_name)
    return found[-1] if found else None


def trip_count(loop: Instruction, computation: Computation, module: Module) -> int | None:
    """How often a loop turns; None if the program does not say.

    XLA notes it for a GPU. Elsewhere it follows from a condition i < constant, with i from a constant on in steps of 1.
    """
    if known := loop.text(r'known_trip_count":\{"n":"(\d+)"'):
        return int(known)
    condition, body = (module.computations[loop.called(name) or ""] for name in ("condition", "body"))
    if condition.root.opcode != "compare" or "direction=LT" not in condition.root.attributes:
        return None
    counter, limit = (_origin(x, condition) for x in condition.operands(condition.root))
    if counter.opcode != "get-tuple-element" or counter.operands != (_parameter(condition),):
        return None
    index = int(counter.text(r"index=(\d+)"))
    first = _element(computation.operands(loop)[0], index, computation)
    if limit.opcode == "get-tuple-element":  # XLA may keep a constant next to the counter
        last = _element(computation.operands(loop)[0], int(limit.text(r"index=(\d+)")), computation)
        limit = last if _stays(int(limit.text(r"index=(\d+)")), body) else limit
    if first.opcode != "constant" or limit.opcode != "constant" or not _steps_by_one(index, body):
        return None
    return max(0, int(limit.inside) - int(first.inside))


def _parameter(computation: Computation) -> str:
    return next(x.name for x in computation.instructions.values() if x.opcode == "parameter")


def _origin(value: Instruction, computation: Computation) -> Instruction:
    """Where a value comes from, before it was copied."""
    while value.opcode in ("copy", "bitcast", "convert"):
        value = computation.operands(value)[0]
    return value


def _element(value: Instruction, index: int, computation: Computation) -> Instruction:
    """The origin of one element of a tuple; the tuple itself where it was not made in this computation."""
    return _origin(computation.operands(value)[index], computation) if value.opcode == "tuple" else value


def _stays(index: int, body: Computation) -> bool:
    """Whether a turn leaves an element of the loop's tuple as it is."""
    value = _element(body.root, index, body)
    return value.opcode == "get-tuple-element" and value.text(r"index=(\d+)") == str(index)


def _steps_by_one(index: int, body: Computation) -> bool:
    value = _element(body.root, index, body)
    parts = [_origin(x, body) for x in body.operands(value)] if value.opcode == "add" else []
    counters = [x for x in parts if x.opcode == "get-tuple-element" and x.text(r"index=(\d+)") == str(index)]
    return len(counters) == 1 and any(x.opcode == "constant" and x.inside == "1" for x in parts)
