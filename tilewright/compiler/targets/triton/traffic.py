"""What a compiled kernel moves and multiplies, counted in its Triton IR: no device, no run.

    moved = traffic_of(artefact, grid, integers)
    moved.loaded("x_ptr")         bytes that all programs together load through a pointer
    moved.sites("x_ptr")          places of the text that load through it
    moved.multiplied              multiply-adds of all tile products

Loops count with their trips, which the sizes among a launch's integers decide; masked lanes count as moved,
and every program as the first, which has as much to do as any. So the numbers are upper bounds, and exact
where extents are multiples of the tiles.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tilewright.compiler.targets.triton.toolchain import Artefact
from tilewright.errors import InternalError

LOAD, STORE, ATOMIC = "load", "store", "atomic"

_KINDS = {
    "tt.load": LOAD,
    "tt.store": STORE,
    "tt.atomic_rmw": ATOMIC,
    "tt.atomic_cas": ATOMIC,
}
_OPERATION = re.compile(r"(?:(%[\w#]+)(?::\d+)? = )?\"?((?:tt|arith|scf)\.\w+)\"?(.*)")
_VALUE = re.compile(r"%[\w#]+")
_POINTERS = re.compile(r"(?:tensor<((?:\d+x)+))?!tt\.ptr<(\w+)>")
_SIDE = re.compile(r"tensor<((?:\d+x)+)\w+> \* tensor<((?:\d+x)+)\w+>")
_LOOP = re.compile(r"%[\w#]+ = (%[\w#]+) to (%[\w#]+) step (%[\w#]+)")
_CONSTANT = re.compile(r" (-?\d+|true|false)\b")
_BITS = re.compile(r"\d+")


def _quotient(a: int, b: int) -> int:
    """Rounded towards zero, as machines divide."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1) if b else 0


_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "arith.addi": operator.add,
    "arith.subi": operator.sub,
    "arith.muli": operator.mul,
    "arith.divsi": _quotient,
    "arith.remsi": lambda a, b: a - b * _quotient(a, b),
    "arith.ceildivsi": lambda a, b: -(-a // b) if b else 0,
    "arith.minsi": min,
    "arith.maxsi": max,
}
_CONVERSIONS = ("arith.extsi", "arith.extui", "arith.trunci", "arith.index_cast")
_SAME_MEMORY = ("tt.splat", "tt.addptr", "tt.broadcast", "tt.expand_dims", "tt.reshape", "tt.bitcast")


@dataclass(frozen=True)
class Access:
    """One place of the text that moves memory: in a program `trips` times, `size` bytes each time. How often
    is not known (None) in a loop that data decide on.
    """

    kind: str
    parameter: str
    size: int
    trips: int | None


@dataclass(frozen=True)
class Traffic:
    """The accesses of one program, the multiply-adds of its tile products, and how many programs run.

    Amounts in loops whose trips a launch's integers do not decide raise `InternalError`.
    """

    accesses: tuple[Access, ...]
    products: int | None
    programs: int

    def sites(self, parameter: str, kind: str = LOAD) -> int:
        """Places of the text that access memory through a pointer."""
        return len([a for a in self.accesses if a.parameter == parameter and a.kind == kind])

    def loaded(self, parameter: str) -> int:
        """Bytes that the launch loads through a pointer."""
        return self._moved(parameter, LOAD)

    def stored(self, parameter: str) -> int:
        """Bytes that the launch stores through a pointer."""
        return self._moved(parameter, STORE)

    @property
    def multiplied(self) -> int:
        """Multiply-adds of the launch's tile products."""
        return _decided(self.products, "a product") * self.programs

    def _moved(self, parameter: str, kind: str) -> int:
        here = [a for a in self.accesses if a.parameter == parameter and a.kind == kind]
        return sum(a.size * _decided(a.trips, f"a {kind}") for a in here) * self.programs


def _decided(amount: int | None, what: str) -> int:
    if amount is None:
        raise InternalError(f"{what} is in a loop whose trips are not decided by a launch's integers")
    return amount


def traffic_of(artefact: Artefact, grid: Sequence[int], integers: Mapping[str, int]) -> Traffic:
    """The traffic of a launch of `grid` programs, for these values of the kernel's integer parameters."""
    walk = _Walk({f"%{name}": value for name, value in integers.items()}, artefact)
    for line in artefact.texts["ttir"].splitlines():
        walk.read(line.strip())
    return Traffic(tuple(walk.accesses), walk.products, math.prod(grid))


class _Walk:
    """Reads a kernel line by line, following integers, and pointers back to the parameters they come from."""

    def __init__(self, integers: dict[str, int], artefact: Artefact):
        self.integers = integers
        self.parameters = {f"%{name}": name for name, kind in artefact.signature if kind.startswith("*")}
        self.accesses: list[Access] = []
        self.products: int | None = 0
        self._trips: list[int | None] = [1]  # of each region that is open

    def read(self, line: str) -> None:
        if line.startswith("}"):
            self._trips.pop()
        found = _OPERATION.match(line)
        trips: int | None = 1
        if found is not None:
            result, name, rest = found.groups()
            if name == "scf.for":
                trips = self._loop_trips(rest)
            elif result is not None:
                self._define(result, name, rest)
            self._count(name, rest)
        if line.endswith("{"):
            self._trips.append(trips)

    def _define(self, result: str, name: str, rest: str) -> None:
        operands = _VALUE.findall(rest)
        if name in _SAME_MEMORY and operands and operands[0] in self.parameters:
            self.parameters[result] = self.parameters[operands[0]]
        elif name == "arith.constant":
            constant = _CONSTANT.match(rest)
            if constant is not None:
                word = constant[1]
                self.integers[result] = int(word == "true") if word in ("true", "false") else int(word)
        elif name == "tt.get_program_id":
            self.integers[result] = 0
        elif name in _CONVERSIONS and operands[0] in self.integers:
            self.integers[result] = self.integers[operands[0]]
        elif name in _ARITHMETIC and all(o in self.integers for o in operands[:2]):
            first, second = (self.integers[o] for o in operands[:2])
            self.integers[result] = _ARITHMETIC[name](first, second)

    def _loop_trips(self, rest: str) -> int | None:
        bounds = _LOOP.search(rest)
        if bounds is None or any(bound not in self.integers for bound in bounds.groups()):
            return None
        low, high, step = (self.integers[bound] for bound in bounds.groups())
        return max(0, -(-(high - low) // step))

    def _count(self, name: str, rest: str) -> None:
        trips = _product(self._trips)
        if name in _KINDS:
            pointer = _VALUE.findall(rest)[0]
            pointers = _POINTERS.search(rest)
            assert pointers is not None
            bits = int(_BITS.search(pointers[2])[0])  # type: ignore[index]
            size = _elements(pointers[1]) * bits // 8
            self.accesses.append(Access(_KINDS[name], self.parameters[pointer], size, trips))
        elif name == "tt.dot":
            sides = _SIDE.search(rest)
            assert sides is not None
            columns = int(sides[2].split("x")[-2])
            made = _product([_elements(sides[1]), columns, trips])
            self.products = None if made is None or self.products is None else self.products + made


def _product(factors: Sequence[int | None]) -> int | None:
    known = [factor for factor in factors if factor is not None]
    return math.prod(known) if len(known) == len(factors) else None


def _elements(shape: str | None) -> int:
    """Of a tile: `64x32x` is 2048."""
    return math.prod(int(extent) for extent in (shape or "").split("x") if extent)
