"""What a case must satisfy. Each check raises `AssertionError` with the case's numbers."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tests.support.cases import FLOATS, Case, Extents, Subject
from tilewright.autograd.check import check_jvp, check_vjp
from tilewright.compiler.pipeline import compile_program, lower
from tilewright.dsl.extents import bind_extents
from tilewright.dsl.program import Program
from tilewright.dsl.reference import reference
from tilewright.dsl.verify import verify
from tilewright.errors import ShapeError, UserError
from tilewright.op.derivatives import at_call, jvp, vjp
from tilewright.op.derived import without_saved
from tilewright.op.op import Call

Arrays = Mapping[str, Any]
PRIMES = (5, 11, 3, 13, 7, 17, 19)
SLOPE = 1e-6  # by which a derivative and a finite difference in float64 may differ


def targets() -> list[str]:
    """The targets that can run on this machine without a GPU."""
    return ["cpu", "interpreter"] if importlib.util.find_spec("triton") else ["cpu"]


# --- comparing ----------------------------------------------------------------------------------------------


def assert_close(
    actual: np.ndarray, expected: np.ndarray, tolerance: float = 16.0, what: str = "", floor: float = 0.0
) -> None:
    """`actual` is `expected` up to `tolerance` rounding errors of its largest element (of `floor` at least).

    Rounding errors are those of float32 (float64 where that is the dtype), and for narrower dtypes the
    rounding of each element. Infinities and NaN stand in the same places, integers and bools are equal.
    """
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    if actual.dtype.kind in "iub":
        assert np.array_equal(actual, expected), f"{what}:\n{actual}\nexpected\n{expected}"
        return
    beyond = np.nan if actual.dtype == FLOATS["f8e4m3fn"] else np.inf
    expected = np.where(np.abs(expected) > _largest(actual.dtype), np.copysign(beyond, expected), expected)
    found = actual.astype(np.float64)
    finite = np.isfinite(expected)
    same = np.where(np.isnan(expected), np.isnan(found), found == expected)
    assert np.all(same | finite), f"{what}: not finite in other places:\n{found}\nexpected\n{expected}"
    scale = np.max(np.abs(expected), where=finite, initial=floor)
    wanted = np.where(finite, expected, 0)
    bound = _rounding(actual.dtype) * np.abs(wanted) + tolerance * _compute_eps(actual.dtype) * scale
    bound = bound + _smallest(actual.dtype)
    wrong = finite & ~(np.abs(np.where(finite, found, 0) - wanted) <= bound)
    if np.any(wrong):
        at = tuple(map(int, np.argwhere(wrong)[0]))
        raise AssertionError(
            f"{what}: {int(wrong.sum())} of {wrong.size} elements differ; at {at} {found[at]!r}, expected "
            f"{expected[at]!r} within {bound[at]:.3g}"
        )


def _largest(dtype: np.dtype) -> float:
    largest = {"float16": 65519.9, "float8_e4m3fn": 464.0, "float8_e5m2": 61439.9}
    return largest.get(dtype.name, float("inf"))


def _smallest(dtype: np.dtype) -> float:
    """Half the distance of numbers near 0."""
    smallest = {"float16": 3e-8, "float8_e4m3fn": 2.0**-10, "float8_e5m2": 2.0**-17, "float64": 1e-300}
    return smallest.get(dtype.name, 1e-37)


def _rounding(dtype: np.dtype) -> float:
    """Half a unit in the last place, for dtypes that are narrower than what is computed in."""
    narrow = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float8_e4m3fn": 2.0**-4, "float8_e5m2": 2.0**-3}
    return narrow.get(dtype.name, 0.0) * 1.01


def _narrow(dtype: np.dtype) -> float:
    """Rounding errors of float32 in one of a narrower dtype: a backward reads rounded results."""
    return 2.0**23 * _rounding(dtype)


def _compute_eps(dtype: np.dtype) -> float:
    return 2.0**-52 if dtype == np.float64 else 2.0**-23


# --- running ------------------------------------------------------------------------------------------------


def run(program: Program, arrays: Arrays, target: str) -> tuple[np.ndarray, ...]:
    """A Program's results on a target."""
    tiles = {p.name: arrays[p.name] for p in program.tiles}
    return compile_program(program, target).run(tiles, {p.name: arrays[p.name] for p in program.scalars})


def assert_right(
    program: Program, arrays: Arrays, target: str, tolerance: float, what: str, floor: float = 0.0
) -> None:
    """A target computes a Program as the float64 reference does."""
    verify(program, what)
    expected = reference(program, arrays)
    for result, actual, wanted in zip(program.results, run(program, arrays, target), expected, strict=True):
        assert actual.dtype == result.dtype.numpy, f"{what}: {result.name} is {actual.dtype}"
        assert_close(actual, wanted, tolerance, f"{what}: {result.name}", floor)


def assert_gradients_right(
    program: Program, arrays: Arrays, target: str, tolerance: float, what: str
) -> None:
    """A target's forward and backward, one after the other as on a tape, against the float64 reference."""
    derivative = vjp(program)
    whole = without_saved(derivative)
    given = with_cotangents(whole, arrays, extents_of(program, arrays))
    results = run(derivative.forward, arrays, target)
    named = {r.name: a for r, a in zip(derivative.forward.results, results, strict=True)}
    saved = {name: named[name] for name in derivative.saved}
    actual = run(derivative.backward, {**given, **saved}, target)
    for result, found, wanted in zip(whole.results, actual, reference(whole, given), strict=True):
        assert found.dtype == result.dtype.numpy, f"{what}: {result.name} is {found.dtype}"
        assert_close(found, wanted, tolerance, f"{what}: {result.name}", 1.0)


def backward_of(program: Program) -> Program:
    """operands, cotangents ↦ gradients."""
    return without_saved(vjp(program))


def with_cotangents(
    derived: Program, arrays: Arrays, shapes: Mapping[str, tuple[int, ...]], seed: int = 1
) -> dict[str, Any]:
    """`arrays` and, for each further operand of a derived Program, one drawn in its dtype."""
    rng = np.random.default_rng(seed)
    extra = {
        p.name: rng.standard_normal(tuple(shapes[a] for a in p.axes)).astype(p.dtype.numpy)
        for p in derived.tiles
        if p.name not in arrays
    }
    return {**arrays, **extra}


def extents_of(program: Program, arrays: Arrays) -> dict[str, int]:
    return bind_extents(program, {p.name: np.shape(arrays[p.name]) for p in program.tiles})


# --- what must hold -----------------------------------------------------------------------------------------


def check_value(case: Case, dtype: Any, target: str, axes: Extents | None = None) -> None:
    """The op on a target against the float64 reference."""
    call = case.call(case.arguments(dtype, axes=axes))
    arrays = {**call.arrays, **call.scalars}
    assert_right(call.program, arrays, target, case.tolerance, f"{case} {axes or ''}")


def check_backward(case: Case, dtype: Any, target: str, axes: Extents | None = None) -> None:
    """The generated backward on a target, with what the forward saves for it, against the reference."""
    if not case.differentiable:
        return
    call = case.call(case.arguments(dtype, axes=axes))
    arrays = {**call.arrays, **call.scalars}
    tolerance = 4 * case.tolerance + 4 * _narrow(np.dtype(dtype))
    assert_gradients_right(call.program, arrays, target, tolerance, f"{case} backward {axes or ''}")


def check_empty_axes(case: Case, target: str) -> None:
    """The op and its gradient with one axis after the other empty; windows longer than a line are refused."""
    for axes in _with_an_empty_axis(case):
        try:
            call = case.call(case.arguments(axes=axes))
        except ShapeError as error:
            assert re.search("would have -[0-9]+ positions", str(error)), f"{case} {axes}: {error}"
            continue
        check_empty_call(call, target, case.tolerance, f"{case} {axes}", case.differentiable)


def check_empty_call(
    call: Call, target: str, tolerance: float, what: str, differentiable: bool = True
) -> None:
    """The value where operands are 0 and where they are not, and the gradient, of a call with an empty axis.

    The reference has the op as it was written; a slope is compared wherever the reference has one.
    """
    arrays = {**call.arrays, **call.scalars}
    zeros = {n: a * 0 if a.dtype.kind == "f" else a for n, a in call.arrays.items()}
    for given in (arrays, {**arrays, **zeros}):
        assert_right(call.program, given, target, tolerance, what)
    ends = (call.program.tiles, call.program.results)
    if not differentiable or not all(any(e.dtype.is_float for e in end) for end in ends):
        return
    derivative = vjp(at_call(call.program, call.arrays))
    program = without_saved(derivative)
    given = with_cotangents(program, arrays, extents_of(call.program, arrays))
    assert_right(program, given, target, 4 * tolerance, f"{what} backward", 1.0)
    with np.errstate(invalid="ignore"):
        report = check_vjp(call.program, arrays, derivative=derivative, directions=1, entries=2)
    wrong = [c for c in report.comparisons if np.isfinite(c.measured) and not c.error < SLOPE]
    assert not wrong, f"{what}: {wrong}"


def _with_an_empty_axis(case: Case) -> Iterator[Extents]:
    """Each axis empty, with those that must be as long as it."""
    for axis, extent in case.axes.items():
        if isinstance(extent, tuple):
            if not case.batch:
                yield {axis: (0, *extent[1:])}
            continue
        alone = {axis: 0}
        try:
            call = case.call(case.arguments(axes=alone))
            extents_of(call.program, call.arrays)
        except ShapeError:
            alone = {a: 0 for a, e in case.axes.items() if e == extent}
        yield alone


def check_extents(case: Case, target: str) -> None:
    """The op and its backward on single rows, where all extents are 1, and where they are primes.

    Extents that an op refuses are refused by an error of the user's kind.
    """
    for axes in _with_other_extents(case):
        try:
            call = case.call(case.arguments(axes=axes))
            extents_of(call.program, call.arrays)
        except UserError:
            continue
        check_value(case, np.float32, target, axes)
        check_backward(case, np.float32, target, axes)


def _with_other_extents(case: Case) -> Iterator[Extents]:
    """Extents that are equal stay equal; `...` stays where operands have parts of it."""
    named = {axis: extent for axis, extent in case.axes.items() if not isinstance(extent, tuple)}
    shape = case.axes.get("...", ())
    free = isinstance(shape, tuple) and "..." in case.axes and not case.batch
    if free:
        yield {"...": ()}
    yield {**dict.fromkeys(named, 1), **({"...": (1,) * len(shape)} if free else {})}
    primes = dict(zip(dict.fromkeys((*named.values(), *(shape if free else ()))), PRIMES, strict=False))
    wide = {"...": tuple(primes[extent] for extent in shape)} if free else {}
    yield {**{axis: primes[extent] for axis, extent in named.items()}, **wide}


def check_compiles(case: Case, dtype: Any, target: str, axes: Extents | None = None) -> None:
    """The forward and the backward compile for a GPU that need not be there, and fit it."""
    from tests.support.traffic import check_loads_once
    from tilewright.compiler.targets.triton.binaries import compile_plan
    from tilewright.compiler.targets.triton.launch import whole_elements
    from tilewright.compiler.targets.triton.toolchain import Target

    gpu = Target.parse(target)
    for program, arrays in programs_of(case, dtype, axes):
        _, shapes, strides = whole_elements({p.name: arrays[p.name] for p in program.tiles})
        for step, artefact in compile_plan(lower(program), gpu, shapes, strides):
            assert artefact.shared_bytes <= gpu.shared_memory_limit, step.kernel.name
            assert artefact.threads <= gpu.thread_limit, step.kernel.name
            assert (artefact.registers or 0) * artefact.threads <= gpu.register_limit, step.kernel.name
            check_loads_once(step, artefact)


def programs_of(case: Case, dtype: Any, axes: Extents | None = None) -> list[tuple[Program, Arrays]]:
    """The forward of a case and, where there is one, its backward, with their operands."""
    call = case.call(case.arguments(dtype, axes=axes))
    arrays = {**call.arrays, **call.scalars}
    found = [(call.program, arrays)]
    if case.differentiable:
        program = backward_of(call.program)
        found.append((program, with_cotangents(program, arrays, extents_of(call.program, arrays))))
    return found


def check_tangents(case: Subject, target: str) -> None:
    """The generated jvp on a target against its float64 reference, in float64."""
    if not case.differentiable:
        return
    call = case.call(case.arguments())
    program = jvp(call.program)
    arrays = {**call.arrays, **call.scalars}
    arrays = with_cotangents(program, arrays, extents_of(call.program, arrays))
    assert_right(program, arrays, target, 4 * case.tolerance, f"{case} jvp")


def check_slopes(case: Case) -> None:
    """vjp, jvp and vjp of vjp against finite differences of the float64 reference."""
    if not case.differentiable:
        return
    call = case.call(case.arguments())
    arrays = {**call.arrays, **call.scalars}
    report = check_vjp(call.program, arrays, derivative=vjp(call.program), directions=1, entries=2)
    assert report.error < SLOPE, report
    report = check_jvp(call.program, arrays, directions=1)
    assert report.error < SLOPE, report
    first = backward_of(call.program)
    given = with_cotangents(first, arrays, extents_of(call.program, arrays))
    report = check_vjp(first, given, derivative=vjp(first), directions=1, entries=1)
    assert report.error < SLOPE, report


def check_second(case: Subject, target: str) -> None:
    """The backward of the backward on a target against its float64 reference, in float64."""
    if not case.differentiable:
        return
    call = case.call(case.arguments())
    arrays = {**call.arrays, **call.scalars}
    first = backward_of(call.program)
    arrays = with_cotangents(first, arrays, extents_of(call.program, arrays))
    second = backward_of(first)
    arrays = with_cotangents(second, arrays, extents_of(first, arrays), seed=2)
    assert_right(second, arrays, target, 16 * case.tolerance, f"{case} second backward", 1.0)


# --- peers --------------------------------------------------------------------------------------------------


def check_torch(case: Case, arguments: Mapping[str, np.ndarray]) -> None:
    """Values and gradients, in float64, against torch's op of the same meaning.

    A gradient at a NaN may be anything.
    """
    import torch

    assert case.torch is not None
    tensors = {n: torch.tensor(a, requires_grad=a.dtype.kind == "f") for n, a in arguments.items()}
    peer = case.torch(*tensors.values(), **case.constants, **case.scalars)
    peers = peer if isinstance(peer, tuple) else (peer,)
    own = case.op(**arguments, **case.constants, **case.scalars)
    owns = own if isinstance(own, tuple) else (own,)
    rng = np.random.default_rng(3)
    cotangents = [rng.standard_normal(np.shape(y)) for y in owns]
    for position, (mine, theirs) in enumerate(zip(owns, peers, strict=True)):
        assert_close(
            mine, theirs.detach().numpy(), 16 * case.tolerance, f"{case} result {position} against torch"
        )
    if not case.differentiable:
        return
    floats = {n: t for n, t in tensors.items() if t.requires_grad}
    pairs = [(y, c) for y, c in zip(peers, cotangents, strict=True) if y.is_floating_point()]
    peers, cotangents = zip(*pairs, strict=True)
    wanted = torch.autograd.grad(
        peers, list(floats.values()), [torch.tensor(c) for c in cotangents], allow_unused=True
    )
    names = [name for _, name in vjp(case.call(arguments).program).cotangents]
    keywords = {**case.constants, **case.scalars, **dict(zip(names, cotangents, strict=True))}
    found = case.op.vjp(**arguments, **keywords)
    found = found if isinstance(found, tuple) else (found,)
    for name, mine, theirs in zip(floats, found, wanted, strict=True):
        if theirs is not None:
            nan = np.isnan(arguments[name])
            assert_close(
                np.where(nan, 0, mine),
                np.where(nan, 0, theirs.numpy()),
                64 * case.tolerance,
                f"{case} d_{name} against torch",
                1.0,
            )
