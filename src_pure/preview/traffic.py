"""Bytes that an instruction reads and writes in the device's memory."""

from src_pure.preview.hlo import Computation, Instruction, Module

SLICES = ("dynamic-slice", "slice", "gather")  # read only a part of their first operand
TRANSPARENT = ("bitcast", "copy-done", "fusion-done")
NOTHING, GEMM = "AllocateBuffer", "__cublas$"  # what a custom call calls


def traffic(instruction: Instruction, computation: Computation, module: Module) -> int:
    """Bytes read and written. What is read only in slices, or replaced in place, counts with that part."""
    operands = computation.operands(instruction)
    match instruction.opcode:
        case "fusion" | "fusion-start":
            return _fusion(instruction, module)
        case "copy-start":
            return sum(array.num_bytes for array in instruction.arrays[:2])  # to, from, and a flag
        case "dynamic-update-slice":
            return 2 * operands[1].num_bytes if instruction.num_bytes else operands[1].num_bytes
        case "scatter":
            return sum(x.num_bytes for x in operands[len(operands) // 2 :]) + operands[-1].num_bytes
        case opcode if opcode in SLICES:
            return 2 * instruction.num_bytes if operands[0].num_bytes else instruction.num_bytes
        case "custom-call" if NOTHING in instruction.attributes:
            return 0
        case "custom-call" if GEMM in instruction.attributes:  # its second result is room to work in
            return sum(x.num_bytes for x in operands) + instruction.arrays[0].num_bytes
        case opcode if opcode.endswith("-start"):  # of a collective: its shape repeats the operands
            return 2 * sum(x.num_bytes for x in operands)
    return sum(x.num_bytes for x in operands) + instruction.num_bytes


def _fusion(fusion: Instruction, module: Module) -> int:
    inside = module.computations[fusion.called("calls") or ""]
    users: dict[str, list[Instruction]] = {}
    for instruction in inside.instructions.values():
        for name in set(instruction.operands):
            users.setdefault(name, []).append(instruction)
    parameters = (x for x in inside.instructions.values() if x.opcode == "parameter")
    roots = inside.operands(inside.root) if inside.root.opcode == "tuple" else [inside.root]
    return sum(_read(x, users) for x in parameters) + sum(_written(x, inside) for x in roots)


def _read(value: Instruction, users: dict[str, list[Instruction]]) -> int:
    """Bytes that a fusion reads of one of its parameters: at most all of it."""
    return min(value.num_bytes, sum(_read_by(user, value, users) for user in users.get(value.name, ())))


def _read_by(user: Instruction, value: Instruction, users: dict[str, list[Instruction]]) -> int:
    first = bool(user.operands) and user.operands[0] == value.name
    if user.opcode in TRANSPARENT:
        return sum(_read_by(x, user, users) for x in users.get(user.name, ()))
    if first and user.opcode in SLICES:
        return user.num_bytes
    if first and user.opcode in ("dynamic-update-slice", "scatter"):
        return 0  # in place
    return value.num_bytes


def _written(root: Instruction, inside: Computation) -> int:
    operands = inside.operands(root)
    if root.opcode in TRANSPARENT and operands and root.num_bytes:
        return _written(operands[0], inside)
    if root.opcode == "dynamic-update-slice" and root.num_bytes:
        return operands[1].num_bytes
    if root.opcode == "scatter" and root.num_bytes:
        return 2 * operands[-1].num_bytes
    return root.num_bytes
