"""Every rule of every table, evaluated on both sides; and the machine that applies them."""

import zlib

import numpy as np
import pytest

from tilewright.dsl import language as tw
from tilewright.dsl import scalars
from tilewright.dsl.axes import union
from tilewright.dsl.dtypes import bool_, float32, float64, int8, int64
from tilewright.dsl.expression import Expr, constant
from tilewright.dsl.program import Const, Map, Node, Param, Program, Read, Reduce, Result, topological
from tilewright.dsl.reference import reference
from tilewright.dsl.rules import (
    AnyRule,
    Index,
    Match,
    Rule,
    RuleSet,
    Size,
    Var,
    build,
    number,
    real,
    rewrite,
    root_of,
)
from tilewright.dsl.simplify import EXACT_RULES, REAL_RULES, REASSOCIATIONS, simplify
from tilewright.dsl.verify import verify
from tilewright.errors import InternalError

EXTENTS = {"a": 3, "b": 2, "c": 4, "f": 2, "g": 1}
ORDINARY = (0.0, -0.0, 1.0, -1.0, 2.0, 0.5, -3.25, 7.0)
SPECIAL = (*ORDINARY, np.nan, np.inf, -np.inf)
HUGE = (1e300, -1e-300, 1e18)
POSITIVE = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)


class Instance:
    """A random instance of a pattern: a node over operands, and values for those."""

    def __init__(self, pattern: Node, seed: int, floats: tuple[float, ...]):
        self.random = np.random.default_rng(seed)
        self.floats = floats
        self.arrays: dict[str, np.ndarray] = {}
        self.params: list[Param] = []
        parts = topological([pattern])
        self.extents = dict(EXTENTS)
        if self.random.random() < 0.15:
            self.extents["a"] = 0
        single = {n.axis for n in parts if isinstance(n, (Index, Size))}
        single |= {axis for n in parts if isinstance(n, Reduce) and len(n.over) > 1 for axis in n.over}
        several = ("a", "b") if self.random.random() < 0.5 else ("a",)
        self.axes = {"i": ("a",) if "i" in single else several, "j": ("c",)}
        dtypes = {}
        nodes = {}
        for variable in parts:
            if isinstance(variable, Var):
                if variable.types not in dtypes:
                    dtypes[variable.types] = variable.types[self.random.integers(len(variable.types))]
                nodes[variable] = self._node(variable, dtypes[variable.types])
        used = dict(self.axes)
        self.node = build(pattern, Match(nodes, used), dtypes.get(next(iter(dtypes), None), pattern.dtype))

    def _node(self, variable: Var, dtype) -> Node:
        if variable.constant or (not variable.names and self.random.random() < 0.2):
            return Const(self._values(dtype, ()).item(), dtype)
        if dtype == int64 and variable.names and self.random.random() < 0.2:
            return Index(self.axes[variable.names[0]][0])
        if dtype != bool_ and self.random.random() < 0.25:
            return Map("add", (self._read(variable, dtype), self._read(variable, dtype)))
        return self._read(variable, dtype)

    def _read(self, variable: Var, dtype) -> Node:
        axes = [a for name in variable.names for a in self.axes[name] if self.random.random() < 0.9]
        axes += [a for a in ("f", "g") if self.random.random() < 0.3]
        name = f"p{len(self.params)}"
        self.params.append(Param(name, tuple(axes), dtype))
        self.arrays[name] = self._values(dtype, tuple(self.extents[a] for a in axes))
        return Read(name, tuple(axes), dtype)

    def _values(self, dtype, shape) -> np.ndarray:
        if dtype.is_float:
            return self.random.choice(self.floats, shape)
        if dtype.is_bool:
            return self.random.integers(0, 2, shape).astype(bool)
        low, high = dtype.range
        values = self.random.integers(low, high, shape, np.int64, endpoint=True)
        small = self.random.integers(-3 if low else 0, 4, shape)
        edges = self.random.choice([low, high], shape)
        return np.choose(self.random.integers(0, 4, shape), [values, small, small, edges]).astype(dtype.numpy)

    def evaluate(self, node: Node) -> np.ndarray:
        everything = Param("extents", tuple(self.extents), bool_)
        axes = union(self.node.axes, node.axes)
        program = Program("rule", (*self.params, everything), (Result("y", node, axes),))
        verify(program)
        arrays = {**self.arrays, "extents": np.zeros(tuple(self.extents.values()), bool)}
        return reference(program, arrays)[0]


def assert_same(before: np.ndarray, after: np.ndarray) -> None:
    """Equal to the last bit, any NaN being any other."""
    assert before.dtype == after.dtype
    np.testing.assert_array_equal(before, after)
    if before.dtype.kind == "f":
        numbers = ~np.isnan(before)
        np.testing.assert_array_equal(np.signbit(before[numbers]), np.signbit(after[numbers]))


def _applied(rule: AnyRule, node: Node) -> Node | None:
    return rule(node) if node.args and root_of(node) in rule.roots else None


def fuzz(rule: AnyRule, floats, compare, trials: int) -> None:
    patterns = [rule.left.node] if isinstance(rule, Rule) else [e.node for e in rule.examples()]
    trials = max(3, trials // len(patterns))
    for pattern in patterns:
        fired = 0
        for trial in range(trials):
            instance = Instance(pattern, zlib.crc32(f"{rule.name} {trial}".encode()), floats)
            rewritten = _applied(rule, instance.node)
            if rewritten is None:
                continue
            fired += 1
            assert rewritten.dtype == instance.node.dtype
            compare(instance.evaluate(instance.node), instance.evaluate(rewritten))
        assert fired, f"{rule.name} was never applied"


@pytest.mark.parametrize("rule", EXACT_RULES, ids=lambda rule: rule.name)
def test_exact_rule(rule):
    fuzz(rule, (*SPECIAL, *HUGE), assert_same, trials=40)


@pytest.mark.parametrize("rule", REASSOCIATIONS, ids=lambda rule: rule.name)
def test_reassociation(rule):
    floats = ORDINARY[2:] if rule.name == "constant factors leave a sum" else SPECIAL
    fuzz(rule, floats, lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-13, atol=1e-13), trials=40)


@pytest.mark.parametrize("rule", REAL_RULES, ids=lambda rule: rule.name)
def test_real_rule(rule):
    fuzz(rule, POSITIVE, lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-12), trials=20)


@pytest.mark.parametrize(
    "wrong",
    [
        Rule("x + 0", real("x") + 0, real("x")),
        Rule("x * 0", real("x") * 0, 0),
        Rule("x - x", real("x") - real("x"), 0),
        Rule("max of min", tw.max(tw.min(number("x", "i j"), "i"), "j"), tw.max(number("x", "i j"), "i j")),
        Rule("not less", ~(real("x") < real("y")), real("x") >= real("y")),
    ],
    ids=lambda rule: rule.name,
)
def test_the_fuzz_test_finds_rules_that_are_not_exact(wrong):
    with pytest.raises(AssertionError):
        fuzz(wrong, (*SPECIAL, *HUGE), assert_same, trials=40)


def test_names_of_rules_are_unique():
    names = [rule.name for rule in (*EXACT_RULES, *REASSOCIATIONS)]
    assert sorted(set(names)) == sorted(names + ["x + 0"] * 0)


X = Expr(Read("x", ("n", "d"), float32))
W = Expr(Read("w", ("d",), float32))
ONE_ROW = Expr(Read("r", ("n",), float32))


def simplified(expression: Expr) -> Node:
    params = (
        Param("x", ("n", "d"), float32),
        Param("w", ("d",), float32),
        Param("r", ("n",), float32),
        Param("k", ("n", "d"), int64),
    )
    program = Program("f", params, (Result("y", expression.node, expression.axes),))
    result = simplify(program)
    verify(result, "simplify")
    assert simplify(result) == result
    return result.results[0].node


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (tw.sum(X * ONE_ROW * W, "d"), ONE_ROW * tw.sum(X * W, "d")),
        (tw.sum(W * (ONE_ROW * X), "d"), ONE_ROW * tw.sum(W * X, "d")),
        (tw.sum(X / ONE_ROW * W, "d"), tw.sum(X * W, "d") / ONE_ROW),
        (tw.sum(X * W, "d"), tw.sum(X * W, "d")),
        (tw.sum(tw.sum(X, "d"), "n"), tw.sum(X, "n d")),
        (tw.sum(X / ONE_ROW * (X / ONE_ROW), "d"), tw.sum(X / ONE_ROW * (X / ONE_ROW), "d")),
        (X * 1 + 0 - -W, X + W),
        (tw.where(tw.index("d") < tw.size("d"), X, W), X),
        (X * 2 * 4, X * 8),
        (scalars.power(X, 2.0), X * X),
        (X / tw.sqrt(ONE_ROW), X * tw.rsqrt(ONE_ROW)),
    ],
    ids=str,
)
def test_simplify_gives(before, after):
    assert simplified(before) is after.node


def test_an_axis_that_a_rule_removes_is_still_counted():
    k = Expr(Read("k", ("n", "d"), int64))
    instance = (k - k + 3, tw.sum(k - k + 3, "d"))
    arrays = {"x": np.zeros((2, 5)), "w": np.zeros(5), "r": np.zeros(2), "k": np.arange(10).reshape(2, 5)}
    node = simplified(instance[1])
    params = (Param("x", ("n", "d"), float32), Param("k", ("n", "d"), int64))
    for root in (instance[1].node, node):
        (value,) = reference(Program("f", params, (Result("y", root, ("n",)),)), arrays)
        np.testing.assert_array_equal(value, [15, 15])


@pytest.mark.parametrize("combine", ["sum", "prod", "max", "min"])
@pytest.mark.parametrize("dtype", [float64, int64, int8], ids=str)
@pytest.mark.parametrize("extent", [0, 1, 5])
def test_a_reduction_over_an_axis_that_its_operand_has_lost(combine, dtype, extent):
    k = Read("k", ("n", "d"), dtype)
    lost = Read("q", ("n",), dtype)
    node = Reduce(combine, ("d",), k).with_args((lost,))
    params = (Param("k", ("n", "d"), dtype), Param("q", ("n",), dtype))
    q = np.array([2, -3, 0], dtype.numpy)
    arrays = {"k": np.zeros((3, extent), dtype.numpy), "q": q}
    (found,) = reference(verify(Program("f", params, (Result("y", node, ("n",)),))), arrays)
    direct = Reduce(combine, ("d",), Map("add", (k, lost)))
    (expected,) = reference(Program("f", params, (Result("y", direct, ("n",)),)), arrays)
    np.testing.assert_array_equal(found, expected)


def test_a_variable_may_not_depend_on_an_axis_that_it_does_not_declare():
    rule = Rule("pull", tw.sum(real("x", "i") * real("c"), "i"), real("c") * tw.sum(real("x", "i"), "i"))
    assert rule(tw.sum(X * ONE_ROW, "d").node) is (ONE_ROW * tw.sum(X, "d")).node
    assert rule(tw.sum(X * W, "d").node) is None


def test_a_rule_that_captures_an_axis_cannot_be_written():
    with pytest.raises(InternalError, match="on the right"):
        Rule("wrong", tw.sum(real("x", "i"), "i"), real("x", "i"))


def test_rules_in_a_circle_are_an_internal_error():
    a, b = real("a"), real("b")
    table = RuleSet([Rule("there", a + b, b + a)])
    with pytest.raises(InternalError, match="circles at 'there'"):
        rewrite([(X + W).node], table)


def test_deep_graphs_are_rewritten_without_recursion_and_in_linear_time():
    node = X.node
    for step in range(20_000):
        node = Map("add", (Map("mul", (node, Const(1, float32))), Const(step % 7 + 1, float32)))
    (result,) = rewrite([node], RuleSet(EXACT_RULES))
    assert len(topological([result])) == 20_000 + 1 + 7


def test_constants_are_folded_in_their_dtype():
    assert simplified(constant(120, int8) + constant(10, int8) + X * 0 != 0).dtype == bool_
    folded = rewrite([Map("add", (Const(120, int8), Const(10, int8)))], RuleSet(EXACT_RULES))[0]
    assert isinstance(folded, Const) and folded.value == -126
