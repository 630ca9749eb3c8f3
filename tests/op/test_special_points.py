"""Points at which the targets once disagreed."""

import numpy as np
import pytest

import tilewright as tw
from tests.support.checks import targets
from tilewright.compiler.pipeline import compile_program

POINTS = {
    "digamma": ([0.0, -0.0, -1.0], [-np.inf, np.inf, np.nan]),  # as torch and SciPy have it
    "expm1": ([0.0, -0.0, "smallest", "-smallest"], [0.0, -0.0, "smallest", "-smallest"]),
}


@pytest.mark.parametrize("where", ["reference", *targets()])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", POINTS)
def test_a_function_at_a_special_point(name, dtype, where):
    @tw.op
    def body(x: tw.Tile["n"]):
        return getattr(tw, name)(x)

    smallest = np.finfo(dtype).smallest_subnormal
    named = {"smallest": smallest, "-smallest": -smallest}
    x, expected = (np.array([named.get(v, v) for v in values], dtype) for values in POINTS[name])
    call = body.bind(body.arguments((x,), {}))
    if where == "reference":
        found = body.reference(x)
    else:
        (found,) = compile_program(call.program, where).run(call.arrays, {})
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.signbit(found[:2]), np.signbit(expected[:2]))
