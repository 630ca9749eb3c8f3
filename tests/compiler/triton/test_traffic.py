"""What kernels move, counted in their IR: the fewest bytes where a row fits a block, and no other product."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.compiler.triton.emit_cases import normalise, product, soften, total
from tests.compiler.triton.test_emit_aot import compiled
from tilewright.compiler.targets.triton.schedule import LOOPED_BLOCK, SMALLEST_GRID
from tilewright.compiler.targets.triton.toolchain import Artefact
from tilewright.compiler.targets.triton.traffic import Traffic, traffic_of
from tilewright.errors import InternalError
from tilewright.op.op import Op

HALF = np.float16


def traffics(op: Op, *operands: np.ndarray) -> list[Traffic]:
    """Of each kernel, for operands whose extents are multiples of the tiles."""
    steps = compiled(op.bind(op.arguments(operands, {})), "cuda:90")
    return [traffic_of(artefact, (step.grid,), step.integers) for step, artefact in steps]


def test_a_row_softmax_loads_its_input_once():
    x = np.empty((64, 4096), HALF)
    (moved,) = traffics(soften, x)
    assert (moved.sites("x_ptr"), moved.loaded("x_ptr"), moved.stored("y_ptr")) == (1, x.nbytes, x.nbytes)


def test_a_row_that_no_block_holds_is_walked_for_each_phase():
    x = np.empty((128, 262144), HALF)
    (moved,) = traffics(soften, x)
    assert (moved.sites("x_ptr"), moved.loaded("x_ptr"), moved.stored("y_ptr")) == (3, 3 * x.nbytes, x.nbytes)


def test_a_norm_loads_its_weight_for_every_row():
    x, w = np.empty((64, 4096), HALF), np.empty(4096, HALF)
    (moved,) = traffics(normalise, x, w)
    assert moved.loaded("x_ptr") == moved.stored("y_ptr") == x.nbytes
    assert moved.loaded("w_ptr") == 64 * w.nbytes


def test_a_whole_sum_loads_each_number_once():
    x = np.empty((SMALLEST_GRID, 4 * LOOPED_BLOCK), np.float32)
    first, *rest = traffics(total, x)
    assert first.loaded("x_ptr") == x.nbytes
    assert all(moved.loaded("x_ptr") == 0 for moved in rest)


def test_a_product_multiplies_what_it_must_and_loads_each_tile_once():
    a, b = np.empty((512, 1024), HALF), np.empty((1024, 256), HALF)
    call = product.bind(product.arguments((a, b), {}))
    ((step, artefact),) = compiled(call, "cuda:90")
    moved = traffic_of(artefact, (step.grid,), step.integers)
    assert moved.multiplied == 512 * 1024 * 256
    assert moved.loaded("a_ptr") == a.nbytes * 256 // step.schedule.block_columns
    assert moved.loaded("b_ptr") == b.nbytes * 512 // step.schedule.block_rows
    assert moved.stored("y_ptr") == 2 * 512 * 256


def text(body: str) -> Artefact:
    """An artefact of hand-written IR, around one that was compiled."""
    call = soften.bind(soften.arguments((np.empty((64, 4096), HALF),), {}))
    ((_, artefact),) = compiled(call, "cuda:90")
    return replace(artefact, texts={"ttir": f"module {{\n  tt.func public @f() {{\n{body}\n  }}\n}}\n"})


LOAD = "%v = tt.load %x_ptr : tensor<4x8x!tt.ptr<f8E4M3FN>> loc(#loc1)"


def test_loops_in_loops_and_sizes_of_elements():
    body = f"""
    %c0 = arith.constant 0 : i32 loc(#loc1)
    %c3 = arith.constant 3 : i32 loc(#loc1)
    %end = arith.muli %size_d, %c3 : i32 loc(#loc1)
    scf.for %i = %c0 to %end step %c3  : i32 {{
      scf.if %flag {{
        scf.for %j = %c0 to %c3 step %c3  : i32 {{
          {LOAD}
        }} loc(#loc1)
      }} loc(#loc1)
    }} loc(#loc1)
    {LOAD}"""
    moved = traffic_of(text(body), (5, 2), {"size_d": 7})
    assert [access.trips for access in moved.accesses] == [7, 1]
    assert moved.loaded("x_ptr") == 32 * 8 * 10


def test_what_a_loop_that_data_decide_moves_is_not_known():
    """Its places are: they count for a scatter, which looks for what falls into its tile."""
    moved = traffic_of(text(f"scf.for %i = %low to %high step %step  : i32 {{\n{LOAD}\n}}"), (1,), {})
    assert moved.sites("x_ptr") == 1 and moved.multiplied == 0
    with pytest.raises(InternalError, match="not decided by a launch's integers"):
        moved.loaded("x_ptr")
