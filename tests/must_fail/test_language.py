"""Ops that must fail: one for every message of the language. Each names the op, the line and the remedy."""

import inspect
import math
import re
from pathlib import Path

import numpy as np
import pytest

import tilewright as tw
from tilewright.errors import ArgumentError, AxisError, DTypeError, LanguageError, ShapeError

X = np.ones((2, 3), np.float32)
K = np.ones((2, 3), np.int64)
B = np.ones((2, 3), bool)
SMALL = np.ones((2, 3), np.int8)
FILE = Path(__file__).name


def location(function) -> str:
    """`file:line` of the line that is marked `# here` (the first line of the function if none is)."""
    lines, first = inspect.getsourcelines(function)
    marked = [first + offset for offset, line in enumerate(lines) if "# here" in line]
    return f"{FILE}:{marked[0] if marked else first}"


FAILING = []


def fails(error, message, *arrays):
    """Registers an op with the error that it must raise for `arrays` and what the message must say."""

    def register(function):
        FAILING.append(pytest.param(function, arrays or (X,), error, message, id=function.__name__))
        return function

    return register


@pytest.mark.parametrize(("function", "arrays", "error", "message"), FAILING)
def test_the_message_names_the_op_the_line_and_the_remedy(function, arrays, error, message):
    with pytest.raises(error) as caught:
        tw.op(function).reference(*arrays)
    text = str(caught.value)
    assert isinstance(caught.value, LanguageError | DTypeError)
    assert text.startswith(f"{location(function)}: in op {function.__name__!r}: ")
    assert message in text
    assert text.count(FILE) == 1


# --- axes -------------------------------------------------------------------------------------------------


@fails(AxisError, "sum over 'cols', but the expression has the axes (n d)")
def wrong_axis(x: tw.Tile["n d"]):
    y = x + 1
    return tw.sum(y, "cols")  # here


@fails(AxisError, "it was summed away before")
def axis_summed_away(x: tw.Tile["n d"]):
    total = tw.sum(x, "d")
    return tw.max(total, "d")  # here


@fails(AxisError, "max over 'd' twice; name each axis once")
def reduced_twice(x: tw.Tile["n d"]):
    return tw.max(x, "d d")  # here


@fails(AxisError, "axes have no numbers")
def axis_by_number(x: tw.Tile["n d"]):
    return tw.sum(x, 1)  # here


@fails(AxisError, "sum over no axis")
def no_axis(x: tw.Tile["n d"]):
    return tw.sum(x, "")  # here


@fails(AxisError, "'1d' in '1d' is not an axis name")
def no_name(x: tw.Tile["n d"]):
    return tw.sum(x, "1d")  # here


@fails(AxisError, "tw.index('rows') names an axis that no operand has; the axes are d, n")
def unknown_axis_in_index(x: tw.Tile["n d"]):
    position = tw.index("rows")  # here
    return tw.where(position > 0, x, 0)


@fails(AxisError, "tw.size('rows') names an axis that no operand has; the axes are d, n")
def unknown_axis_in_size(x: tw.Tile["n d"]):
    return x / tw.size("rows")  # here


@fails(AxisError, "tw.index takes one axis name, as in tw.index('i'); got 'n d'")
def index_of_two(x: tw.Tile["n d"]):
    return x + tw.index("n d")  # here


@fails(AxisError, "tw.size takes axis names, as in tw.size('i'); got 0")
def size_by_number(x: tw.Tile["n d"]):
    return x + tw.size(0)  # here


@fails(AxisError, "tw.argmax takes one axis name, as in tw.argmax(x, 'i'); got None")
def argmax_of_all(x: tw.Tile["n d"]):
    return tw.argmax(x)  # here


@fails(AxisError, "x['j'] gives 1 names to a tile with the axes (n d)")
def too_few_names(x: tw.Tile["n d"]):
    return x["j"]  # here


@fails(AxisError, "x['i j k'] gives 3 names to a tile with the axes (n d)")
def too_many_names(x: tw.Tile["n d"]):
    return x["i j k"]  # here


@fails(AxisError, "'...' stands once in x['... i ...']")
def two_ellipses(x: tw.Tile["n d"]):
    return x["... i ..."]  # here


@fails(LanguageError, "takes the names of axes behind it, not axis=: write tw.sum(x, 'd')")
def axis_by_keyword(x: tw.Tile["n d"]):
    return tw.sum(x, axis="d")  # here


@fails(LanguageError, "takes the names of axes behind it, not dim=: write tw.mean(x, 'i')")
def axis_by_keyword_and_number(x: tw.Tile["n d"]):
    return tw.mean(x, dim=1)  # here


@fails(LanguageError, "tw.logsumexp on a tile has no keepdims=")
def dimensions_kept(x: tw.Tile["n d"]):
    return x - tw.logsumexp(x, "d", keepdims=True)  # here


@fails(LanguageError, "tw.var on a tile has no argument 'ddof'")
def unknown_keyword(x: tw.Tile["n d"]):
    return tw.var(x, "d", ddof=1)  # here


@fails(LanguageError, "tw.argmax on a tile has no argument 'where'")
def unknown_keyword_of_a_position(x: tw.Tile["n d"]):
    return tw.argmax(x, "d", where=True)  # here


@fails(LanguageError, "takes the names of axes behind it, not dim=: write tw.cumsum(x, 'i')")
def scan_by_keyword(x: tw.Tile["n d"]):
    return tw.cumsum(x, dim=1)  # here


@fails(LanguageError, "a tile is not indexed by position")
def indexed(x: tw.Tile["n d"]):
    return x[0]  # here


@fails(AxisError, "the result has the axis 'd', which its annotation -> Tile[\"n\"] lacks; reduce it")
def result_axis_missing(x: tw.Tile["n d"]) -> tw.Tile["n"]:
    return x


@fails(AxisError, "the annotation -> Tile[\"n d e\"] has the axis 'e', which no operand has")
def result_axis_unknown(x: tw.Tile["n d"]) -> tw.Tile["n d e"]:
    return x


@tw.op
def normalised(x: tw.Tile["n d"], scale: tw.Tile["d"]):
    return x / tw.sum(x, "d") * scale


@fails(AxisError, 'normalised declares scale as Tile["d"] but is given a tile with the axes (n d)')
def wrong_rank_for_an_inner_op(x: tw.Tile["n d"]):
    return normalised(x, x)  # here


# --- values that are not known ----------------------------------------------------------------------------


@fails(LanguageError, "write tw.where(condition, a, b) to choose")
def branch(x: tw.Tile["n d"]):
    if x > 0:  # here
        return x
    return -x


@fails(LanguageError, "tw.maximum for Python's max")
def python_max(x: tw.Tile["n d"]):
    return max(x, 0)  # here


@fails(LanguageError, "chained comparisons")
def chained(x: tw.Tile["n d"]):
    return 0 < x < 1  # here


@fails(LanguageError, "use tw functions (tw.exp, not math.exp)")
def math_function(x: tw.Tile["n d"]):
    return math.exp(x)  # here


@fails(LanguageError, "use tw functions")
def to_int(x: tw.Tile["n d"]):
    return x * int(x)  # here


@fails(LanguageError, "name its axis and reduce it, as in tw.sum(x, 'i')")
def loop(x: tw.Tile["n d"]):
    total = 0
    for row in x:  # here
        total = total + row
    return total


@fails(LanguageError, "a tile cannot be looped over")
def membership(x: tw.Tile["n d"]):
    return 1 in x  # here


@fails(LanguageError, "the extent of an axis is tw.size('i'), not len(x)")
def length(x: tw.Tile["n d"]):
    return x / len(x)  # here


@fails(LanguageError, "write y = tw.where(condition, new, x)")
def assignment(x: tw.Tile["n d"]):
    x["n d"] = 0  # here
    return x


@fails(LanguageError, "there is no `@`: a contraction is a product and a sum, as in tw.sum(a * b, 'k')")
def matrix_product(x: tw.Tile["n d"]):
    return x @ x["d n"]  # here


# --- NumPy and methods ------------------------------------------------------------------------------------


@fails(LanguageError, "np.exp works on arrays, not on the tiles of an op; write tw.exp")
def numpy_function(x: tw.Tile["n d"]):
    return np.exp(x)  # here


@fails(LanguageError, "np.sum works on arrays, not on the tiles of an op; write tw.sum")
def numpy_sum(x: tw.Tile["n d"]):
    return np.sum(x, axis=1)  # here


@fails(LanguageError, "np.arctan works on arrays, not on the tiles of an op; write tw.atan")
def numpy_other_name(x: tw.Tile["n d"]):
    return np.arctan(x)  # here


@fails(LanguageError, "a tile is no NumPy array")
def numpy_array(x: tw.Tile["n d"]):
    return np.asarray(x)  # here


@fails(LanguageError, "pass it as a Tile parameter")
def array_in_the_formula(x: tw.Tile["n d"]):
    return np.ones(3) * x  # here


@fails(LanguageError, "pass arrays as Tile parameters")
def array_on_the_right(x: tw.Tile["n d"]):
    return x * np.ones(3)  # here


@fails(LanguageError, "a tile has no methods; write tw.sum(x)")
def method(x: tw.Tile["n d"]):
    return x.sum("d")  # here


@fails(LanguageError, "a tile has no shape; the extent of an axis is tw.size('i')")
def shape(x: tw.Tile["n d"]):
    return x / x.shape[0]  # here


@fails(LanguageError, "a tile has no attribute 'device'")
def attribute(x: tw.Tile["n d"]):
    return x.device  # here


@fails(LanguageError, "str 'a' cannot be part of an op's formula")
def text(x: tw.Tile["n d"]):
    return x + "a"  # here


@fails(LanguageError, "test it with `if bias is not None:`")
def absent_operand(x: tw.Tile["n d"], bias: tw.Tile["d"] = None):
    return x + bias  # here


# --- dtypes -----------------------------------------------------------------------------------------------


@fails(DTypeError, "and works on integers and bool, got float32; compare first, as in (x > 0) & (y > 0)")
def bits_of_a_float(x: tw.Tile["n d"]):
    return x & x  # here


@fails(DTypeError, "shl works on integers, got bool", B)
def shifted_bool(x: tw.Tile["n d"]):
    return x << x  # here


@fails(DTypeError, "where(condition, a, b) needs a bool condition, got float32; write x != 0")
def condition(x: tw.Tile["n d"]):
    return tw.where(x, 1, 0)  # here


@fails(DTypeError, "isnan needs floating-point operands, got int64", K)
def nan_of_an_integer(x: tw.Tile["n d"]):
    return tw.isnan(x)  # here


@fails(
    DTypeError,
    "300 does not fit int8, the dtype of the other operand of add; write tw.cast(x, tw.int64)",
    SMALL,
)
def constant_that_does_not_fit(x: tw.Tile["n d"]):
    return x + 300  # here


@fails(DTypeError, "does not fit int64", K)
def constant_beyond_any_integer(x: tw.Tile["n d"]):
    return x + 2**70  # here


@fails(DTypeError, "'complex64' is not a dtype of the language; use one of float64")
def unknown_dtype(x: tw.Tile["n d"]):
    return tw.cast(x, "complex64")  # here


# --- scans ------------------------------------------------------------------------------------------------


@fails(AxisError, "cumsum over 't', but the expression has the axes (n d)")
def scan_along_an_axis_that_is_not_there(x: tw.Tile["n d"]):
    return tw.cumsum(x, "t")  # here


@fails(AxisError, "tw.cumsum takes one axis name, as in tw.cumsum(x, 'i'); got 'n d'")
def scan_along_two_axes(x: tw.Tile["n d"]):
    return tw.cumsum(x, "n d")  # here


@fails(AxisError, "tw.cummax takes one axis name, as in tw.cummax(x, 'i'); got -1")
def scan_by_number(x: tw.Tile["n d"]):
    return tw.cummax(x, -1)  # here


@fails(AxisError, "tw.scan along 't', but its values have the axes (n d); name one of these")
def values_without_the_axis(x: tw.Tile["n d"]):
    return tw.scan(lambda l, r: l + r, x, "t")  # here


@fails(LanguageError, "the combine of tw.scan returns 1 value but the scan carries 2")
def too_few_values(x: tw.Tile["n d"]):
    return tw.scan(lambda l, r: l[0] + r[0], (x, x), "d")[0]  # here


@fails(LanguageError, "the combine of tw.scan returns 2 values but the scan carries 1")
def too_many_values(x: tw.Tile["n d"]):
    return tw.scan(lambda l, r: (l + r, l * r), x, "d")  # here


@fails(LanguageError, "tw.scan takes the combine first, a function of what came before and what comes next")
def values_first(x: tw.Tile["n d"]):
    return tw.scan(x, lambda l, r: l + r, "d")  # here


@fails(LanguageError, "tw.scan needs a value to carry")
def nothing_to_carry(x: tw.Tile["n d"]):
    return x + tw.scan(lambda l, r: l, (), "d")[0]  # here


@fails(
    LanguageError, "the combine of tw.scan uses the operand 'x', which is in neither of its sides; pass it"
)
def outside_tile(x: tw.Tile["n d"]):
    return tw.scan(lambda l, r: l * r * x, x, "d")  # here


@fails(LanguageError, "the combine of tw.scan uses tw.index('d'), which is in neither of its sides")
def outside_position(x: tw.Tile["n d"]):
    return tw.scan(lambda l, r: l + r * tw.index("d"), x, "d")  # here


@fails(LanguageError, "the combine of tw.scan uses a reduction or another scan")
def outside_reduction(x: tw.Tile["n d"]):
    return tw.scan(lambda l, r: l + r + tw.sum(x, "n d"), x, "d")  # here


@fails(LanguageError, "the combine of tw.scan is not associative: value 0 of combine(combine(a, b), c) is")
def a_recurrence_as_it_is_written(x: tw.Tile["n d"]):
    return tw.scan(lambda h, now: 0.9 * h + now, x, "d")  # here


@fails(
    DTypeError, "value 1 of tw.scan begins as int64, but the combine makes float32 of it; begin with tw.cast"
)
def a_whole_number_that_becomes_another(x: tw.Tile["n d"]):
    return tw.scan(lambda l, r: (l[0] + r[0], l[1] + r[1] + r[0]), (x, 0), "d")[1]  # here


@fails(LanguageError, "tw.scan needs 2 values as initial, the state before the first position, got 1.0")
def initial_of_one_value(x: tw.Tile["n d"]):
    return tw.scan(lambda l, r: (l[0] + r[0], l[1] * r[1]), (x, x), "d", initial=1.0)[0]  # here


@fails(LanguageError, "tw.scan needs 1 value as initial, the state before the first position, got None")
def exclusive_from_nothing(x: tw.Tile["n d"]):
    return tw.scan(lambda l, r: l + r, x, "d", exclusive=True)  # here


@fails(LanguageError, "an exclusive tw.scan begins with numbers; begin with those that change nothing")
def exclusive_from_a_tile(x: tw.Tile["n d"]):
    return tw.scan(lambda l, r: l + r, x, "d", exclusive=True, initial=tw.sum(x, "d"))  # here


@fails(DTypeError, "value 0 of tw.scan is int64, but initial gives it float32 (0.5); give it int64", K)
def half_a_whole_number(x: tw.Tile["n d"]):
    return tw.scan(lambda l, r: l + r, x, "d", initial=0.5)  # here


def test_a_scan_of_arrays_needs_an_op():
    with pytest.raises(LanguageError, match=re.escape("wrap the scan in a function with @tw.op")):
        tw.scan(lambda l, r: l + r, X, 0)  # type: ignore[arg-type]


# --- results and calls ------------------------------------------------------------------------------------


@fails(LanguageError, "the op 'nothing' returns nothing; end its body with `return` and the formula")
def nothing(x: tw.Tile["n d"]):
    tw.exp(x)


@fails(LanguageError, "the op 'two_for_one' returns 2 results but is annotated with 1")
def two_for_one(x: tw.Tile["n d"]) -> tw.Tile["n d"]:
    return x, x


@fails(LanguageError, "exp takes 1 operands, got 2")
def too_many_operands(x: tw.Tile["n d"]):
    return tw.exp(x, x)  # here


@fails(LanguageError, "x.at(…) takes each position by the axis that it is along, as in x.at(d=0)")
def unnamed_position(x: tw.Tile["n d"]):
    return x.at(0)  # here


@fails(LanguageError, "it cannot be printed as '.3f'; return it and print what the call gives")
def formatted(x: tw.Tile["n d"]):
    print(f"{x:.3f}")  # here
    return x


@fails(LanguageError, "tiles are rounded to whole numbers; write tw.round(x * 10**2) / 10**2 for 2 digits")
def rounded_to_digits(x: tw.Tile["n d"]):
    return round(x, 2)  # here


@fails(DTypeError, "a whole number of 401 digits is beyond float32; write tw.inf")
def beyond_floats(x: tw.Tile["n d"]):
    return x * 10**400  # here


@fails(LanguageError, "tw.quantile takes a part of the values, from 0 to 1, got 1.5")
def quantile_beyond_the_values(x: tw.Tile["n d"]):
    return tw.quantile(x, 1.5, "d")  # here


@fails(LanguageError, "tw.topk takes how many values to keep, a whole number, got None")
def topk_of_no_number(x: tw.Tile["n d"]):
    return tw.topk(x)  # here


@fails(
    LanguageError, "the combine of tw.scan is called with two tuples of 1 value: unsupported operand type(s)"
)
def combine_of_tuples(x: tw.Tile["n d"]):
    return tw.scan(lambda l, r: l - r, (x,), "d")  # here


KEPT = []


@fails(LanguageError, "belongs to another trace of an op: it was kept when that op ran; pass it to")
def tile_of_another_op(x: tw.Tile["n d"]):
    KEPT.append(x)
    tw.op(keeps).reference(X)
    return x + KEPT[-1]  # here


def keeps(x: tw.Tile["n d"]):
    KEPT.append(x)
    return x


def test_an_op_that_calls_itself_without_end():
    @tw.op
    def endless(x: tw.Tile["n d"]):
        return endless(x) + 1

    with pytest.raises(LanguageError, match="an op that calls itself ends by a constant"):
        endless.reference(X)


def test_torch_functions_say_what_to_write():
    torch = pytest.importorskip("torch")

    @tw.op
    def by_torch(x: tw.Tile["n d"]):
        return torch.exp(x)

    with pytest.raises(LanguageError, match=r"torch\.exp works on torch tensors.*write tw\.exp"):
        by_torch.reference(X)


def test_errors_of_other_kinds_pass_through():
    @tw.op
    def mistake(x: tw.Tile["n d"]):
        return x + undefined_name

    with pytest.raises(NameError, match="undefined_name"):
        mistake.reference(X)


# --- definitions ------------------------------------------------------------------------------------------


def missing_annotation(x):
    return x


def constant_not_keyword_only(x: tw.Tile["n d"], eps: float = 1e-6):
    return x + eps


def default_value(x: tw.Tile["n d"] = 1):
    return x


def changeable(x: tw.Tile["n d"], *, sizes=[1, 2]):  # noqa: B006
    return x * sizes[0]


def axes_alone(x: "n d"):  # pyright: ignore
    return x


def star(*xs: tw.Tile["n d"]):
    return xs


def wrong_result_annotation(x: tw.Tile["n d"]) -> float:
    return x


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (missing_annotation, "operand 'x' needs its axes, as in x: tw.Tile"),
        (constant_not_keyword_only, "constants are keyword-only: put them behind a `*`"),
        (default_value, "operand 'x' may only have the default None"),
        (changeable, "'sizes' is a compile-time constant and cannot be a list, which may change"),
        (axes_alone, "the annotation 'n d' is no Python expression; axes are written as in x: tw.Tile"),
        (star, "*xs is not possible; name every operand and constant"),
        (wrong_result_annotation, "the result is annotated -> tw.Tile"),
    ],
)
def test_a_wrong_signature_fails_when_it_is_defined(function, message):
    with pytest.raises(LanguageError, match=re.escape(message)) as caught:
        tw.op(function)
    assert str(caught.value).startswith(f"{location(function)}: op {function.__name__!r}: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n n", "axis 'n' stands twice in Tile['n n']; give the second one its own name"),
        ("d ...", "'...' comes first in a tile's axes"),
        ("n-1", "'n-1' in 'n-1' is not an axis name"),
        (3, "Tile[...] takes the axes as one string"),
    ],
)
def test_a_wrong_tile_annotation_fails_at_once(text, message):
    with pytest.raises(AxisError, match=re.escape(message)):
        tw.Tile[text]


def test_extents_that_disagree():
    @tw.op
    def add(x: tw.Tile["n d"], w: tw.Tile["d"]):
        return x + w

    with pytest.raises(ShapeError, match=r"'?add'?.*'d' is 3 in x .*but 4 in w"):
        add.reference(X, np.ones(4, np.float32))


def test_an_inner_op_that_is_given_too_much():
    @tw.op
    def outer(x: tw.Tile["n d"]):
        return normalised(x, x, x)

    with pytest.raises(ArgumentError, match="normalised"):
        outer.reference(X)
