"""How reductions are carried through a loop.

    state = start();  for each value: state = step(state, value);  state = join(state, another loop's)
    after the loop: finish(state), one result a lane, or across(state), one of all lanes

The state of a sum is the sum so far. That of an extremum of floats, where x86 has no instruction in which NaN
wins and zeros are ordered (it takes six), are three extrema of their bits as integers, of one each:

    high = max(bits), signed      the greatest of those that are not negative; +NaN is greater still
    low  = min(bits), signed      the greatest of the negative ones; if there are none, the least of all
    far  = max(bits), unsigned    the least of the negative ones; -NaN is beyond it

    max = high if high ≥ 0 else low      min = far if far is negative else low      NaN if high or far is one

Integers know -0 from +0 and have one order, so results do not depend on that of the values.
"""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.compiler.targets.cpu.builder import Builder, Type, Value, float_bits
from tilewright.compiler.targets.cpu.scope import Scope
from tilewright.compiler.targets.cpu.spelling import COMBINE_STEPS, value_type
from tilewright.compiler.targets.cpu.toolchain import CpuTarget
from tilewright.dsl.program import Reduce, combine_identity

State = list[Value]


class Fold:
    """A reduction whose state is its value so far."""

    size = 1

    def __init__(self, b: Builder, reduction: Reduce, lanes: int):
        self.b = b
        self.reduction = reduction
        self.step_name = COMBINE_STEPS[reduction.combine]
        self.signed = reduction.dtype.kind == "int"
        self.type = value_type(reduction.dtype, lanes)

    @property
    def identity(self) -> Value:
        """What changes no result."""
        return self.b.constant(combine_identity(self.reduction.combine, self.reduction.dtype), self.type)

    def start(self) -> State:
        return [self.identity]

    def step(self, state: State, value: Value) -> State:
        return [self.b.combine(self.step_name, state[0], value, signed=self.signed)]

    def join(self, first: State, second: State) -> State:
        return self.step(first, second[0])

    def finish(self, state: State) -> Value:
        return state[0]

    def across(self, state: State) -> Value:
        return self.b.reduce(self.step_name, self.finish(state), signed=self.signed)

    def each_across(self, states: Sequence[State]) -> Value:
        """What `across` gives for as many states as they have lanes, one a lane: halves are joined as there.

        Two states make one, the lower halves of both beside the upper ones; then four make one, in quarters.
        """
        lanes = len(states)
        half = lanes // 2
        while len(states) > 1:
            low = [lane for lane in range(2 * lanes) if not lane & half]
            high = [lane + half for lane in low]
            states = [
                self.join(self._shuffled(a, b, low), self._shuffled(a, b, high))
                for a, b in zip(states[::2], states[1::2], strict=True)
            ]
            half //= 2
        return self.finish(states[0])

    def _shuffled(self, a: State, b: State, lanes: Sequence[int]) -> State:
        return [self.b.shuffle(one, other, lanes) for one, other in zip(a, b, strict=True)]


class ExtremumOfBits(Fold):
    """The largest or smallest float by its bits as an integer."""

    size = 3

    @property
    def bits(self) -> Type:
        return self.type.integer

    def start(self) -> State:
        return [self.b.bitcast(self.identity, self.bits.kind)] * self.size

    def step(self, state: State, value: Value) -> State:
        return self.join(state, [self.b.bitcast(value, self.bits.kind)] * self.size)

    def join(self, first: State, second: State) -> State:
        b = self.b
        high, low, far = zip(first, second, strict=True)
        return [b.maximum(*high), b.minimum(*low), b.maximum(*far, signed=False)]

    def finish(self, state: State) -> Value:
        b = self.b
        high, low, far = state
        infinity, minus_infinity = (float_bits(x, self.type.kind) for x in (float("inf"), float("-inf")))
        if self.step_name == "max":
            number = b.select(b.cmp("ge", high, 0), high, low)
            nan = b.cmp("gt", far, b.bits(minus_infinity, self.bits), signed=False)
            return b.bitcast(b.select(nan, far, number), self.type.kind)
        number = b.select(b.cmp("lt", far, 0), far, low)
        nan = b.cmp("gt", high, b.bits(infinity, self.bits))
        return b.bitcast(b.select(nan, high, number), self.type.kind)

    def across(self, state: State) -> Value:
        """By signed integers in the order of the floats, NaN beyond its end."""
        b = self.b
        value = self.finish(state)
        if not value.lanes:
            return value
        greatest = (1 << self.bits.bits - 1) - 1
        beyond = b.constant(greatest if self.step_name == "max" else ~greatest, self.bits)
        place = b.select(b.is_nan(value), beyond, self._as_ordered(b.bitcast(value, self.bits.kind)))
        return b.bitcast(self._as_ordered(b.reduce(self.step_name, place)), self.type.kind)

    def _as_ordered(self, x: Value) -> Value:
        """Bits to places in the order of the floats, and back: what is negative has the rest flipped."""
        greatest = (1 << self.bits.bits - 1) - 1
        return self.b.xor(x, self.b.and_(self.b.shr(x, self.bits.bits - 1, signed=True), greatest))


def fold_of(b: Builder, reduction: Reduce, lanes: int) -> Fold:
    extremum = reduction.combine in ("max", "min") and reduction.dtype.is_float
    if extremum and lanes and _orders_integers(b.target, value_type(reduction.dtype)):
        return ExtremumOfBits(b, reduction, lanes)
    return Fold(b, reduction, lanes)


def _orders_integers(target: CpuTarget, type: Type) -> bool:
    """Whether extrema of integers are cheaper than those of floats: not on Arm, which has both."""
    return target.is_x86 and (type.bits <= 32 or target.has_avx512)


class Totals:
    """The reductions of one loop; their states lie in one list, as a loop carries them."""

    def __init__(self, b: Builder, reductions: Sequence[Reduce], lanes: int):
        self.b = b
        self.lanes = lanes
        self.folds = [fold_of(b, reduction, lanes) for reduction in reductions]
        self.size = sum(fold.size for fold in self.folds)

    def start(self) -> list[Value]:
        return [value for fold in self.folds for value in fold.start()]

    def step(self, scope: Scope, carried: Sequence[Value]) -> list[Value]:
        """One more value of each, as it is in `scope`; lanes that are masked off have none."""
        b, after = self.b, []
        for fold, state in zip(self.folds, self._apart(carried), strict=True):
            value = scope.evaluate(fold.reduction.arg)
            if self.lanes:
                value = b.splat(value, self.lanes)
                value = value if scope.mask is None else b.select(scope.mask, value, fold.identity)
            after.extend(fold.step(state, value))
        return after

    def join(self, first: Sequence[Value], second: Sequence[Value]) -> list[Value]:
        pairs = zip(self.folds, self._apart(first), self._apart(second), strict=True)
        return [value for fold, a, b in pairs for value in fold.join(a, b)]

    def finish(self, scope: Scope, carried: Sequence[Value], across: bool) -> None:
        """Give `scope` the results, of each lane or `across` all of them."""
        for fold, state in zip(self.folds, self._apart(carried), strict=True):
            scope.values[fold.reduction] = fold.across(state) if across else fold.finish(state)

    def finish_each(self, scope: Scope, rows: Sequence[Sequence[Value]]) -> None:
        """Give `scope` the results of as many rows as there are lanes, a lane each."""
        apart = [self._apart(row) for row in rows]
        for number, fold in enumerate(self.folds):
            scope.values[fold.reduction] = fold.each_across([states[number] for states in apart])

    def _apart(self, carried: Sequence[Value]) -> list[State]:
        states, at = [], 0
        for fold in self.folds:
            states.append(list(carried[at : at + fold.size]))
            at += fold.size
        return states
