"""Ops whose operands are those of their Program: calls are brought to its shapes, and remembered.

What the shapes, strides, dtypes and constants of a call decide is its *layout*, worked out once; a warm call
looks it up and enters the kernels.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright.compiler.pipeline import Run
from tilewright.dsl.axes import TileSpec
from tilewright.dsl.extents import result_shapes
from tilewright.dsl.program import Program
from tilewright.errors import MemoryLimitError, TargetError
from tilewright.op import outputs
from tilewright.op.binding import Binding, as_operands, bind, check_dtype
from tilewright.op.op import Arguments, Arrays, Call, Defaults, Op, Shape, constants_key
from tilewright.op.seen import Seen
from tilewright.runtime.recent import Recent

MAX_LAYOUTS = 1024  # that an op remembers


@dataclass
class Layout:
    """What a call's shapes, strides, dtypes and constants decide.

    views: for each operand of the Program the argument that it is, and the shape to see that in unless it has
    it. shapes, expected: of the results, in the Program and as a user has them.
    """

    program: Program
    binding: Binding
    views: tuple[tuple[int, Shape | None], ...]
    given: Mapping[str, Shape]
    shapes: tuple[Shape, ...]
    expected: tuple[Shape, ...]
    run: Run | None = None

    @functools.cached_property
    def is_plain(self) -> bool:
        """Whether the results of the Program are those that the user gets."""
        return self.shapes == self.expected and not any(map(outputs.is_complex, self.program.results))

    def takes(self, out: np.ndarray) -> bool:
        """Whether the one result may be written to an array as it is."""
        if self.only is None or out.shape != self.expected[0] or out.dtype != self.only:
            return False
        flags = out.flags
        return flags.c_contiguous and flags.writeable

    @functools.cached_property
    def only(self) -> np.dtype | None:
        """NumPy's dtype of the one result; None if there are several, or halves of complex numbers."""
        first, *more = self.program.results
        return None if more or outputs.is_complex(first) else first.dtype.numpy

    def operands(self, arrays: Sequence[Any]) -> list[np.ndarray]:
        """The operands as the Program has them."""
        return [arrays[n] if shape is None else arrays[n].reshape(shape) for n, shape in self.views]


class DirectOp(Op):
    """An op that has a Program for all operands of certain dtypes and batch axes.

    `results` are the axes that results are annotated with, if they are.
    """

    results: Sequence[TileSpec] = ()

    def __init__(self) -> None:
        super().__init__()
        self._layouts: Recent[tuple, Layout] = Recent(MAX_LAYOUTS)

    def program(self, binding: Binding, constants: Mapping[str, Any]) -> Program:
        """The Program for operands of these dtypes and batch axes."""
        raise NotImplementedError

    def __call__(self, *tiles: Any, **keywords: Any) -> Any:
        if keywords:
            if (out := keywords.get("out")) is not None and len(keywords) == 1 and self._into(tiles, out):
                return out
            in_order = self._in_order(tiles, keywords)
            if in_order is None:
                return super().__call__(*tiles, **keywords)
            tiles = in_order
        if not tiles:
            return super().__call__()
        kind = type(tiles[0])
        if kind is not np.ndarray:
            take_over = getattr(kind, "__tilewright_call__", None)
            plain = take_over is not None and self._plain is not None and len(tiles) == len(self.tiles)
            return take_over(self, tiles) if plain else super().__call__(*tiles)  # type: ignore[misc]
        layout = self._layouts.get(self._key(tiles, self._defaults_key))
        if layout is None:
            return super().__call__(*tiles)
        results = self._compute(layout, tiles, self.default_scalars)
        return results[0] if len(results) == 1 else results

    def _into(self, tiles: Sequence[Any], out: Any) -> bool:
        """Whether a call like ones before could write its one result to `out`, in which nothing was amiss."""
        if not self._out_is_free or type(out) is not np.ndarray:
            return False
        layout = self._layouts.get(self._key(tiles, self._defaults_key))
        if layout is None or layout.run is None or not layout.takes(out):
            return False
        try:
            layout.run(layout.operands(tiles), self.default_scalars, (out.reshape(layout.shapes[0]),))
        except (TargetError, MemoryLimitError) as error:
            raise outputs.named(self.name, error) from None
        return True

    def _in_order(self, tiles: Sequence[Any], keywords: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """All operands in their order, if keywords name what is left of them and nothing else."""
        left = self._tile_names[len(tiles) :]
        if len(left) != len(keywords):
            return None
        try:
            return (*tiles, *[keywords[name] for name in left])
        except KeyError:
            return None

    def bind(self, arguments: Arguments) -> Call:
        arrays = tuple(as_operands(arguments.tiles, self.name).values())
        layout = self._layout(arrays, arguments.constants)
        views = dict(zip(layout.given, layout.operands(arrays), strict=True))
        owners = {name: name for name in layout.given}
        scalars = self._scalar_values(arguments)
        given = {name: Seen(shape) for name, shape in layout.given.items()}
        return Call(layout.program, views, scalars, layout.binding, given, owners)

    def _bind(self, arguments: Arguments, further: dict[str, Any]) -> Call:
        return self.bind(arguments)

    def _run(self, arguments: Arguments, out: Any) -> Arrays:
        arrays = tuple(as_operands(arguments.tiles, self.name).values())
        layout = self._layout(arrays, arguments.constants)
        return self._compute(layout, arrays, self._scalar_values(arguments), out)

    def _compute(
        self, layout: Layout, arrays: Sequence[Any], scalars: Mapping[str, float | int], out: Any = None
    ) -> Arrays:
        operands = layout.operands(arrays)
        run = layout.run
        if run is None:
            run = layout.run = self.executable(layout.program).prepared(operands)
        if out is None and layout.is_plain:
            try:
                return run(operands, scalars)
            except (TargetError, MemoryLimitError) as error:
                raise outputs.named(self.name, error) from None
        prepared = functools.partial(run, operands, scalars)
        return outputs.results(self.name, layout.program, prepared, (layout.shapes, layout.expected), out)

    # --- layouts ----------------------------------------------------------------------------------

    def _key(self, arrays: Sequence[Any], constants: tuple) -> tuple:
        """What a call's layout is known by; none is known by a key of something that is no array."""
        key: list[Any] = []
        for array in arrays:
            if type(array) is np.ndarray:
                key += (array.shape, array.strides, array.dtype)
            else:
                key.append(None if array is None else type(array))
        missing = len(self.tiles) - len(arrays)
        return (*key, *(None,) * missing, *constants) if missing else (*key, *constants)

    @functools.cached_property
    def _defaults_key(self) -> tuple:
        """The constants of a call without keywords; something unknown if the op needs some."""
        return (object(),) if self._needed_keywords else constants_key(self.constants)

    @functools.cached_property
    def default_constants(self) -> Mapping[str, Any]:
        """The constants of a call without keywords; empty if the op needs some."""
        return Defaults({} if self._plain is None else self._plain[1])

    @functools.cached_property
    def default_scalars(self) -> Mapping[str, float | int]:
        """The scalars of a call without keywords."""
        return self._scalar_values(Arguments({}, dict(self.scalars), {}))

    def _layout(self, arrays: tuple[Any, ...], constants: Mapping[str, Any]) -> Layout:
        key = self._key(arrays, constants_key(constants))
        found = self._layouts.get(key)
        if found is None:
            found = self._layouts[key] = self._new_layout(arrays, constants)
        return found

    def _new_layout(self, arrays: tuple[Any, ...], constants: Mapping[str, Any]) -> Layout:
        named = dict(zip(self._tile_names, arrays, strict=True))
        for name, array in named.items():
            check_dtype(array, name, self.name)
        binding = bind(self.name, self.tiles, named, constants, self.results)
        program = self.program(binding, constants)
        needed = {p.name: binding.operands[p.name].shape for p in program.tiles}  # type: ignore[union-attr]
        given = {name: named[name].shape for name in needed}
        position = {name: n for n, name in enumerate(self._tile_names)}
        views = tuple((position[n], None if given[n] == shape else shape) for n, shape in needed.items())
        shapes = result_shapes(program, needed)
        expected = tuple(binding.user_shape(r.axes, s) for r, s in zip(program.results, shapes, strict=True))
        return Layout(program, binding, views, given, shapes, expected)
