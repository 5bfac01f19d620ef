"""Kernels, bytes and operations of programs that are short enough to count by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from src_pure.preview.counting import BYTES, LAUNCHES, count, trip_count
from src_pure.preview.hlo import arrays, parse
from src_pure.preview.traffic import traffic

LOOPS = """
%add (a: f32[64]) -> f32[64] {
  %a = f32[64]{0} parameter(0)
  ROOT %twice = f32[64]{0} add(%a, %a), metadata={op_name="jit(f)/vmap(acting)/add"}
}

%inner_body (p: (s32[], f32[64])) -> (s32[], f32[64]) {
  %p = (s32[], f32[64]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[64]{0} get-tuple-element(%p), index=1
  %y = f32[64]{0} fusion(%x), kind=kLoop, calls=%add
  ROOT %out = (s32[], f32[64]{0}) tuple(%i, %y)
}

%condition (q: (s32[], f32[64])) -> pred[] {
  %q = (s32[], f32[64]{0}) parameter(0)
  ROOT %less = pred[] custom-call(%q), custom_call_target="less"
}

%outer_body (p: (s32[], f32[64])) -> (s32[], f32[64]) {
  %p = (s32[], f32[64]{0}) parameter(0)
  %c = (s32[], f32[64]{0}) while(%p), condition=%condition, body=%inner_body, metadata={op_name="learning/while"}, \
backend_config={"known_trip_count":{"n":"5"}}
  %i = s32[] get-tuple-element(%c), index=0
  %x = f32[64]{0} get-tuple-element(%c), index=1
  %y = f32[64]{0} copy(%x), metadata={op_name="jit(f)/environment/copy"}
  ROOT %out = (s32[], f32[64]{0}) tuple(%i, %y)
}

ENTRY %main (p: (s32[], f32[64])) -> (s32[], f32[64]) {
  %p = (s32[], f32[64]{0}) parameter(0)
  ROOT %w = (s32[], f32[64]{0}) while(%p), condition=%condition, body=%outer_body, BACKEND
}
"""
KNOWN = LOOPS.replace("BACKEND", 'backend_config={"known_trip_count":{"n":"3"}}')
UNKNOWN = LOOPS.replace("BACKEND", "metadata={}")


def test_loops_multiply():
    counted = count(parse(KNOWN))
    assert counted.total(LAUNCHES) == 3 * (5 + 1)
    assert counted.total(LAUNCHES, "acting") == 15 and counted.total(LAUNCHES, "environment") == 3
    assert counted.total(BYTES) == 3 * (5 + 1) * 2 * 64 * 4
    assert counted.total("elementwise", "acting") == 3 * 5 * 64
    assert [(loop.turns, loop.launches, loop.known) for loop in counted.loops] == [(15, 1, True), (3, 6, True)]


def test_a_loop_of_unknown_length_counts_as_one_turn_with_its_condition():
    whole, turn = (count(parse(UNKNOWN), counted_loop) for counted_loop in (False, True))
    assert whole.total(LAUNCHES) == turn.total(LAUNCHES) == 5 + 1 + 1
    assert [loop.known for loop in whole.loops] == [True, False]


def test_what_names_no_scope_has_that_of_the_loop_around_it():
    text = KNOWN.replace(', metadata={op_name="jit(f)/vmap(acting)/add"}', "")
    assert count(parse(text)).total(LAUNCHES, "learning") == 15


TPU_LOOP = """
%body (p: (s32[], f32[8], s32[])) -> (s32[], f32[8], s32[]) {
  %one = s32[] constant(STEP)
  %p = (s32[], f32[8]{0}, s32[]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %copied = s32[]{:T(128)S(6)} copy(%i)
  %x = f32[8]{0} get-tuple-element(%p), index=1
  %n = s32[] get-tuple-element(%p), index=2
  %next = s32[] add(%copied, %one)
  ROOT %out = (s32[], f32[8]{0}, /*index=2*/s32[]) tuple(%next, %x, %n)
}

%condition (q: (s32[], f32[8], s32[])) -> pred[] {
  %q = (s32[], f32[8]{0}, s32[]) parameter(0)
  %i = s32[] get-tuple-element(%q), index=0
  %n = LIMIT
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (x: f32[8]) -> (s32[], f32[8], s32[]) {
  %x = f32[8]{0} parameter(0)
  %first = s32[] constant(2)
  %last = s32[] constant(19)
  %start = (s32[], f32[8]{0}, s32[]) tuple(%first, %x, %last)
  ROOT %w = (s32[], f32[8]{0}, s32[]) while(%start), condition=%condition, body=%body
}
"""


@pytest.mark.parametrize(
    ("step", "limit", "wanted"),
    [
        ("1", "s32[] constant(9)", 7),
        ("1", "s32[] get-tuple-element(%q), index=2", 17),
        ("2", "s32[] constant(9)", None),
        ("1", "s32[] custom-call(%q)", None),
    ],
)
def test_the_length_of_a_loop_follows_from_its_counter(step, limit, wanted):
    module = parse(TPU_LOOP.replace("STEP", step).replace("LIMIT", limit))
    entry = module.computations[module.entry]
    assert trip_count(entry.root, entry, module) == wanted


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ("f32[]", 4),
        ("pred[7]{0}", 7),
        ("bf16[3,5]{1,0}", 30),
        ("(f32[2]{0}, s32[], /*index=2*/u8[3]{0})", 8 + 4 + 3),
        ("f32[3,5]{1,0:T(8,128)}", 8 * 128 * 4),
        ("f32[3,5,9]{1,2,0:T(8,128)}", 3 * 16 * 128 * 4),  # the last axis but one is innermost
        ("f32[130]{0:T(128)}", 256 * 4),
        ("f32[3,5]{1,0:T(8,128)S(1)}", 0),  # on the chip
        ("key<fry>[2]", 0),
    ],
)
def test_bytes_of_shapes_have_padding(shape, wanted):
    assert sum(array.num_bytes for array in arrays(shape)) == wanted


SLICES = """
%fused (table: f32[100,8], i: s32[], row: f32[1,8], whole: f32[8]) -> f32[100,8] {
  %table = f32[100,8]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %row = f32[1,8]{1,0} parameter(2)
  %whole = f32[8]{0} parameter(3)
  %zero = s32[] constant(0)
  BODY
}

ENTRY %main (table: f32[100,8], i: s32[], row: f32[1,8], whole: f32[8]) -> f32[100,8] {
  %table = f32[100,8]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %row = f32[1,8]{1,0} parameter(2)
  %whole = f32[8]{0} parameter(3)
  ROOT %out = f32[100,8]{1,0} fusion(%table, %i, %row, %whole), kind=kLoop, calls=%fused
}
"""
UPDATE = "ROOT %u = f32[100,8]{1,0} dynamic-update-slice(%table, %row, %i, %zero)"
READ = "ROOT %s = f32[1,8]{1,0} dynamic-slice(%table, %i, %zero), dynamic_slice_sizes={1,8}"
BITCAST = (
    "%b = f32[100,8]{1,0} bitcast(%table)\n  %s = f32[1,8]{1,0} dynamic-slice(%b, %i, %zero)\n"
    "  ROOT %sum = f32[1,8]{1,0} add(%s, %row)"
)
ALL = "ROOT %n = f32[100,8]{1,0} negate(%table)"


@pytest.mark.parametrize(
    ("body", "wanted"), [(UPDATE, 4 + 32 + 32), (READ, 4 + 32 + 32), (BITCAST, 4 + 3 * 32), (ALL, 2 * 3200)]
)
def test_a_slice_is_read_or_replaced_alone(body, wanted):
    module = parse(SLICES.replace("BODY", body))
    entry = module.computations[module.entry]
    assert traffic(entry.root, entry, module) == wanted


PRODUCTS = """
ENTRY %main (x: bf16[4,3,5], y: f32[2,3]) -> f32[4,3,7] {
  %x = bf16[4,3,5]{2,1,0} parameter(0)
  %w = bf16[4,5,7]{2,1,0} parameter(1)
  %y = f32[2,3]{1,0} parameter(2)
  %z = f32[3,9]{1,0} parameter(3)
  %cheap = f32[2,9]{1,0} dot(%y, %z), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %gemm = (f32[2,9]{1,0}, s8[1024]{0}) custom-call(%y, %z), custom_call_target="__cublas$gemm", backend_config=\
{"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]},\
"precision_config":{"operand_precision":["HIGHEST","HIGHEST"]}}}
  %all = f32[2,9]{1,0} all-reduce(%cheap), to_apply=%add
  ROOT %xw = f32[4,3,7]{2,1,0} dot(%x, %w), lhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_batch_dims={0}, \
rhs_contracting_dims={1}
}
"""


def test_products_by_their_precision():
    counted = count(parse(PRODUCTS))
    assert counted.total("bfloat16") == 2 * 4 * 3 * 5 * 7
    assert counted.total("rounded float32") == counted.total("float32") == 2 * 2 * 3 * 9
    assert counted.total("all-reduce") == 1 and counted.total(LAUNCHES) == 4
    assert counted.total(BYTES) == 2 * 4 * (6 + 27 + 18) + 2 * 4 * 18 + 2 * (60 + 140) + 4 * 84


def test_a_conditional_takes_its_longest_branch():
    branches = """
%short (a: f32[8]) -> f32[8] {
  ROOT %a = f32[8]{0} parameter(0)
}

%long (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %b = f32[8]{0} copy(%a)
  ROOT %c = f32[8]{0} copy(%b)
}

ENTRY %main (i: s32[], x: f32[8]) -> f32[8] {
  %i = s32[] parameter(0)
  %x = f32[8]{0} parameter(1)
  ROOT %y = f32[8]{0} conditional(%i, %x, %x), branch_computations={%short, %long}
}
"""
    assert count(parse(branches)).total(LAUNCHES) == 2


@pytest.mark.parametrize("strides", [(1, 1), (2, 3)])
@pytest.mark.parametrize("dilation", [{}, {"lhs_dilation": (3, 1)}, {"rhs_dilation": (1, 2)}])
def test_a_convolution_counts_what_meets_its_input(strides, dilation):
    """XLA's own analysis agrees."""
    x, w = jnp.zeros((2, 7, 9, 3)), jnp.zeros((3, 2, 3, 4))
    call = jax.jit(
        lambda x, w: lax.conv_general_dilated(
            x, w, strides, ((1, 2), (0, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC"), **dilation
        )
    )
    compiled = call.lower(x, w).compile()
    counted = count(parse(compiled.as_text()))
    assert counted.total("rounded float32") == compiled.cost_analysis()["flops"]


def test_a_scan_of_products_is_counted_as_theory_says():
    """Also on a CPU, where XLA prints the same language."""
    steps, size = 17, 64

    def scan(x, w):
        return lax.scan(lambda x, _: (jnp.tanh(jnp.dot(x, w, precision="highest")), jnp.sum(x)), x, None, steps)

    text = jax.jit(scan).lower(*np.zeros((2, size, size), np.float32)).compile().as_text()
    counted = count(parse(text))
    assert counted.total("float32") + counted.total("rounded float32") == 2 * steps * size**3
    assert steps * 2 * size**2 <= counted.total("elementwise") <= steps * 2 * size**2 + 10 * steps
    assert [loop.turns for loop in counted.loops] == [steps]
