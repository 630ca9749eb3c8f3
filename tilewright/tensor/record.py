"""Running ops on Tensors, and recording what ran.

A `Site` (`tensor.site`) is everything about a call that its operands' layouts and dtypes decide, worked out
once. A warm call looks it up, runs the kernels, and leaves a `ProgramNode` on the tape with the arrays that
the backward Program will read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from tilewright.autograd.tape import Leaf, Node, Origin, Source, freed, mode
from tilewright.dsl.axes import PAIR, base
from tilewright.dsl.dtypes import DType, of_array, promote
from tilewright.dsl.extents import bind_extents
from tilewright.dsl.program import Program
from tilewright.errors import (
    ArgumentError,
    DerivativeError,
    DeviceError,
    MemoryLimitError,
    ShapeError,
    TargetError,
)
from tilewright.op import outputs, storage
from tilewright.op.binding import as_operand, where
from tilewright.op.direct import DirectOp
from tilewright.op.op import Arguments, Call, Op, constants_key
from tilewright.op.pairs import as_pairs, as_real, complex_names, is_complex_array
from tilewright.op.seen import Seen, inverse, order
from tilewright.tensor.families import convert
from tilewright.tensor.site import Gradient, Order, Shape, Site, closed_backward, inside, outside, zeros

NOTHING: Mapping[str, Any] = {}


class Version:
    """Counts the writes to a piece of memory that one or more Tensors share."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Value:
    """What a Tensor is to the tape: an array, the version of its memory, and where it comes from."""

    __slots__ = ("__weakref__", "_array", "_origin", "_result", "_retained", "_version")

    kind: ClassVar[type[Value]]
    """The class of results: `Tensor`, which registers itself here."""

    _array: np.ndarray
    """NumPy's, or a `DeviceArray` (`op.storage`), which has the same names."""
    _version: Version
    _origin: Origin | None
    _result: int
    _retained: Any

    @classmethod
    def _make(
        cls, array: Any, version: Version | None = None, origin: Origin | None = None, result: int = 0
    ) -> Any:
        self = object.__new__(cls)
        self._array = array
        self._version = version or Version()
        self._origin = origin
        self._result = result
        return self

    @property
    def _source(self) -> Source | None:
        return None if self._origin is None else (self._origin, self._result)


# --- nodes ------------------------------------------------------------------------------------------------


class ProgramNode(Node):
    """One run of a Program. Its `saved` arrays have the shapes of the Program's operands."""

    __slots__ = ("saved", "scalars", "site", "versions")

    def __init__(self, site: Site, inputs: Sequence[Source | None], scalars: Mapping[str, float | int]):
        super().__init__(inputs)
        self.site = site
        self.scalars = scalars
        self.saved: dict[str, np.ndarray] | None = site.shape_only
        self.versions: list[tuple[str, Version, int]] = []

    @property
    def name(self) -> str:
        return self.site.program.name

    def is_fresh(self, position: int) -> bool:
        return position in self.site.fresh

    def release(self) -> None:
        if self.site.kept_any:
            self.saved = None

    def _checked_saved(self) -> dict[str, np.ndarray]:
        if self.saved is None:
            raise freed(self.name)
        for name, version, count in self.versions:
            if version.count != count:
                raise DerivativeError(
                    f"{name!r}, which {self.name} saved for its gradient, was modified in place "
                    "afterwards (it is at "
                    f"version {version.count}, {count} was saved); write the new value to a new "
                    "tensor, or copy it "
                    f"before: x.clone()"
                )
        return self.saved

    def backward(self, cotangents: Mapping[int, Any], record: bool) -> Sequence[Any]:
        if record:
            return self._recorded_backward(cotangents)
        site = self.site
        pulled: list[Any] = [None] * len(site.names)
        results: Sequence[Any] = ()
        if site.computes:
            given = {name: _cotangent(cotangents, n, shape, site) for n, name, shape in site.cotangents}
            given |= self._checked_saved()
            results = site.run_backward([given[name] for name in site.read], self.scalars)
        for number, gradient in enumerate(site.gradients):
            if gradient.through is None:
                pulled[gradient.position] = outside(results[number], gradient.given, gradient.paired)
            elif (cotangent := cotangents.get(gradient.through.result)) is not None:
                pulled[gradient.position] = _repeated(cotangent, gradient)
        return pulled

    # --- the backward as a recorded Program -----------------------------------------------------------------

    def _recorded_backward(self, cotangents: Mapping[int, Any]) -> Sequence[Any]:
        site = self.site
        if not site.computes:
            return self._repeated_cotangents(cotangents)
        saved = self._checked_saved()
        derivative = site.derivative
        program = closed_backward(derivative) if site.has_residuals else derivative.backward
        operands = self._backward_operands(program, saved, cotangents)
        tracked = tuple(source is not None for _, source, _, _ in operands)
        second = site.second.get(tracked)
        if second is None:
            shapes = [array.shape for array, _, _, _ in operands]
            expected = [g.given for g in site.gradients]
            second = site.second[tracked] = Site(
                program, shapes, [g for _, _, g, _ in operands], expected, tracked, site.target
            )
        versions = [v for _, _, _, v in operands]
        gradients = run(
            second, [a for a, _, _, _ in operands], [s for _, s, _, _ in operands], versions, self.scalars
        )
        pulled: list[Any] = [None] * len(site.names)
        for value, gradient in zip(gradients, site.gradients, strict=True):
            pulled[gradient.position] = value
        return pulled

    def _repeated_cotangents(self, cotangents: Mapping[int, Any]) -> Sequence[Any]:
        pulled: list[Any] = [None] * len(self.site.names)
        for gradient in self.site.gradients:
            assert gradient.through is not None
            cotangent = cotangents.get(gradient.through.result)
            if cotangent is not None:
                through = cotangent.reshape(gradient.through.shape)
                pulled[gradient.position] = through.broadcast_to(gradient.shape).reshape(gradient.given)
        return pulled

    def _backward_operands(
        self, program: Program, saved: Mapping[str, np.ndarray], cotangents: Mapping[int, Any]
    ) -> list[tuple[np.ndarray, Source | None, Shape, tuple[Version, int] | None]]:
        """(array, source, shape that the source knows it by, version) of each operand of the backward."""
        site = self.site
        position = {name: n for n, name in enumerate(site.names)}
        results = {r.name: n for n, r in enumerate(site.program.results)}
        counts = {name: (version, count) for name, version, count in self.versions}
        given = {name: (n, shape) for n, name, shape in site.cotangents}
        operands: list[Any] = []
        for param in program.tiles:
            name = param.name
            if name in given:
                n, shape = given[name]
                cotangent = cotangents.get(n)
                if cotangent is None:
                    operands.append((zeros(shape, site.program.results[n].dtype), None, shape, None))
                    continue
                version = cotangent._version
                array = inside(cotangent._array, shape)
                operands.append((array, cotangent._source, cotangent._array.shape, (version, version.count)))
            elif name in position:
                n = position[name]
                operands.append((saved[name], self.inputs[n], site.given[n], counts.get(name)))
            else:
                n = results[name]
                operands.append((saved[name], (self, n), site.expected[n], counts.get(name)))
        return operands


def _repeated(cotangent: np.ndarray, gradient: Gradient) -> np.ndarray:
    assert gradient.through is not None
    through = inside(cotangent, gradient.through.shape)
    if through.shape != gradient.shape:
        through = storage.broadcast(through, gradient.shape)
    return outside(through, gradient.given, gradient.paired)


def _cotangent(cotangents: Mapping[int, Any], result: int, shape: Shape, site: Site) -> np.ndarray:
    given = cotangents.get(result)
    if given is None:
        return zeros(shape, site.program.results[result].dtype)
    return inside(given, shape)


# --- running ----------------------------------------------------------------------------------------------


def run(
    site: Site,
    arrays: Sequence[np.ndarray],
    sources: Sequence[Source | None],
    versions: Sequence[tuple[Version, int] | None],
    scalars: Mapping[str, float | int],
) -> list[Any]:
    """Run a site on arrays of the Program's shapes; the results as Tensors, recorded if the site is."""
    results = site.executable.run(dict(zip(site.names, arrays, strict=True)), scalars)
    if site.recorded:
        return _recorded(site, results, arrays, sources, versions, scalars)
    return _unrecorded(site, results)


def _recorded(
    site: Site,
    results: Sequence[np.ndarray],
    arrays: Sequence[np.ndarray],
    sources: Sequence[Source | None],
    versions: Sequence[tuple[Version, int] | None],
    scalars: Mapping[str, float | int],
) -> list[Any]:
    """The results as Tensors, and on the tape what their gradient needs."""
    node = ProgramNode(site, sources, scalars)
    outputs = [
        Value.kind._make(outside(r, shape, paired), None, node if n in site.differentiable else None, n)
        for n, (r, shape, paired) in enumerate(zip(results, site.expected, site.paired, strict=False))
    ]
    if not site.kept_any:
        return outputs
    saved = node.saved = site.shape_only.copy()
    for n, name in site.kept_operands:
        saved[name] = arrays[n]
        version = versions[n]
        if version is not None:
            node.versions.append((name, *version))
    for n, name in site.kept_results:
        saved[name] = results[n]
        if n < site.count:
            node.versions.append((name, outputs[n]._version, 0))
    return outputs


def _unrecorded(site: Site, results: Sequence[np.ndarray]) -> list[Any]:
    make = Value.kind._make
    if site.as_expected:
        return [make(result) for result in results]
    return [make(outside(*each)) for each in zip(results, site.expected, site.paired, strict=True)]


def call(
    op: Op,
    operands: tuple[Any, ...],
    scalars: Mapping[str, Any] = NOTHING,
    constants: Mapping[str, Any] = NOTHING,
    out: Sequence[Any] | None = None,
) -> list[Any]:
    """The results of an op as Tensors, for operands (Tensors, arrays, None) in the order of `op.tiles`.

    `out` holds for each result None or a Tensor to write it to.
    """
    site, positions, arrays = _find_site(op, operands, scalars, constants)
    if site.order is not None:
        return _call_in_order(op, site, [operands[n] for n in positions], scalars, out)
    given = [arrays[n] for n in positions]
    forward = site.forward
    if forward is None:
        site.prepare(given)
        forward = site.forward
        assert forward is not None
    if not (site.as_given or site.lies):
        given = [inside(array, shape) for array, shape in zip(given, site.shapes, strict=True)]
    if out is not None:
        return _run_into(op, site, functools.partial(forward, given, scalars), out)
    try:
        results = forward(given, scalars)
    except (TargetError, MemoryLimitError) as error:
        raise outputs.named(op.name, error) from None
    if site.lies:
        make = Value.kind._make
        return [make(result) for result in results]
    if not site.recorded:
        return _unrecorded(site, results)
    sources: list[Source | None] = []
    versions: list[Any] = []
    for position in positions:
        operand = operands[position]
        if isinstance(operand, Value):
            origin = operand._origin
            sources.append(None if origin is None else (origin, operand._result))
            versions.append((operand._version, operand._version.count))
        else:
            sources.append(None)
            versions.append(None)
    return _recorded(site, results, given, sources, versions, scalars)


def _find_site(
    op: Op, operands: tuple[Any, ...], scalars: Mapping[str, Any], constants: Mapping[str, Any]
) -> tuple[Site, tuple[int, ...], list[Any]]:
    """The site of a call, which operands its Program has, and the operands' arrays."""
    recording = mode.recording
    arrays: list[Any] = []
    key: list[Any] = []
    for operand in operands:
        if isinstance(operand, Value):
            array = operand._array
            tracked = recording and operand._origin is not None
            key += (type(array), array.shape, array.strides, array.dtype, tracked)
        elif (array := operand) is not None:
            key += (type(array), array.shape, array.strides, array.dtype)
        else:
            key.append(None)
        arrays.append(array)
    if constants:
        key += constants_key(constants)
    sites = op.sites
    found = sites.get(signature := tuple(key))
    if found is None:
        found = sites[signature] = _site(op, operands, arrays, constants, scalars)
    site, positions = found
    return site, positions, arrays


def _run_into(op: Op, site: Site, forward: Callable[..., tuple[np.ndarray, ...]], out: Any) -> list[Any]:
    """The results in the memory of Tensors, operands among them; nothing is recorded."""
    if site.recorded:
        raise DerivativeError(
            f"{where(op.name)}: out= would overwrite what the gradient may need; leave it out, or call under "
            f"`with tw.no_grad():` if no gradient is to pass"
        )
    tensors = outputs.one_for_each(op.name, out, len(site.program.results))
    for tensor in tensors:
        if tensor is not None and not isinstance(tensor, Value.kind):
            kind = type(tensor).__qualname__
            raise ArgumentError(f"{where(op.name)}: out= is a Tensor where an operand is one, not a {kind}")
        if tensor is not None:
            tensor._writable(f"{op.name} with out=", None)  # type: ignore[attr-defined]
            if storage.target_of(tensor._array) != site.target:
                raise DeviceError(
                    f"{where(op.name)}: the operands lie on {site.target}, out= on "
                    f"{storage.target_of(tensor._array)}; pass a Tensor there"
                )
    arrays = [None if tensor is None else tensor._array for tensor in tensors]
    seen = map(Seen, site.expected) if site.order is None else site.order.results
    results = outputs.placed(op.name, site.program, forward, (site.result_shapes, tuple(seen)), arrays)
    for tensor in tensors:
        if tensor is not None:
            tensor._version.count += 1
    return [
        Value.kind._make(result) if tensor is None else tensor
        for tensor, result in zip(tensors, results, strict=True)
    ]


def prepared_into(
    op: Op, operands: Sequence[Value], out: Sequence[np.ndarray], constants: Mapping[str, Any]
) -> Callable[..., None] | None:
    """A call that was made with `out=`, to be made again; None where it is more than a kernel's entry."""
    if mode.recording:
        return None
    missing = (None,) * (len(op.tiles) - len(operands))
    site, positions, arrays = _find_site(op, (*operands, *missing), NOTHING, {**op.constants, **constants})
    given = arrays[: len(operands)]
    plain = positions == tuple(range(len(given))) and not any(map(is_complex_array, given))
    repeated = getattr(site.forward, "repeated", None)
    if not plain or repeated is None or not all(array.flags.c_contiguous for array in (*given, *out)):
        return None
    places = [array.reshape(shape) for array, shape in zip(out, site.result_shapes, strict=True)]
    return repeated([inside(array, shape) for array, shape in zip(given, site.shapes, strict=True)], places)


def on_array(op: Op, array: Any) -> Any:
    """The one result of an op on an array, wherever it lies; nothing is recorded."""
    if isinstance(array, np.ndarray):
        return op(array)
    return call(op, (Value.kind._make(array),))[0]._array


def _site(
    op: Op,
    operands: Sequence[Any],
    arrays: Sequence[Any],
    constants: Mapping[str, Any],
    scalars: Mapping[str, Any],
) -> tuple[Site, tuple[int, ...]]:
    names = [t.name for t in op.tiles]
    target = _target(op.name, names, operands, arrays)
    layouts = dict(zip(names, map(storage.stand_in, arrays), strict=True))
    bound = _bound(op, Arguments(layouts, dict(scalars), dict(constants)))
    program = bound.program
    positions = tuple(names.index(p.name) for p in program.tiles)
    tracked = [
        mode.recording and isinstance(operands[n], Value) and operands[n]._origin is not None
        for n in positions
    ]
    given = [
        _shape_in_order(arrays[n], bound.given[p.name]) for n, p in zip(positions, program.tiles, strict=True)
    ]
    return _site_of(bound, given, tracked, target), positions


def _site_of(bound: Call, given: Sequence[Shape], tracked: Sequence[bool], target: str) -> Site:
    """The site of a call; its `order` is there if a user has dimensions in another one than the Program."""
    program = bound.program
    shapes = [bound.arrays[p.name].shape for p in program.tiles]
    extents = bind_extents(program, {p.name: shape for p, shape in zip(program.tiles, shapes, strict=True)})
    results = _expected(bound, extents)
    site = Site(program, shapes, given, [seen.front_shape for seen in results], tracked, target)
    operands = tuple(bound.given[p.name] for p in program.tiles)
    if not all(seen.is_plain for seen in (*operands, *results)):
        site.order = Order(operands, tuple(results))
    return site


def _target(op_name: str, names: Sequence[str], operands: Sequence[Any], arrays: Sequence[Any]) -> str:
    """The device that all operands lie on. Raises `DeviceError`."""
    kinds = [isinstance(operand, Value) for operand in operands]
    return storage.common_target(op_name, list(zip(names, arrays, kinds, strict=True)))


def _bound(op: Op, arguments: Arguments) -> Call:
    """The call of an op on arrays, complex ones as pairs."""
    names = complex_names(arguments.tiles)
    real = Arguments(as_real(arguments.tiles), arguments.scalars, arguments.constants)
    return (op.with_pairs(names) if names else op).bind(real)


def _expected(call: Call, extents: Mapping[str, int]) -> list[Seen]:
    """The results as a user has them, complex ones without their halves."""
    found = []
    for number, result in enumerate(call.program.results):
        seen = call.seen(number, tuple(extents.get(base(a), 2) for a in result.axes))
        found.append(Seen(seen.shape[:-1], seen.places) if PAIR in result.axes else seen)
    return found


# --- dimensions in another order ----------------------------------------------------------------------------


def _call_in_order(
    op: Op, site: Site, operands: Sequence[Any], scalars: Mapping[str, Any], out: Sequence[Any] | None
) -> list[Any]:
    """A call whose operands and results a user has in another order of dimensions (`vmap`)."""
    assert site.order is not None
    moved = [_in_order(o, seen) for o, seen in zip(operands, site.order.operands, strict=True)]
    arrays = [
        inside(value._array if isinstance(value, Value) else value, shape)
        for value, shape in zip(moved, site.shapes, strict=True)
    ]
    if out is not None:
        given = dict(zip(site.names, arrays, strict=True))
        return _run_into(op, site, functools.partial(site.executable.run, given, scalars), out)
    sources = [value._source if isinstance(value, Value) else None for value in moved]
    versions = [_version(value) for value in moved]
    return _as_given(site, run(site, arrays, sources, versions, scalars))


def _in_order(value: Any, seen: Seen) -> Any:
    """An operand with those dimensions first that a mapped op has first: a view, which a tape knows of."""
    if seen.is_plain:
        return value
    if not isinstance(value, Value):
        return seen.to_front(value)
    return value.permute(*order(seen.places, value._array.ndim))  # type: ignore[attr-defined]


def _shape_in_order(array: Any, seen: Seen) -> Shape:
    return tuple(array.shape[dimension] for dimension in order(seen.places, array.ndim))


def _as_given(site: Site, results: Sequence[Any]) -> list[Any]:
    """Results as a user has them."""
    if site.order is None:
        return list(results)
    pairs = zip(results, site.order.results, strict=True)
    return [
        r if seen.is_plain else r.permute(*inverse(order(seen.places, r._array.ndim))) for r, seen in pairs
    ]


def _version(value: Any) -> tuple[Version, int] | None:
    return (value._version, value._version.count) if isinstance(value, Value) else None


# --- calls of users' ops ----------------------------------------------------------------------------------


def apply(op: Op, arguments: Arguments, out: Any = None) -> Any:
    """What `op(tensor, …)` does: one result, or a tuple of them."""
    operands = arguments.tiles
    for value in operands.values():
        if value is not None and not isinstance(value, Value):
            operands = {name: _ready(value, name, op, operands) for name, value in operands.items()}
            break
    if not op.direct:
        results = _call_derivative(op, Arguments(operands, arguments.scalars, arguments.constants), out)
    else:
        scalars = op._scalar_values(arguments) if arguments.scalars else NOTHING
        results = call(op, tuple(operands.values()), scalars, arguments.constants, out)
    return results[0] if len(results) == 1 else tuple(results)


def apply_to_operands(op: DirectOp, operands: tuple[Any, ...]) -> Any:
    """`apply` to all operands of an op that asks for no keywords."""
    for value in operands:
        if not isinstance(value, Value):
            return apply(op, op.arguments(operands, {}))
    results = call(op, operands, op.default_scalars, op.default_constants)
    return results[0] if len(results) == 1 else tuple(results)


def _call_derivative(op: Op, arguments: Arguments, out: Any) -> list[Any]:
    """A vjp or jvp op, whose further operands have the names that its derivative gives them."""
    arrays = {n: v._array if isinstance(v, Value) else v for n, v in arguments.tiles.items()}
    target = _target(op.name, list(arrays), list(arguments.tiles.values()), list(arrays.values()))
    layouts = {name: storage.stand_in(array) for name, array in arrays.items()}
    bound = _bound(op, Arguments(layouts, arguments.scalars, arguments.constants))
    owners = [_owner(op, bound, p.name, arguments.tiles[bound.owners[p.name]]) for p in bound.program.tiles]
    sources = [o._source if isinstance(o, Value) and mode.recording else None for o in owners]
    given = [o._array.shape if isinstance(o, Value) else np.shape(o) for o in owners]
    site = _site_of(bound, given, [source is not None for source in sources], target)
    operands = {n: _actual(view, arrays[bound.owners[n]], bound.given[n]) for n, view in bound.arrays.items()}
    if out is not None:
        return _run_into(op, site, functools.partial(site.executable.run, operands, bound.scalars), out)
    versions = [_version(owner) for owner in owners]
    results = run(site, [operands[p.name] for p in bound.program.tiles], sources, versions, bound.scalars)
    return _as_given(site, results)


def _owner(op: Op, bound: Call, name: str, owner: Any) -> Any:
    """What a gradient of an operand goes to: the Tensor that it is, in the order of the Program."""
    if not (mode.recording and isinstance(owner, Value) and owner._source is not None):
        return owner
    array, own = bound.arrays[name], as_real({"": owner._array})[""]
    if (array.dtype, array.size) != (own.dtype, own.size):
        raise ShapeError(
            f"{op.name}: {name} requires a gradient, so it needs the shape and dtype of what it "
            f"belongs to: {array.shape}, {array.dtype}"
        )
    return _in_order(owner, bound.given[name])


def _actual(view: np.ndarray, array: Any, seen: Seen) -> Any:
    """The operand that a view of an array's stand-in stands for."""
    if isinstance(array, np.ndarray):
        return view
    if is_complex_array(array):
        array = as_pairs(array)
    if array.dtype != view.dtype:
        array = call(convert, (Value.kind._make(array),), constants={"dtype": of_array(view)})[0]._array
    return storage.reshaped(seen.to_front(storage.broadcast(array, seen.shape)), view.shape)


def _ready(value: Any, name: str, op: Op, operands: Mapping[str, Any]) -> Any:
    """An operand as a Tensor, an array or None; a Python number is weakly typed."""
    if value is None or isinstance(value, Value):
        return value
    if isinstance(value, float) and not isinstance(value, np.generic):
        like = _float_dtype(operands.values())
        if like is not None:
            return np.asarray(value, like.numpy)
    return as_operand(value, name, op.name)


def _float_dtype(values: Any) -> DType | None:
    """The dtype in which the floating operands of a call meet."""
    common: DType | None = None
    for value in values:
        array = value._array if isinstance(value, Value) else value
        dtype = of_array(array) if isinstance(array, np.ndarray) else None
        if dtype is not None and dtype.is_float:
            common = dtype if common is None else promote(common, dtype)
    return common


__all__ = ["Leaf", "Site", "Value", "Version", "apply", "call", "run"]
