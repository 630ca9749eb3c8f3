"""Calls that must fail before anything runs: the message names the user's line, the op and the remedy."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import tilewright as tw
from tilewright import errors, kernels
from tilewright.op.op import Op

HERE = Path(__file__).name
X = np.ones((2, 3), np.float32)


@tw.op
def affine(
    x: tw.Tile["... d"], weight: tw.Tile["d"], bias: tw.Tile["d"] = None, *, scale: float, shift: float = 0.0
):
    y = x * weight * scale + shift
    return y if bias is None else y + bias


@tw.op
def stepped(x: tw.Tile["... d"], *, rate: tw.Scalar):
    return x * rate


W = np.ones(3, np.float32)
ARGUMENTS, SHAPES, DTYPES = errors.ArgumentError, errors.ShapeError, errors.DTypeError
USAGE = "affine(x: [... d], weight: [d], bias: [d] = None, *, scale, shift=0.0)"

# One row a mistake: the call, the error, what its message says is wrong and what to do.
CASES = {
    # shapes and ranks
    "extents disagree": (
        lambda: affine(X, np.ones(4, np.float32), scale=1.0),
        SHAPES,
        "axis 'd' is 3 in x (shape (2, 3)) but 4 in weight (shape (4,)); named axes must agree",
    ),
    "extent 1 does not broadcast along a named axis": (
        lambda: affine(X, np.ones(1, np.float32), scale=1.0),
        SHAPES,
        "axis 'd' is 3 in x (shape (2, 3)) but 1 in weight (shape (1,)); named axes must agree",
    ),
    "contracted extents disagree": (
        lambda: kernels.matmul(X, X),
        SHAPES,
        "axis 'k' is 3 in a (shape (2, 3)) but 2 in b (shape (2, 3)); named axes must agree",
    ),
    "too few dimensions": (
        lambda: affine(np.float32(1), W, scale=1.0),
        SHAPES,
        'x is Tile["... d"] and needs at least 1 dimension, but has shape ()',
    ),
    "too many dimensions": (
        lambda: affine(X, X, scale=1.0),
        SHAPES,
        'weight is Tile["d"] and needs 1 dimension, but has shape (2, 3)',
    ),
    "batch axes do not broadcast": (
        lambda: kernels.matmul(np.ones((2, 3, 4)), np.ones((5, 4, 3))),
        SHAPES,
        "the batch axes of a (2,) and b (5,) do not broadcast: 2 against 5",
    ),
    # operands and keywords
    "operand missing": (lambda: affine(X, scale=1.0), ARGUMENTS, f"needs the operand 'weight': {USAGE}"),
    "no operand": (lambda: affine(scale=1.0), ARGUMENTS, f"needs the operand 'x': {USAGE}"),
    "operand given as None": (
        lambda: affine(None, W, scale=1.0),
        ARGUMENTS,
        f"needs the operand 'x': {USAGE}",
    ),
    "too many operands": (
        lambda: affine(X, W, W, W, scale=1.0),
        ARGUMENTS,
        f"takes 3 operands, got 4: {USAGE}",
    ),
    "operand given twice": (
        lambda: affine(X, W, x=X, scale=1.0),
        ARGUMENTS,
        f"is given 'x' twice: {USAGE}",
    ),
    "unknown keyword": (
        lambda: affine(X, W, scale=1.0, scales=2.0),
        ARGUMENTS,
        f"has no argument 'scales': {USAGE}",
    ),
    "constant missing": (lambda: affine(X, W), ARGUMENTS, f"needs the keyword 'scale': {USAGE}"),
    "run-time number missing": (
        lambda: stepped(X),
        ARGUMENTS,
        "needs the keyword 'rate': stepped(x: [... d], *, rate)",
    ),
    "constant that cannot be hashed": (
        lambda: affine(X, W, scale=[1.0]),
        ARGUMENTS,
        "'scale' is a compile-time constant and cannot be a list; pass a number, string or tuple, "
        "annotate it tw.Scalar to pass a number at run time, or make it a Tile",
    ),
    "constant that is an array": (
        lambda: affine(X, W, scale=W),
        ARGUMENTS,
        "'scale' is a compile-time constant and cannot be a ndarray",
    ),
    "run-time number that is a string": (
        lambda: stepped(X, rate="fast"),
        ARGUMENTS,
        "'rate' is a number passed at run time, got str",
    ),
    "run-time number that is an array": (
        lambda: stepped(X, rate=W),
        ARGUMENTS,
        "'rate' is a number passed at run time, got ndarray",
    ),
    # what is no operand
    "list": (
        lambda: affine([1.0, 2.0, 3.0], W, scale=1.0),
        ARGUMENTS,
        "operand 'x' is a builtins.list; pass a NumPy array or a tilewright Tensor, as in np.asarray(value, ",
    ),
    "masked array": (
        lambda: kernels.relu(np.ma.masked_array(X, X > 0)),
        ARGUMENTS,
        "operand 'x' is a masked array, whose mask would not be seen; pass value.filled(0)",
    ),
    "string": (lambda: kernels.relu("x"), ARGUMENTS, "operand 'x' is a builtins.str; pass a NumPy array"),
    "dict": (lambda: kernels.relu({}), ARGUMENTS, "operand 'x' is a builtins.dict; pass a NumPy array"),
    # dtypes
    "complex": (
        lambda: kernels.relu(X.astype(np.complex64)),
        DTYPES,
        "le has no meaning for complex numbers; take tw.real(z), tw.imag(z) or tw.abs(z) first",
    ),
    "big-endian": (
        lambda: kernels.relu(X.astype(">f4")),
        DTYPES,
        "operand 'x' has dtype >f4, which the language does not compute with; convert it with .astype(",
    ),
    "objects": (
        lambda: kernels.relu(np.array([1, "a"], object)),
        DTYPES,
        "operand 'x' has dtype object, which the language does not compute with",
    ),
    "text": (lambda: kernels.relu(np.array(["a"])), DTYPES, "operand 'x' has dtype <U1"),
    "dates": (
        lambda: kernels.relu(np.array(["2020-01-01"], "datetime64[D]")),
        DTYPES,
        "operand 'x' has dtype datetime64[D]",
    ),
    "records": (
        lambda: kernels.relu(np.zeros(2, [("a", "f4")])),
        DTYPES,
        "operand 'x' has dtype [('a', '<f4')]",
    ),
    "unsigned 64 bits": (lambda: kernels.relu(np.ones(2, np.uint64)), DTYPES, "operand 'x' has dtype uint64"),
    "80 bits": (lambda: kernels.relu(np.ones(2, np.longdouble)), DTYPES, "operand 'x' has dtype"),
    "8 bits of another format": (
        lambda: kernels.relu(np.ones(2, ml_dtypes.float8_e4m3fnuz)),
        DTYPES,
        "operand 'x' has dtype float8_e4m3fnuz",
    ),
    "two formats of 8 bits": (
        lambda: kernels.matmul(
            np.ones((2, 2), ml_dtypes.float8_e4m3fn), np.ones((2, 2), ml_dtypes.float8_e5m2)
        ),
        DTYPES,
        "float8_e4m3fn and float8_e5m2 have no dtype in which they meet; say it, as in tw.cast",
    ),
    # derivative ops
    "cotangent missing": (
        lambda: kernels.softmax.vjp(X),
        ARGUMENTS,
        "'softmax.vjp' needs the operand 'd_y'",
    ),
    "cotangent of a wrong shape": (
        lambda: kernels.softmax.vjp(X, np.ones((2, 4), np.float32)),
        SHAPES,
        "d_y has shape (2, 4), but (2, 3) is needed",
    ),
    "cotangent twice": (
        lambda: kernels.softmax.vjp(X, X, X),
        ARGUMENTS,
        "'softmax.vjp' is given 1 operands more; it takes x, d_y",
    ),
    "cotangent of an unknown name": (
        lambda: kernels.softmax.vjp(X, X, d_z=X),
        ARGUMENTS,
        "'softmax.vjp' has no argument 'd_z'; it takes x, d_y",
    ),
    "tangent missing": (lambda: kernels.softmax.jvp(X), ARGUMENTS, "'softmax.jvp' needs the operand 't_x'"),
    "integers have no gradient": (
        lambda: kernels.softmax.grad(np.ones((2, 3), np.int32)),
        errors.DerivativeError,
        "no floating-point operand",
    ),
}


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def executable(op: Op, *arguments: object) -> None:
        raise AssertionError(f"{op.name} was compiled")

    monkeypatch.setattr(Op, "executable", executable)


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("name", CASES)
def test_a_wrong_call_is_refused(name: str):
    call, error, message = CASES[name]
    with pytest.raises(error, match=re.escape(message)) as caught:
        call()
    assert type(caught.value) is error
    first = inspect.getsourcelines(call)[1]
    line = re.match(rf"{re.escape(HERE)}:(\d+): op ", str(caught.value))
    assert line, f"does not start with the user's line: {caught.value}"
    assert first <= int(line[1]) <= first + 2


@pytest.mark.usefixtures("nothing_runs")
def test_errors_are_pythons_kinds_too():
    """Code that catches Python's own errors goes on working."""
    with pytest.raises(TypeError):
        affine(X, scale=1.0)
    with pytest.raises(ValueError, match="named axes must agree"):
        kernels.matmul(X, X)
    with pytest.raises(TypeError):
        kernels.relu(X.astype(complex))


def test_what_does_compile_is_noticed(nothing_runs: None):
    with pytest.raises(AssertionError, match="relu was compiled"):
        kernels.relu(X)
