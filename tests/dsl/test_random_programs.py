"""The strategy of random Programs, the comparison with the reference, and what must hold for any Program."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tilewright as tw
from tests.support.compare import assert_close, check_results, rounding_noise
from tests.support.programs import draw_arguments, extents, programs
from tests.support.tracing import traced
from tilewright.dsl.dtypes import bfloat16, bool_, float16, float32, float64, int8, int32, int64
from tilewright.dsl.formula import formula
from tilewright.dsl.program import COMBINES, Map, Program, Read, Reduce, Scan
from tilewright.dsl.reference import _Evaluator, _widen, reference
from tilewright.dsl.rules import RuleSet
from tilewright.dsl.scalars import SCALARS
from tilewright.dsl.scans import NAMED, name_of
from tilewright.dsl.simplify import EXACT_RULES, simplify
from tilewright.dsl.text import from_text, to_text
from tilewright.dsl.verify import verify

SETTINGS = settings(
    max_examples=120, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


def sampled(count: int, **options) -> list[Program]:
    found: list[Program] = []

    @settings(SETTINGS, max_examples=count)
    @given(programs(**options))
    def collect(program):
        found.append(program)

    collect()
    return found


class _InItsDtype(_Evaluator):
    """A target: every value is rounded to its dtype."""

    def _evaluate(self, node):
        value = super()._evaluate(node)
        if not node.dtype.is_float:
            return value
        return value.astype(node.dtype.numpy).astype(np.float64)


def narrow_target(program: Program, arguments) -> list[np.ndarray]:
    from tilewright.dsl.extents import bind_extents

    arrays = {p.name: _widen(arguments[p.name], p.dtype) for p in program.params}
    bound = bind_extents(program, {p.name: arrays[p.name].shape for p in program.tiles})
    evaluator = _InItsDtype(arrays, bound)
    with np.errstate(all="ignore"):
        return [evaluator.result(r.node, r.axes).astype(r.dtype.numpy) for r in program.results]


def test_every_kind_of_node_is_drawn():
    seen: Counter[str] = Counter()
    for program in sampled(700, scans=True) + sampled(300, scans=True, dtypes=(float32, bool_)):
        nodes = program.nodes()
        reductions = [n for n in nodes if isinstance(n, Reduce)]
        seen.update(type(n).__name__ for n in nodes)
        seen.update(n.combine for n in reductions)
        seen["several results"] += len(program.results) > 1
        seen["renamed"] += any(isinstance(n, Read) and any("2" in a for a in n.names) for n in nodes)
        seen["two axes"] += any(len(n.over) == 2 for n in reductions)
        scans = [n for n in nodes if isinstance(n, Scan)]
        seen.update(name_of(n.body) or f"scan of {len(n.body)}" for n in scans)
        seen["reverse"] += any(n.reverse for n in scans)
        seen["exclusive"] += any(n.exclusive for n in scans)
        seen["batch"] += any("_0" in p.axes for p in program.params)
        seen["contraction"] += any(isinstance(n.arg, Map) and n.arg.function == "mul" for n in reductions)
    wanted = {"Const", "Read", "Index", "Size", "Map", "Cast", "Reduce", *COMBINES}
    wanted |= {"Scan", *NAMED, "scan of 2", "reverse", "exclusive"}
    wanted |= {"several results", "renamed", "two axes", "batch", "contraction"}
    assert not sorted(name for name in wanted if seen[name] < 3)


def test_every_function_is_drawn():
    names = sorted(set(SCALARS) - {"polygamma"})
    seen = set()
    for start in range(0, len(names), 4):
        for program in sampled(40, functions=names[start : start + 4]):
            seen |= {n.function for n in program.nodes() if isinstance(n, Map)}
    for name in sorted(set(names) - seen):  # those that want int64
        for program in sampled(80, functions=[name], dtypes=(int64,), reductions=False):
            seen |= {n.function for n in program.nodes() if isinstance(n, Map)}
    assert not sorted(set(names) - seen)


@SETTINGS
@given(st.data())
def test_programs_are_tame(data):
    program = data.draw(programs(scans=True))
    arguments = draw_arguments(
        program, data.draw(extents(program, (1, 5, 64) if len(program.params) < 2 else (1, 4)))
    )
    for result, value in zip(program.results, reference(program, arguments), strict=True):
        if result.dtype.is_float:
            assert np.isfinite(value).all() and np.abs(value).max(initial=0) < 1e5


@SETTINGS
@given(st.data())
def test_rounding_to_each_dtype_passes_and_anything_else_fails(data):
    program = data.draw(programs(scans=True))
    arguments = draw_arguments(program, data.draw(extents(program)))
    actual = narrow_target(program, arguments)
    check_results(program, arguments, actual)
    for position, value in enumerate(actual):
        wrong = value.copy().reshape(-1)
        if value.dtype.kind in "biu":
            wrong[-1] ^= 1
        else:
            noise = rounding_noise(program, arguments)[position].max()
            wrong[-1] += type(wrong[-1])(1 + abs(float(wrong[-1])) + 40 * noise)
        with pytest.raises(AssertionError):
            check_results(
                program, arguments, [*actual[:position], wrong.reshape(value.shape), *actual[position + 1 :]]
            )


def test_what_a_scatter_adds_up_may_cancel():
    """The rounding of a sum in one place is that of the largest partial sum there, not of what is left."""

    def added(x: tw.Tile["n"], place: tw.Tile["n"], like: tw.Tile["p"]):
        return tw.scatter_add(x, {"p": place}, tw.size("p"))

    program = traced(added, float32, int64, float32)
    arguments = {
        "x": np.float32([1000.1, -1000.0, 3.0]),
        "place": np.array([0, 0, 1]),
        "like": np.zeros(2, np.float32),
    }
    right = np.float32([1000.1]).astype(np.float64)[0] - 1000
    check_results(program, arguments, [np.float32([right + 3e-5, 3.0])])
    with pytest.raises(AssertionError):
        check_results(program, arguments, [np.float32([right, 3 + 3e-5])])
    with pytest.raises(AssertionError):
        check_results(program, arguments, [np.float32([right + 0.1, 3.0])])


@SETTINGS
@given(programs(scans=True, special=True))
def test_text_round_trips(program):
    text = to_text(program)
    assert text.isascii()
    again = from_text(text)
    assert again == program
    assert to_text(again) == text
    assert all(a.node is b.node for a, b in zip(again.results, program.results, strict=True))


@SETTINGS
@given(programs(scans=True, special=True))
def test_formulas_of_anything_are_short_and_plain(program):
    text = formula(program)
    assert text.isascii()
    assert len(text) <= 400 + 60 * len(program.nodes())
    assert [line.split(" = ")[0] for line in text.splitlines()][-1]


@SETTINGS
@given(st.data())
def test_simplify_keeps_the_meaning(data):
    program = data.draw(programs(scans=True))
    simple = verify(simplify(program), "simplify")
    assert simplify(simple) == simple
    assert [(r.name, r.dtype, r.axes) for r in simple.results] == [
        (r.name, r.dtype, r.axes) for r in program.results
    ]
    arguments = draw_arguments(program, data.draw(extents(program, (3, 1, 2, 8))))
    for a, b in zip(reference(program, arguments), reference(simple, arguments), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-8, atol=1e-8)


@SETTINGS
@given(st.data())
def test_exact_rules_keep_special_values(data):
    program = data.draw(programs(scans=True, special=True))
    simple = verify(simplify(program, RuleSet(EXACT_RULES)), "exact rules")
    arguments = draw_arguments(program, data.draw(extents(program, (3, 0, 1))), special=True)
    for a, b in zip(reference(program, arguments), reference(simple, arguments), strict=True):
        np.testing.assert_array_equal(a, b)


# --- the comparison ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("actual", "expected", "dtype"),
    [
        (np.float32([1, 2.001]), [1, 2], float32),
        (np.float32([1, np.nan]), [1, 2], float32),
        (np.float32([1, 2]), [1, np.nan], float32),
        (np.float32([1, np.inf]), [1, 2], float32),
        (np.float32([1, -np.inf]), [1, np.inf], float32),
        (np.float32([1, 2]), [1, np.inf], float32),
        (np.float32([0, 1e-20]), [0, 1e-10], float32),
        (np.float64([1, 2]), [1, 2], float32),
        (np.float32([[1, 2]]), [1, 2], float32),
        (np.int32([1, 2]), np.int32([1, 3]), int32),
        (np.array([True]), np.array([False]), bool_),
        (np.float16([1.01]), [1.0], float16),
        (np.ones(1, bfloat16.numpy), [1.1], bfloat16),
        (np.float64([1 + 1e-12]), [1.0], float64),
        (np.float32([np.inf]), [1e30], float32),
    ],
)
def test_a_wrong_result_is_reported(actual, expected, dtype):
    with pytest.raises(AssertionError, match=r"result (is wrong|has the)"):
        assert_close(actual, np.asarray(expected), dtype)


@pytest.mark.parametrize(
    ("actual", "expected", "dtype"),
    [
        (np.float32([1, 2 + 2e-7]), [1, 2], float32),
        (np.float32([np.nan, np.inf, -np.inf, 0.0]), [np.nan, np.inf, -np.inf, -0.0], float32),
        (np.float32([np.inf]), [1e39], float32),
        (np.float16([np.inf]), [70000.0], float16),
        (np.int64([3]), np.int64([3]), int64),
        (np.int8([]), np.int8([]), int8),
        (np.ones(1, bfloat16.numpy), [1.003], bfloat16),
    ],
)
def test_a_right_result_passes(actual, expected, dtype):
    assert_close(actual, np.asarray(expected), dtype)


def test_a_longer_sum_may_be_further_off():
    actual, expected = np.float32([1.00001]), np.array([1.0])
    assert_close(actual, expected, float32, length=4096, magnitude=4.0)
    with pytest.raises(AssertionError, match=r"\[0\]: .*1.00001"):
        assert_close(actual, expected, float32)


@tw.op
def added(x: tw.Tile["i"]):
    return tw.sum(x, "i")


@tw.op
def multiplied(x: tw.Tile["i"]):
    return tw.prod(x, "i")


@tw.op
def slope_of_largest(x: tw.Tile["i"]):
    return tw.tan(tw.max(x, "i"))


@tw.op
def slope_of_sum(x: tw.Tile["i"]):
    return tw.tan(tw.sum(x, "i"))


@tw.op
def overflows(x: tw.Tile["i"]):
    return tw.isinf(tw.sum(x * x, "i"))


HUGE = float(np.float32(1e22))


@pytest.mark.parametrize(
    ("op", "operand", "right", "wrong"),
    [
        # results that rounding, or the order of a sum or product, explains; results that nothing explains
        (added, [3e38, 3e38, -3e38], [3e38, np.inf], []),
        (added, [3e38, 3e38, -3e38, -3e38], [0, np.inf, -np.inf, np.nan], []),
        (added, [1e38, 1e38, -1e38], [1e38], [np.inf, 1.1e38, np.nan]),
        (added, [np.inf, 3e38, 3e38], [np.inf], [np.nan, 3e38]),
        (added, [np.inf, -np.inf, 1], [np.nan], [np.inf, 0]),
        (multiplied, [1e30, 1e30, 1e-30], [1e30, np.inf], []),
        (multiplied, [1e-30, 1e-30, 1e30], [1e-30, 0], []),
        (multiplied, [1e10, 1e10, 1e10], [1e30], [np.inf, 0, 1.1e30]),
        (multiplied, [0, 1e30, 1e30], [0, np.nan], []),
        (multiplied, [0, 2, 3], [0], [np.nan, 1]),
        (multiplied, [np.inf, 0, 1], [np.nan], [0, np.inf]),
        (slope_of_largest, [HUGE, 0], [np.tan(HUGE)], [0.5, np.nan]),
        (slope_of_sum, [HUGE, 1], [0.5, -1e6], []),
        (overflows, [1e30, 0], [True, False], []),
        (overflows, [1e10, 0], [False], [True]),
        (overflows, [np.inf, 0], [True], [False]),
    ],
)
def test_what_rounding_decides_may_be_anything_and_nothing_else_may(op, operand, right, wrong):
    call = op.bind(op.arguments((np.array(operand, np.float32),), {}))
    kind = call.program.results[0].dtype.numpy
    for value in right:
        check_results(call.program, call.arrays, [np.asarray(value, kind)])
    for value in wrong:
        with pytest.raises(AssertionError, match="is wrong in 1 of 1"):
            check_results(call.program, call.arrays, [np.asarray(value, kind)])


def test_logarithms_that_are_added_may_cancel():
    """Where e^x + e^y is about 1 the error is relative to 1, and what is tiny may be 0, but nowhere else."""

    @tw.op
    def added(x: tw.Tile["n"], y: tw.Tile["n"]):
        z = tw.logaddexp(x, y)
        return z, z / z

    x, y = np.float32([-0.7, 0, 3]), np.float32([-0.69, -448, 2])
    call = added.bind(added.arguments((x, y), {}))
    right, ones = (value.astype(np.float32) for value in reference(call.program, call.arrays))
    check_results(call.program, call.arrays, [right + np.float32([1e-7, 0, 0]), ones])
    check_results(call.program, call.arrays, [right * np.float32([1, 0, 1]), np.float32([1, np.nan, 1])])
    for wrong in ([1e-4, 0, 0], [0, 1e-4, 0], [0, 0, 1e-4]):
        with pytest.raises(AssertionError, match="is wrong in 1 of 3"):
            check_results(call.program, call.arrays, [right + np.float32(wrong), ones])
    with pytest.raises(AssertionError, match="is wrong in 1 of 3"):
        check_results(call.program, call.arrays, [right, np.float32([1, 1, np.nan])])


def test_a_cast_to_a_narrower_float_of_the_same_width_rounds():
    @tw.op
    def narrowed(x: tw.Tile["i"]):
        return tw.cast(tw.cast(x, "bfloat16"), "float32")

    x = np.array([60000], np.float16)
    call = narrowed.bind(narrowed.arguments((x,), {}))
    check_results(call.program, call.arrays, [np.array([59904], call.program.results[0].dtype.numpy)])
