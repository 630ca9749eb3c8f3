"""Tensor: an array with operators that run generated kernels, and a place on the tape."""

from __future__ import annotations

import builtins
import operator
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tilewright.autograd import tape
from tilewright.autograd.tape import HookHandle, Leaf, Source, mode
from tilewright.dsl import dtypes
from tilewright.dsl.dtypes import DType, stored
from tilewright.errors import (
    ArgumentError,
    DerivativeError,
    DeviceError,
    DTypeError,
    OverlapError,
    ShapeError,
)
from tilewright.op import storage
from tilewright.op.binding import where as whose
from tilewright.runtime.devices import Array
from tilewright.tensor import joining, operators
from tilewright.tensor.exchange import Exchange
from tilewright.tensor.indexing import as_arrays, assign, basic_index, selected, sliced, taken, write
from tilewright.tensor.operators import along, convert, pointwise, reduce
from tilewright.tensor.record import Value, Version, apply, apply_to_operands
from tilewright.tensor.views import Copy, Permute, Reshape, apply_view

Shape = tuple[int, ...]
Dim = int | Sequence[int] | None


class TensorLeaf(Leaf):
    """The end of the tape at an independent variable: where its gradient adds up."""

    __slots__ = ("grad",)

    def __init__(self) -> None:
        super().__init__()
        self.grad: Tensor | None = None

    def accumulate(self, gradient: Any, fresh: bool, record: bool) -> None:
        if record:
            self.grad = gradient if self.grad is None else self.grad + gradient
            return
        if self.grad is None:
            own = fresh and gradient.flags.c_contiguous
            self.grad = Tensor._make(gradient if own else storage.copied(gradient))
            return
        before = self.grad
        total = pointwise("add", before.detach(), Tensor._make(gradient))._array
        if before.requires_grad or not (before._array.flags.writeable and before._array.flags.c_contiguous):
            self.grad = Tensor._make(total)
            return
        storage.write(before._array, total)
        before._version.count += 1


class _Gradients:
    """How the tape adds gradients, which are arrays, or Tensors while the backward is recorded."""

    def add(self, first: Any, second: Any) -> Any:
        if isinstance(first, Tensor):
            return first + second
        return pointwise("add", Tensor._make(first), Tensor._make(second))._array

    def shown(self, gradient: Any) -> Tensor:
        return gradient if isinstance(gradient, Tensor) else Tensor._make(gradient)

    def taken(self, gradient: Any, like: Any) -> Any:
        wanted = like._array if isinstance(like, Tensor) else like
        if (
            not isinstance(gradient, Tensor)
            or gradient.shape != wanted.shape
            or gradient._array.dtype != wanted.dtype
        ):
            raise ArgumentError(
                f"a gradient hook returns None or a Tensor of the gradient's shape {wanted.shape} and dtype "
                f"{wanted.dtype}, not {_described(gradient)}"
            )
        return gradient if isinstance(like, Tensor) else gradient._array


GRADIENTS = _Gradients()


def _described(value: Any) -> str:
    if isinstance(value, Value):
        return f"a tensor of shape {value._array.shape} and dtype {value._array.dtype}"
    return f"a {type(value).__qualname__}"


class Tensor(Exchange):
    """An n-dimensional array whose operators run generated kernels and record what they do for `backward`.

    `Tensor(data)` copies; `tw.from_numpy(array)` shares. Results of views (`reshape`, `permute`, `x[1:]`,
    `expand`) share memory with their operand.
    """

    __slots__ = ()
    __array_priority__ = 1000
    __tilewright_apply__ = staticmethod(apply)
    __tilewright_call__ = staticmethod(apply_to_operands)

    def __init__(self, data: Any, dtype: Any = None, requires_grad: bool = False, device: Any = None):
        from tilewright.tensor.creation import copied_to

        self._array = copied_to(data, dtype, device)
        self._version = Version()
        self._origin = None
        self._result = 0
        if requires_grad:
            self.requires_grad_()

    # --- what it is -----------------------------------------------------------------------------------------

    @property
    def shape(self) -> Shape:
        return self._array.shape

    @property
    def dtype(self) -> DType:
        dtype = stored(self._array)
        assert dtype is not None
        return dtype

    @property
    def ndim(self) -> int:
        return self._array.ndim

    @property
    def version(self) -> int:
        """How often the memory was written to in place."""
        return self._version.count

    def size(self, dim: int | None = None) -> Any:
        return self._array.shape if dim is None else self._array.shape[dim]

    def dim(self) -> int:
        return self._array.ndim

    def numel(self) -> int:
        return self._array.size

    def stride(self) -> Shape:
        """Strides in elements."""
        return tuple(s // self._array.itemsize for s in self._array.strides)

    def is_contiguous(self) -> bool:
        return self._array.flags.c_contiguous

    # --- the tape -------------------------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        return self._origin is not None

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        self.requires_grad_(wanted)

    def requires_grad_(self, wanted: bool = True) -> Tensor:
        """Make this tensor an independent variable of gradients, or a constant. Raises `DTypeError` for
        integers.
        """
        if wanted and self._origin is None:
            if not (self.dtype.is_float or self.dtype.is_complex):
                raise DTypeError(
                    f"{whose('requires_grad_')}: only floating-point tensors have gradients, this one is "
                    f"{self.dtype.name}; convert it first: x.float()"
                )
            self._origin, self._result = TensorLeaf(), 0
        elif not wanted and self._origin is not None:
            if not self.is_leaf:
                raise DerivativeError("only a leaf's requires_grad can be switched off; use y.detach()")
            self._origin = None
        return self

    @property
    def is_leaf(self) -> bool:
        return self._origin is None or isinstance(self._origin, Leaf)

    @property
    def grad_fn(self) -> Any:
        """The recorded call that made this tensor; None for a leaf."""
        return None if self.is_leaf else self._origin

    @property
    def grad(self) -> Tensor | None:
        """The gradient that `backward` brought here."""
        if isinstance(self._origin, TensorLeaf):
            return self._origin.grad
        return getattr(self, "_retained", None)

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None and (not isinstance(value, Tensor) or value.shape != self.shape):
            raise ShapeError(f"grad is None or a Tensor of shape {self.shape}, not {_described(value)}")
        if value is not None and value.device != self.device:
            raise DeviceError(
                f"grad lies where the tensor does, on {self.device}, not on {value.device}; write "
                f'grad.to("{self.device}")'
            )
        if value is not None and value.dtype != self.dtype:
            raise DTypeError(f"grad has the tensor's dtype {self.dtype.name}, not {value.dtype.name}")
        if not isinstance(self._origin, TensorLeaf):
            if value is None and not self.requires_grad:
                return
            raise DerivativeError("only a leaf that requires a gradient has a grad to set")
        self._origin.grad = value

    def retain_grad(self) -> None:
        """Keep the gradient of this result in `grad`, as a leaf does."""
        if self._origin is None:
            raise DerivativeError("retain_grad: this tensor does not require a gradient")
        if self.is_leaf:
            return
        own = weakref.ref(self)

        def keep(gradient: Tensor) -> None:
            tensor = own()
            if tensor is not None:
                tensor._retained = gradient

        self._origin.add_hook(self._result, keep)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> HookHandle:
        """Call `hook(gradient)` when the gradient of this tensor is known; what it returns replaces the
        gradient.
        """
        if self._origin is None:
            raise DerivativeError("register_hook: this tensor does not require a gradient")
        return self._origin.add_hook(self._result, hook)

    def backward(
        self, gradient: Any = None, retain_graph: bool | None = None, create_graph: bool = False
    ) -> None:
        """Add d self / d leaf (times `gradient`) to the `grad` of every leaf that requires one.

        Raises `DerivativeError` if nothing was recorded, if a result of more than one element is given no
        `gradient`, or if the saved values are freed or overwritten.
        """
        root = start_of(self, gradient, "backward", create_graph)
        retain = create_graph if retain_graph is None else retain_graph
        with tape.set_grad_enabled(create_graph):
            tape.accumulate([root], GRADIENTS, record=create_graph, retain=retain)

    def detach(self) -> Tensor:
        """The same memory, without the tape."""
        return Tensor._make(self._array, self._version)

    @property
    def data(self) -> Tensor:
        return self.detach()

    # --- as a sequence ------------------------------------------------------------------------------------

    def __len__(self) -> int:
        if not self.ndim:
            raise ShapeError("a tensor of no dimensions has no length")
        return self._array.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[position] for position in range(len(self)))

    __hash__ = object.__hash__

    # --- dtypes ---------------------------------------------------------------------------------------------

    # fmt: off
    def astype(self, dtype: Any) -> Tensor: return convert(self, dtype)
    def type_as(self, other: Tensor) -> Tensor: return convert(self, other.dtype)
    def double(self) -> Tensor: return convert(self, dtypes.float64)
    def float(self) -> Tensor: return convert(self, dtypes.float32)
    def half(self) -> Tensor: return convert(self, dtypes.float16)
    def bfloat16(self) -> Tensor: return convert(self, dtypes.bfloat16)
    def long(self) -> Tensor: return convert(self, dtypes.int64)
    def int(self) -> Tensor: return convert(self, dtypes.int32)
    def bool(self) -> Tensor: return convert(self, dtypes.bool_)

    # --- parts of complex numbers ---------------------------------------------------------------------------

    @property
    def real(self) -> Tensor: return operators.parts("real", self)
    @property
    def imag(self) -> Tensor: return operators.parts("imag", self)
    def conj(self) -> Tensor: return operators.parts("conj", self)
    def angle(self) -> Tensor: return operators.parts("angle", self)
    def is_complex(self) -> builtins.bool: return self.dtype.is_complex

    # --- operators ------------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Tensor: return pointwise("add", self, other)
    def __radd__(self, other: Any) -> Tensor: return pointwise("add", other, self)
    def __sub__(self, other: Any) -> Tensor: return pointwise("sub", self, other)
    def __rsub__(self, other: Any) -> Tensor: return pointwise("sub", other, self)
    def __mul__(self, other: Any) -> Tensor: return pointwise("mul", self, other)
    def __rmul__(self, other: Any) -> Tensor: return pointwise("mul", other, self)
    def __truediv__(self, other: Any) -> Tensor: return pointwise("div", self, other)
    def __rtruediv__(self, other: Any) -> Tensor: return pointwise("div", other, self)
    def __floordiv__(self, other: Any) -> Tensor: return pointwise("floordiv", self, other)
    def __rfloordiv__(self, other: Any) -> Tensor: return pointwise("floordiv", other, self)
    def __mod__(self, other: Any) -> Tensor: return pointwise("mod", self, other)
    def __rmod__(self, other: Any) -> Tensor: return pointwise("mod", other, self)
    def __pow__(self, other: Any) -> Tensor: return operators.power(self, other)
    def __rpow__(self, other: Any) -> Tensor: return operators.power(other, self)
    def __matmul__(self, other: Any) -> Tensor: return operators.matmul(self, other)
    def __rmatmul__(self, other: Any) -> Tensor: return operators.matmul(other, self)
    def __neg__(self) -> Tensor: return pointwise("neg", self)
    def __pos__(self) -> Tensor: return self
    def __abs__(self) -> Tensor: return pointwise("abs", self)
    def __invert__(self) -> Tensor: return pointwise("not", self)
    def __and__(self, other: Any) -> Tensor: return pointwise("and", self, other)
    def __rand__(self, other: Any) -> Tensor: return pointwise("and", other, self)
    def __or__(self, other: Any) -> Tensor: return pointwise("or", self, other)
    def __ror__(self, other: Any) -> Tensor: return pointwise("or", other, self)
    def __xor__(self, other: Any) -> Tensor: return pointwise("xor", self, other)
    def __rxor__(self, other: Any) -> Tensor: return pointwise("xor", other, self)
    def __lshift__(self, other: Any) -> Tensor: return pointwise("shl", self, other)
    def __rlshift__(self, other: Any) -> Tensor: return pointwise("shl", other, self)
    def __rshift__(self, other: Any) -> Tensor: return pointwise("shr", self, other)
    def __rrshift__(self, other: Any) -> Tensor: return pointwise("shr", other, self)
    def __eq__(self, other: Any) -> Any: return _compared("eq", self, other)
    def __ne__(self, other: Any) -> Any: return _compared("ne", self, other)
    def __lt__(self, other: Any) -> Tensor: return pointwise("lt", self, other)
    def __le__(self, other: Any) -> Tensor: return pointwise("le", self, other)
    def __gt__(self, other: Any) -> Tensor: return pointwise("gt", self, other)
    def __ge__(self, other: Any) -> Tensor: return pointwise("ge", self, other)

    def add(self, other: Any) -> Tensor: return self + other
    def sub(self, other: Any) -> Tensor: return self - other
    def mul(self, other: Any) -> Tensor: return self * other
    def div(self, other: Any) -> Tensor: return self / other
    def pow(self, exponent: Any) -> Tensor: return operators.power(self, exponent)
    def matmul(self, other: Any) -> Tensor: return operators.matmul(self, other)
    def dot(self, other: Any) -> Tensor: return operators.matmul(self, other)
    def eq(self, other: Any) -> Tensor: return pointwise("eq", self, other)
    def ne(self, other: Any) -> Tensor: return pointwise("ne", self, other)
    def minimum(self, other: Any) -> Tensor: return pointwise("minimum", self, other)
    def maximum(self, other: Any) -> Tensor: return pointwise("maximum", self, other)
    def atan2(self, other: Any) -> Tensor: return pointwise("atan2", self, other)
    def where(self, condition: Any, other: Any) -> Tensor: return pointwise("where", condition, self, other)
    def masked_fill(self, mask: Any, value: Any) -> Tensor: return pointwise("where", mask, value, self)
    def abs(self) -> Tensor: return pointwise("abs", self)
    def neg(self) -> Tensor: return pointwise("neg", self)
    def sign(self) -> Tensor: return pointwise("sign", self)
    def square(self) -> Tensor: return operators.power(self, 2)
    def reciprocal(self) -> Tensor: return 1 / self
    def exp(self) -> Tensor: return pointwise("exp", self)
    def exp2(self) -> Tensor: return pointwise("exp2", self)
    def expm1(self) -> Tensor: return pointwise("expm1", self)
    def log(self) -> Tensor: return pointwise("log", self)
    def log2(self) -> Tensor: return pointwise("log2", self)
    def log1p(self) -> Tensor: return pointwise("log1p", self)
    def sqrt(self) -> Tensor: return pointwise("sqrt", self)
    def rsqrt(self) -> Tensor: return pointwise("rsqrt", self)
    def sin(self) -> Tensor: return pointwise("sin", self)
    def cos(self) -> Tensor: return pointwise("cos", self)
    def tan(self) -> Tensor: return pointwise("tan", self)
    def asin(self) -> Tensor: return pointwise("asin", self)
    def acos(self) -> Tensor: return pointwise("acos", self)
    def atan(self) -> Tensor: return pointwise("atan", self)
    def sinh(self) -> Tensor: return pointwise("sinh", self)
    def cosh(self) -> Tensor: return pointwise("cosh", self)
    def tanh(self) -> Tensor: return pointwise("tanh", self)
    def asinh(self) -> Tensor: return pointwise("asinh", self)
    def acosh(self) -> Tensor: return pointwise("acosh", self)
    def atanh(self) -> Tensor: return pointwise("atanh", self)
    def erf(self) -> Tensor: return pointwise("erf", self)
    def erfc(self) -> Tensor: return pointwise("erfc", self)
    def lgamma(self) -> Tensor: return pointwise("lgamma", self)
    def digamma(self) -> Tensor: return pointwise("digamma", self)
    def sigmoid(self) -> Tensor: return pointwise("sigmoid", self)
    def relu(self) -> Tensor: return pointwise("where", self <= 0, 0, self)
    def floor(self) -> Tensor: return pointwise("floor", self)
    def ceil(self) -> Tensor: return pointwise("ceil", self)
    def round(self) -> Tensor: return pointwise("round", self)
    def trunc(self) -> Tensor: return pointwise("trunc", self)
    def isnan(self) -> Tensor: return pointwise("isnan", self)
    def isinf(self) -> Tensor: return pointwise("isinf", self)
    def isfinite(self) -> Tensor: return pointwise("isfinite", self)
    # fmt: on

    def clip(self, min: Any = None, max: Any = None) -> Tensor:
        """min(max(x, min), max); NaN stays NaN."""
        result = self if min is None else pointwise("maximum", self, min)
        return result if max is None else pointwise("minimum", result, max)

    clamp = clip

    # --- reductions -----------------------------------------------------------------------------------------

    # `axis` is NumPy's name for `dim`.

    # fmt: off
    def sum(self, dim: Dim = None, keepdim: Any = False, *, axis: Dim = None) -> Tensor:
        return reduce("sum", self, dim if axis is None else axis, keepdim)
    def prod(self, dim: Dim = None, keepdim: Any = False, *, axis: Dim = None) -> Tensor:
        return reduce("prod", self, dim if axis is None else axis, keepdim)
    def mean(self, dim: Dim = None, keepdim: Any = False, *, axis: Dim = None) -> Tensor:
        return reduce("mean", self, dim if axis is None else axis, keepdim)
    def max(self, dim: Dim = None, keepdim: Any = False, *, axis: Dim = None) -> Tensor:
        return reduce("max", self, dim if axis is None else axis, keepdim)
    def min(self, dim: Dim = None, keepdim: Any = False, *, axis: Dim = None) -> Tensor:
        return reduce("min", self, dim if axis is None else axis, keepdim)
    def any(self, dim: Dim = None, keepdim: Any = False, *, axis: Dim = None) -> Tensor:
        return reduce("any", self, dim if axis is None else axis, keepdim)
    def all(self, dim: Dim = None, keepdim: Any = False, *, axis: Dim = None) -> Tensor:
        return reduce("all", self, dim if axis is None else axis, keepdim)
    def logsumexp(self, dim: Dim = None, keepdim: Any = False, *, axis: Dim = None) -> Tensor:
        return reduce("logsumexp", self, dim if axis is None else axis, keepdim)
    # fmt: on

    def var(self, dim: Dim = None, keepdim: Any = False, *, correction: Any = 0, axis: Dim = None) -> Tensor:
        """Σ (x - mean)² / (n - correction) over `dim`; correction=1 for a sample's estimate."""
        return reduce("var", self, dim if axis is None else axis, keepdim, correction=correction)

    def std(self, dim: Dim = None, keepdim: Any = False, *, correction: Any = 0, axis: Dim = None) -> Tensor:
        """√var(x)."""
        return self.var(dim, keepdim, correction=correction, axis=axis).sqrt()

    def argmax(self, dim: Any = None, keepdim: Any = False, *, axis: Any = None) -> Tensor:
        """The first position of the largest value (of the first NaN, if any), along `dim` or of all."""
        return operators.argument("argmax", self, dim if axis is None else axis, keepdim)

    def argmin(self, dim: Any = None, keepdim: Any = False, *, axis: Any = None) -> Tensor:
        """The first position of the smallest value (of the first NaN, if any), along `dim` or of all."""
        return operators.argument("argmin", self, dim if axis is None else axis, keepdim)

    # --- along one dimension --------------------------------------------------------------------------------

    # fmt: off
    def cumsum(self, dim: Any = None, *, axis: Any = None, reverse: Any = False) -> Tensor:
        return along("cumsum", self, dim if axis is None else axis, reverse=reverse)
    def cumprod(self, dim: Any = None, *, axis: Any = None, reverse: Any = False) -> Tensor:
        return along("cumprod", self, dim if axis is None else axis, reverse=reverse)
    def cummax(self, dim: Any = None, *, axis: Any = None, reverse: Any = False) -> Tensor:
        return along("cummax", self, dim if axis is None else axis, reverse=reverse)
    def cummin(self, dim: Any = None, *, axis: Any = None, reverse: Any = False) -> Tensor:
        return along("cummin", self, dim if axis is None else axis, reverse=reverse)
    def logcumsumexp(self, dim: Any = None, *, axis: Any = None, reverse: Any = False) -> Tensor:
        return along("logcumsumexp", self, dim if axis is None else axis, reverse=reverse)
    # fmt: on

    def argsort(self, dim: Any = -1, *, descending: Any = False) -> Tensor:
        """The positions along `dim` in the order of their values; equal values keep their order."""
        return along("argsort", self, dim, descending=descending)

    def sort(self, dim: Any = -1, *, descending: Any = False) -> Tensor:
        """The values along `dim` in order; `argsort` says where they stood."""
        return along("sort", self, dim, descending=descending)

    def topk(self, k: Any, dim: Any = -1, *, largest: Any = True) -> tuple[Tensor, Tensor]:
        """The k largest values along `dim`, best first, and where they stood."""
        return along("topk", self, dim, k=k, largest=largest)

    def median(self, dim: Any = None, keepdim: Any = False) -> Tensor:
        """The middle value along `dim`, or of all: the lower of two, NaN if there is one."""
        return along("median", self, dim, keepdim)

    # --- views ----------------------------------------------------------------------------------------------

    def reshape(self, *shape: Any) -> Tensor:
        """The same elements in row-major order under another shape; a copy only where strides do not
        allow a view.
        """
        wanted = _shape(shape)
        return apply_view(self, Reshape(_without_unknown(wanted, self._array.size, self.shape)))

    def view(self, *shape: Any) -> Tensor:
        """`reshape` that never copies. Raises `ShapeError` where strides do not allow a view."""
        result = self.reshape(*shape)
        if result._version is not self._version:
            raise ShapeError(
                f"a tensor of shape {self.shape} and strides {self.stride()} cannot be viewed "
                f"as {result.shape} "
                f"without a copy; use reshape"
            )
        return result

    def flatten(self, start_dim: Any = 0, end_dim: Any = -1) -> Tensor:
        """The dimensions from `start_dim` to `end_dim` as one."""
        if not self.ndim:
            return self.reshape(1)
        first, last = _dim(start_dim, self.ndim), _dim(end_dim, self.ndim)
        merged = int(np.prod(self.shape[first : last + 1], dtype=np.int64))
        return self.reshape(*self.shape[:first], merged, *self.shape[last + 1 :])

    def unflatten(self, dim: Any, sizes: Any) -> Tensor:
        """The dimension `dim` as several; one of `sizes` may be -1: what is left over."""
        place = _dim(dim, self.ndim)
        inner = _without_unknown(_shape((sizes,)), self.shape[place], (self.shape[place],))
        return self.reshape(*self.shape[:place], *inner, *self.shape[place + 1 :])

    def permute(self, *dims: Any) -> Tensor:
        """The dimensions in another order."""
        axes = tuple(_dim(d, self.ndim) for d in _shape(dims))
        if sorted(axes) != list(range(self.ndim)):
            raise ShapeError(f"permute({axes}) does not name each of the {self.ndim} dimensions once")
        return apply_view(self, Permute(axes))

    def transpose(self, dim0: Any, dim1: Any) -> Tensor:
        """Two dimensions swapped."""
        axes = list(range(self.ndim))
        first, second = _dim(dim0, self.ndim), _dim(dim1, self.ndim)
        axes[first], axes[second] = second, first
        return apply_view(self, Permute(tuple(axes)))

    @property
    def T(self) -> Tensor:
        """All dimensions reversed."""
        return apply_view(self, Permute(tuple(reversed(range(self.ndim)))))

    @property
    def mT(self) -> Tensor:
        """The last two dimensions swapped."""
        return self.transpose(-1, -2)

    def squeeze(self, dim: Dim = None) -> Tensor:
        """Without dimensions of extent 1: all of them, or those that `dim` names."""
        given = range(self.ndim) if dim is None else (dim if isinstance(dim, (tuple, list)) else (dim,))
        drop = {d for d in (_dim(d, self.ndim) for d in given) if self.shape[d] == 1}  # type: ignore[union-attr]
        return apply_view(self, Reshape(tuple(e for d, e in enumerate(self.shape) if d not in drop)))

    def unsqueeze(self, dim: Any) -> Tensor:
        """With a new dimension of extent 1 at `dim`."""
        position = _dim(dim, self.ndim + 1)
        return apply_view(self, Reshape((*self.shape[:position], 1, *self.shape[position:])))

    def unbind(self, dim: Any = 0) -> tuple[Tensor, ...]:
        """x[0], x[1], … along `dim`, as views."""
        return joining.unbind(self, dim)

    def split(self, split_size: Any, dim: Any = 0) -> tuple[Tensor, ...]:
        """Views of `split_size` positions each along `dim`, or of the extents that it lists."""
        return joining.split(self, split_size, dim)

    def broadcast_to(self, *shape: Any) -> Tensor:
        """Repeated as NumPy broadcasts, without a copy."""
        return operators.broadcast_to(self, _shape(shape))

    def expand(self, *shape: Any) -> Tensor:
        """`broadcast_to` where -1 keeps an extent."""
        wanted = _shape(shape)
        missing = len(wanted) - self.ndim
        if any(e == -1 for e in wanted[: max(0, missing)]):
            raise ShapeError(f"expand{wanted}: a new leading dimension needs its extent, not -1")
        return self.broadcast_to(
            tuple(self.shape[d - missing] if e == -1 else e for d, e in enumerate(wanted))
        )

    def clone(self) -> Tensor:
        """A copy in memory of its own (differentiable)."""
        return apply_view(self, Copy())

    def contiguous(self) -> Tensor:
        return self if self.is_contiguous() else self.clone()

    def __getitem__(self, index: Any) -> Tensor:
        plain = basic_index(index, self.ndim)
        if plain is not None:
            return apply_view(self, sliced(plain, self.shape))
        if self.requires_grad and mode.recording:
            return selected(self, index)
        if isinstance(self._array, Array):
            return selected(self, index)
        return Tensor._make(taken(self._array, as_arrays(index)))

    # --- in place -------------------------------------------------------------------------------------------

    def __setitem__(self, index: Any, value: Any) -> None:
        self._writable("x[index] = value", value)
        assign(self._array, index, value._array if isinstance(value, Tensor) else value)
        self._version.count += 1

    def copy_(self, value: Any) -> Tensor:
        """Overwrite the elements with those of `value`, broadcast and converted."""
        self._writable("copy_", value)
        write(self._array, value._array if isinstance(value, Tensor) else value)
        self._version.count += 1
        return self

    def fill_(self, value: Any) -> Tensor:
        return self.copy_(value)

    def zero_(self) -> Tensor:
        return self.copy_(0)

    # fmt: off
    def add_(self, other: Any, alpha: Any = 1) -> Tensor:
        return self._update("add_", other, lambda x, y: x + (y if alpha == 1 else y * alpha))
    def sub_(self, other: Any, alpha: Any = 1) -> Tensor:
        return self._update("sub_", other, lambda x, y: x - (y if alpha == 1 else y * alpha))
    def mul_(self, other: Any) -> Tensor: return self._update("mul_", other, lambda x, y: x * y)
    def div_(self, other: Any) -> Tensor: return self._update("div_", other, lambda x, y: x / y)
    def __iadd__(self, other: Any) -> Any: return self._assigned("+=", other, operator.add)
    def __isub__(self, other: Any) -> Any: return self._assigned("-=", other, operator.sub)
    def __imul__(self, other: Any) -> Any: return self._assigned("*=", other, operator.mul)
    def __itruediv__(self, other: Any) -> Any: return self._assigned("/=", other, operator.truediv)
    def __ipow__(self, other: Any) -> Any: return self._assigned("**=", other, operator.pow)
    # fmt: on

    def clamp_(self, min: Any = None, max: Any = None) -> Tensor:
        return self._update("clamp_", None, lambda x, _: x.clip(min, max))

    def _assigned(self, sign: str, other: Any, compute: Callable[[Any, Any], Any]) -> Any:
        """`x += y`: in place, as NumPy has it; behind the tape's back nothing is, there x becomes x + y."""
        recorded = self.requires_grad or (isinstance(other, Tensor) and other.requires_grad)
        if mode.recording and recorded:
            return compute(self, other)
        return self._update(f"x {sign} y", other, compute)

    def _update(self, what: str, other: Any, compute: Callable[[Tensor, Any], Tensor]) -> Tensor:
        self._writable(what, other)
        result = compute(self.detach(), other.detach() if isinstance(other, Tensor) else other)
        if result.shape != self.shape:
            raise ShapeError(f"{what}: the result has shape {result.shape}, the tensor {self.shape}")
        if result.dtype.is_float and not self.dtype.is_float:
            raise DTypeError(f"{what}: a {result.dtype.name} result does not fit a {self.dtype.name} tensor")
        return self.copy_(convert(result, self.dtype))

    def _writable(self, what: str, value: Any) -> None:
        if mode.recording and (self.requires_grad or (isinstance(value, Tensor) and value.requires_grad)):
            raise DerivativeError(
                f"{what} would change a tensor behind the tape's back; write x = x + y instead "
                "of x.add_(y), or put "
                f"it under `with tw.no_grad():` if no gradient is to pass"
            )
        if not self._array.flags.writeable:
            raise OverlapError(
                f"{what}: this tensor's memory is read-only or repeated (an expanded view); "
                "write to x.clone()"
            )


Value.kind = Tensor


def _compared(row: str, first: Any, second: Any) -> Any:
    if second is None or isinstance(second, str):
        return NotImplemented
    return pointwise(row, first, second)


def start_of(output: Tensor, gradient: Any, what: str, record: bool) -> tuple[Source, Any]:
    """Where a backward starts: the source of an output and its gradient, checked."""
    if output._origin is None:
        raise DerivativeError(
            f"{what}: this tensor was not recorded, so it has no gradient; no operand required "
            "one (requires_grad), "
            f"or it was computed under no_grad, detached, or is integer"
        )
    if gradient is None:
        if output._array.size != 1:
            raise DerivativeError(
                f"{what}: a tensor of shape {output.shape} needs the gradient to start from; "
                "reduce it to one number, as "
                f"in loss.sum(), or pass one of its shape"
            )
        if output._array.dtype.kind == "c":
            raise DerivativeError(
                f"{what}: a gradient is that of a real number, this one is {output.dtype.name}; take its "
                f"real, imag or abs(), or pass the gradient to start from"
            )
        ones = storage.filled(output._array.shape, 1, output._array.dtype, output.device)
        return (output._origin, output._result), Tensor._make(ones) if record else ones
    value = gradient if isinstance(gradient, Tensor) else Tensor._make(_beside(output, np.asarray(gradient)))
    if value.device != output.device:
        raise DeviceError(
            f"{what}: the gradient lies on {value.device}, the tensor on {output.device}; write "
            f'gradient.to("{output.device}")'
        )
    if value.shape != output.shape:
        raise ShapeError(f"{what}: the gradient has shape {value.shape}, the tensor {output.shape}")
    value = convert(value, output.dtype)
    return (output._origin, output._result), value if record else value._array


def _beside(tensor: Tensor, array: np.ndarray) -> Any:
    return storage.moved(array, tensor.device)


# --- shapes and indices -----------------------------------------------------------------------------------


def _shape(given: tuple[Any, ...]) -> Shape:
    """A shape that is passed as one tuple or as several integers."""
    shape = given[0] if len(given) == 1 and isinstance(given[0], (tuple, list)) else given
    try:
        return tuple(e.__index__() for e in shape)
    except (AttributeError, TypeError):
        raise ArgumentError(f"shapes and dimensions are integers, got {shape!r}") from None


def _without_unknown(shape: Shape, size: int, before: Shape) -> Shape:
    known = 1
    for extent in shape:
        known *= extent if extent != -1 else 1
    if shape.count(-1) == 1 and known > 0 and size % known == 0:
        shape = tuple(size // known if e == -1 else e for e in shape)
        known = size
    if known != size or any(e < 0 for e in shape):
        raise ShapeError(
            f"{whose('reshape')}: {size} elements of shape {before} do not fit the shape {shape}"
        )
    return shape


def _dim(dim: Any, rank: int) -> int:
    if not isinstance(dim, (int, np.integer)) or not -rank <= dim < rank:
        raise ShapeError(f"there is no dimension {dim!r} in a tensor of {rank} dimensions")
    return int(dim) % rank
