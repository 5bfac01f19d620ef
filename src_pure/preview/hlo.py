"""The text of a compiled program (optimised HLO) as computations and instructions."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

BITS = {"pred": 8, "token": 0, "opaque": 0}
HEADER = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
START = re.compile(r"\s*(ROOT )?%?([\w.\-]+) = ")
ARRAY = re.compile(r"([a-z]\w*)\[([\d,<=]*)\](?:\{([^}]*)\})?")
NAME = re.compile(r"%([\w.\-]+)")
COMMENT = re.compile(r"/\*.*?\*/")


class Array(NamedTuple):
    """The shape of one array and how it lies in memory."""

    dtype: str
    dims: tuple[int, ...]
    layout: str  # such as 1,0:T(8,128)S(1): order of the axes, the tile that they are padded to, the memory

    @property
    def elements(self) -> int:
        return math.prod(self.dims)

    @property
    def num_bytes(self) -> int:
        """Bytes in the device's main memory, with padding; 0 for an array in a memory on the chip."""
        if re.search(r"S\([1-9]", self.layout):
            return 0
        return -(-math.prod(_padded(self.dims, self.layout)) * bits(self.dtype) // 8)


def bits(dtype: str) -> int:
    """Bits of one element: 32 of f32, s32 and u32, 8 of f8e4m3fn."""
    digits = re.match(r"[a-z]+(\d+)", dtype)
    return BITS[dtype] if dtype in BITS else int(digits[1]) if digits else 0


def _padded(dims: tuple[int, ...], layout: str) -> list[int]:
    """The sizes from the innermost axis on, rounded up to the layout's first tile."""
    order = layout.partition(":")[0].split(",")
    sizes = [dims[int(axis)] for axis in order] if len(order) == len(dims) and order != [""] else list(dims[::-1])
    tile = re.search(r"T\(([\d,]+)\)", layout)
    for axis, size in enumerate(reversed(tile[1].split(","))) if tile and dims else ():
        if axis < len(sizes):
            sizes[axis] = -(-sizes[axis] // int(size)) * int(size)
    return sizes


@dataclass(frozen=True, slots=True)
class Instruction:
    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    inside: str  # the text between the parentheses: the value of a constant, the number of a parameter
    attributes: str
    is_root: bool

    @property
    def arrays(self) -> tuple[Array, ...]:
        return arrays(self.shape)

    @property
    def num_bytes(self) -> int:
        return sum(array.num_bytes for array in self.arrays)

    @property
    def elements(self) -> int:
        return sum(array.elements for array in self.arrays)

    def called(self, attribute: str) -> str | None:
        """The computation that an attribute such as calls, body or condition names."""
        found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)
        return found and found[1]

    def text(self, pattern: str) -> str:
        """What the group of a pattern matches in the attributes; empty if nothing does."""
        found = re.search(pattern, self.attributes)
        return found[1] if found else ""

    @property
    def op_name(self) -> str:
        """Where in the Python program it comes from, such as jit(segment)/while/body/learning/add."""
        return self.text(r'op_name="([^"]*)"')


@dataclass(frozen=True)
class Computation:
    name: str
    instructions: Mapping[str, Instruction]  # by name, in order

    @property
    def root(self) -> Instruction:
        return next(x for x in self.instructions.values() if x.is_root)

    def operands(self, instruction: Instruction) -> list[Instruction]:
        return [self.instructions[name] for name in instruction.operands if name in self.instructions]


@dataclass(frozen=True)
class Module:
    computations: Mapping[str, Computation]
    entry: str


@lru_cache(maxsize=100_000)
def arrays(shape: str) -> tuple[Array, ...]:
    """The arrays of a shape, which may be a tuple."""
    return tuple(
        Array(dtype, tuple(int(size.lstrip("<=")) for size in dims.split(",") if size), layout)
        for dtype, dims, layout in ARRAY.findall(shape)
    )


def parse(text: str) -> Module:
    """The module that `compiled.as_text()` prints."""
    computations: dict[str, Computation] = {}
    entry, name, instructions = "", None, {}
    for line in text.splitlines():
        if name is None:
            if header := HEADER.match(line):
                name, instructions = header[2], {}
                entry = name if header[1] else entry
        elif line.startswith("}"):
            computations[name] = Computation(name, instructions)
            name = None
        elif instruction := parse_instruction(line):
            instructions[instruction.name] = instruction
    return Module(computations, entry)


def parse_instruction(line: str) -> Instruction | None:
    """One line of a computation; None if it is not an instruction."""
    start = START.match(line)
    if start is None:
        return None
    rest = COMMENT.sub("", line[start.end() :])
    end = _closing(rest, 0) + 1 if rest[0] == "(" else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opening = rest.index("(")
    closing = _closing(rest, opening)
    inside = rest[opening + 1 : closing]
    operands = () if rest.startswith("constant(") else tuple(NAME.findall(inside))
    return Instruction(start[2], shape, rest[:opening], operands, inside, rest[closing + 1 :], bool(start[1]))


def _closing(text: str, opening: int) -> int:
    """Where the parenthesis that opens there is closed."""
    depth = 0
    for match in re.compile(r"[()]").finditer(text, opening):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return match.start()
    raise ValueError(f"a parenthesis is not closed: {text[:200]}")
