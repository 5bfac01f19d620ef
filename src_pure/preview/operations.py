"""Arithmetic of an instruction: multiplications and additions of products, and one operation for each other element."""

import math
import re
from collections import Counter
from functools import lru_cache

from src_pure.preview.devices import BFLOAT16, ELEMENTWISE, FULL, ROUNDED
from src_pure.preview.hlo import Computation, Instruction, Module

ARITHMETIC = {
    "abs", "add", "and", "atan2", "cbrt", "ceil", "clamp", "compare", "cosine", "divide", "erf", "exponential",
    "exponential-minus-one", "floor", "is-finite", "log", "log-plus-one", "logistic", "maximum", "minimum",
    "multiply", "negate", "not", "or", "popcnt", "power", "remainder", "round-nearest-afz", "round-nearest-even",
    "rsqrt", "select", "shift-left", "shift-right-arithmetic", "shift-right-logical", "sign", "sine", "sqrt",
    "subtract", "tan", "tanh", "xor",
}  # fmt: skip
GEMM = ("__cublas$gemm", "__cublas$lt$matmul", "__triton_gemm")
WHOLE = ("highest", "HIGHEST")  # precision that keeps float32


def operations(instruction: Instruction, computation: Computation, module: Module) -> Counter[str]:
    """Operations of each kind (float32, rounded float32, bfloat16, elementwise), with those of a fusion inside."""
    match instruction.opcode:
        case "fusion" | "fusion-start":
            inside = module.computations[instruction.called("calls") or ""]
            return sum((operations(x, inside, module) for x in inside.instructions.values()), Counter())
        case "dot":
            return Counter({_kind(instruction, computation): _dot(instruction, computation)})
        case "convolution":
            return Counter({_kind(instruction, computation): _convolution(instruction, computation)})
        case "custom-call" if instruction.text(r'custom_call_target="([^"]*)"') in GEMM:
            return Counter({_kind(instruction, computation): _dot(instruction, computation)})
        case "reduce" | "reduce-window":
            inputs = computation.operands(instruction)
            return Counter({ELEMENTWISE: sum(x.elements for x in inputs[: max(1, len(inputs) // 2)])})
        case "scatter":
            return Counter({ELEMENTWISE: computation.operands(instruction)[-1].elements})
        case opcode if opcode in ARITHMETIC:
            return Counter({ELEMENTWISE: instruction.elements})
    return Counter()


def _kind(product: Instruction, computation: Computation) -> str:
    """What a product's factors are, and whether it may round them."""
    factor = computation.operands(product)[0].arrays[0]
    if factor.dtype in ("bf16", "f16"):
        return BFLOAT16
    return FULL if any(word in product.attributes for word in WHOLE) else ROUNDED


def _dot(dot: Instruction, computation: Computation) -> int:
    """Multiplications and additions of a product of matrices."""
    left = computation.operands(dot)[0].arrays[0]
    axes = dot.text(r'lhs_contracting_dim(?:ension)?s"?[:=][{\[]([\d,"]*)[}\]]').replace('"', "")
    summed = math.prod(left.dims[int(axis)] for axis in axes.split(",") if axis)
    return 2 * dot.arrays[0].elements * summed


def _convolution(convolution: Instruction, computation: Computation) -> int:
    """Multiplications and additions of a convolution, without those with padding or between dilated elements."""
    inputs, kernel = (x.arrays[0] for x in computation.operands(convolution)[:2])
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", convolution.attributes)
    assert labels is not None, f"a convolution without dim_labels: {convolution.attributes[:200]}"
    output, (of_input, of_kernel, of_output) = convolution.arrays[0], labels.groups()
    window = convolution.text(r"window={([^}]*)}")
    total = 2 * output.dims[of_output.index("b")] * output.dims[of_output.index("f")]
    total *= kernel.dims[of_kernel.index("i")]
    for axis in range(len(of_input) - 2):
        label = str(axis)
        sizes = [
            x.dims[labels.index(label)] for x, labels in ((inputs, of_input), (kernel, of_kernel), (output, of_output))
        ]
        low = int(_per_axis(window, "pad", axis, "0_0").split("_")[0])
        stride, input_step, kernel_step = (
            int(_per_axis(window, name, axis, "1")) for name in ("stride", "lhs_dilate", "rhs_dilate")
        )
        total *= _pairs(*sizes, low, stride, input_step, kernel_step)
    return total


def _per_axis(window: str, name: str, axis: int, default: str) -> str:
    found = re.search(rf"\b{name}=(\S+)", window)
    return found[1].split("x")[axis] if found else default


@lru_cache(maxsize=10_000)
def _pairs(
    input_size: int, kernel_size: int, output_size: int, low: int, stride: int, input_step: int, kernel_step: int
) -> int:
    """How many pairs of an output and a kernel element meet an element of the input, along one axis."""
    reached = (
        out * stride + element * kernel_step - low for out in range(output_size) for element in range(kernel_size)
    )
    return sum(0 <= place <= (input_size - 1) * input_step and place % input_step == 0 for place in reached)
