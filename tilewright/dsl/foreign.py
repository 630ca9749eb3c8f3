"""Names of NumPy and torch that are tried on tiles: what they mean here, or what to write instead."""

from __future__ import annotations

from collections.abc import Mapping

from tilewright.dsl import scalars
from tilewright.dsl.scalars import ScalarFunction

# NumPy's names for Python's operators: `np.float32(2) * x` arrives as one of these.
OPERATORS: Mapping[str, ScalarFunction] = {
    "add": scalars.add,
    "subtract": scalars.sub,
    "multiply": scalars.mul,
    "divide": scalars.div,
    "floor_divide": scalars.floordiv,
    "remainder": scalars.mod,
    "power": scalars.power,
    "equal": scalars.eq,
    "not_equal": scalars.ne,
    "less": scalars.lt,
    "less_equal": scalars.le,
    "greater": scalars.gt,
    "greater_equal": scalars.ge,
    "bitwise_and": scalars.and_,
    "bitwise_or": scalars.or_,
    "bitwise_xor": scalars.xor,
    "left_shift": scalars.shl,
    "right_shift": scalars.shr,
}

_NUMPY_NAMES = {"absolute": "abs", "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arctan2": "atan2",
                "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh", "rint": "round", "amax": "max",
                "amin": "min"}  # fmt: skip


def row_of_numpy(name: str) -> ScalarFunction | None:
    """The row of the scalar table that means what the NumPy function `name` means."""
    return OPERATORS.get(name) or scalars.SCALARS.get(_NUMPY_NAMES.get(name, name))


def _in_the_language(name: str) -> str | None:
    from tilewright.dsl import language

    name = _NUMPY_NAMES.get(name, name)
    return name if name in language.__all__ else None


def instead_of_numpy(name: str) -> str:
    return instead_of("np", name, "arrays")


def instead_of(library: str, name: str, operands: str) -> str:
    known = _in_the_language(name)
    remedy = f"write tw.{known}" if known else "write it with tw functions, and pass what it reads as a Tile"
    return f"{library}.{name} works on {operands}, not on the tiles of an op; {remedy}"


def instead_of_attribute(name: str) -> str:
    if name == "shape":
        return "a tile has no shape; the extent of an axis is tw.size('i')"
    known = _in_the_language(name)
    if known:
        return f"a tile has no methods; write tw.{known}(x)"
    return f"a tile has no attribute {name!r}; use operators and tw functions"
