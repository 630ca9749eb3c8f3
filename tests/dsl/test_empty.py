"""Programs of calls in which an axis has no positions: the same values, and none over such an axis."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.programs import draw_arguments, extents, programs
from tests.support.tracing import traced
from tilewright.dsl import language as tw
from tilewright.dsl.axes import Tile, base
from tilewright.dsl.empty import without_empty_axes
from tilewright.dsl.extents import bind_extents
from tilewright.dsl.formula import formula
from tilewright.dsl.program import Program
from tilewright.dsl.reference import reference
from tilewright.dsl.scalars import SCALARS
from tilewright.dsl.simplify import simplify
from tilewright.dsl.verify import verify


def all_extents(program: Program, arguments) -> dict[str, int]:
    return bind_extents(program, {p.name: np.shape(arguments[p.name]) for p in program.tiles})


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_no_value_changes(data):
    program = data.draw(programs(special=True, functions=set(SCALARS) - {"lgamma", "digamma"}))
    arguments = draw_arguments(program, data.draw(extents(program, (0, 3, 1))), special=True)
    found = all_extents(program, arguments)
    nonempty = verify(without_empty_axes(program, found), "empty axes")
    for a, b in zip(reference(program, arguments), reference(nonempty, arguments), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not {base(a) for n in nonempty.nodes() for a in n.axes if found[base(a)] == 0}
    assert without_empty_axes(nonempty, found) == nonempty


def several(x: Tile["i j"], z: Tile["i"]):
    return tw.sum(x / z, "j"), tw.max(x, "j") + tw.prod(x, "i j"), x * z


def test_what_a_reduction_gives_stands_in_its_place():
    program = traced(several)
    text = formula(without_empty_axes(program, {"i": 3, "j": 0}))
    assert set(text.splitlines()) == {"y0 = 0", "y1 = -inf + 1", "y2 = 0"}


def test_without_an_empty_axis_nothing_changes():
    program = traced(several)
    assert without_empty_axes(program, {"i": 3, "j": 1}) is program


@pytest.mark.parametrize("extent", [0, 2])
def test_a_factor_that_left_a_sum_needs_an_axis_with_positions(extent: int):
    """Why this is done before anything else: the rule that is used is wrong for an empty axis."""
    program = traced(several)
    arguments = {"x": np.ones((2, extent)), "z": np.zeros(2)}
    expected = reference(program, arguments)[0]
    general = reference(simplify(program), arguments)[0]
    assert np.array_equal(general, expected) == (extent > 0)
    nonempty = simplify(without_empty_axes(program, all_extents(program, arguments)))
    np.testing.assert_array_equal(reference(nonempty, arguments)[0], expected)
