"""Updates: an op whose results are written over Tensors, again and again, as an optimizer's are.

All that a call with `out=` looks at (layouts, dtypes, what may be written where) is the same every time, but
for the gradients, which come in memory of their own. So the first call is an ordinary one, and later ones
enter its kernel as long as the Tensors have the arrays that they had.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tilewright.autograd.tape import mode
from tilewright.op.op import Op
from tilewright.runtime.addresses import address
from tilewright.runtime.choices import Choices, choices
from tilewright.tensor.record import Value, prepared_into


class Update:
    """`op(*operands, **keywords, out=out)`, where `keywords` are run-time scalars and constants."""

    __slots__ = ("_again", "_arrays", "_constants", "_made_for", "_operands", "_spans", "op")

    def __init__(self, op: Op):
        self.op = op
        self._again: Callable[..., None] | None = None
        self._arrays: list[np.ndarray] = []  # of the operands, then of what is written
        self._spans: list[tuple[int, int]] = []
        self._constants: Mapping[str, Any] = {}
        self._operands = 0
        self._made_for: Choices | None = None

    def __call__(
        self,
        operands: Sequence[Value],
        out: Sequence[Value],
        scalars: Mapping[str, float],
        constants: Mapping[str, Any],
    ) -> None:
        arrays = [value._array for value in (*operands, *out)]
        if self._again is not None and self._fits(arrays, scalars, constants):
            self._again(arrays[: self._operands], {**self.op.scalars, **scalars})
            for value in out:
                value._version.count += 1
            return
        self.op(*operands, **scalars, **constants, out=tuple(out))
        if all(type(array) is np.ndarray for array in arrays):
            self._prepare(operands, out, constants)

    def _fits(
        self, arrays: Sequence[np.ndarray], scalars: Mapping[str, float], constants: Mapping[str, Any]
    ) -> bool:
        """Whether this is the call that was prepared, but for operands that lie elsewhere."""
        if not all(type(number) in (int, float) for number in scalars.values()):
            return False
        if mode.recording or constants != self._constants or self._made_for != choices():
            return False
        for number, (array, before) in enumerate(zip(arrays, self._arrays, strict=True)):
            if array is before:
                continue
            if type(array) is not np.ndarray:
                return False
            if number >= self._operands or array.dtype != before.dtype or array.shape != before.shape:
                return False
            if not (array.flags.c_contiguous and before.flags.c_contiguous) or self._is_written(array):
                return False
        return True

    def _is_written(self, array: np.ndarray) -> bool:
        start = address(array)
        stop = start + array.nbytes
        return any(start < high and low < stop for low, high in self._spans)

    def _prepare(self, operands: Sequence[Value], out: Sequence[Value], constants: Mapping[str, Any]) -> None:
        """Remember a call that has just been made."""
        written = [value._array for value in out]
        self._again = prepared_into(self.op, operands, written, constants)
        self._arrays = [*(value._array for value in operands), *written]
        self._spans = [(address(array), address(array) + array.nbytes) for array in written]
        self._constants = dict(constants)
        self._operands = len(operands)
        self._made_for = choices()
