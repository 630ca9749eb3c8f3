"""Embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright import kernels
from tilewright.autograd.tape import no_grad
from tilewright.errors import ArgumentError, ShapeError
from tilewright.tensor.creation import as_tensor, beside
from tilewright.tensor.tensor import Tensor


def embedding(
    input: Any, weight: Tensor, padding_idx: int | None = None, max_norm: float | None = None,
    norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Tensor:  # fmt: skip
    """weight[input]; the row `padding_idx` gets no gradient. An index without a row gives NaN.

    With `max_norm` the rows that are read are first made as short as that in place, by their norm of order
    `norm_type`. `scale_grad_by_freq` divides the gradient of a row by how often it is read.
    """
    _dense(sparse)
    row = _row(padding_idx, weight)
    _shorten(weight, input, max_norm, norm_type)
    padding = None if row is None else weight.detach()[row]
    ids = beside(input, weight)
    table = _shared_by_uses(weight, ids) if scale_grad_by_freq else weight
    return kernels.embedding(table, ids, padding, padding_idx=row)


def embedding_bag(
    input: Any, weight: Tensor, offsets: Any = None, max_norm: float | None = None, norm_type: float = 2.0,
    scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False,
    per_sample_weights: Any = None, include_last_offset: bool = False, padding_idx: int | None = None,
) -> Tensor:  # fmt: skip
    """The sum, mean or max of the rows of each bag: bags of equal size [bag element], or, with `offsets`,

    one after the other in a vector, each from its offset on. Elements equal to `padding_idx` do not count.
    """
    _dense(sparse)
    ids, row = beside(input, weight), _row(padding_idx, weight)
    _shorten(weight, ids, max_norm, norm_type)
    if scale_grad_by_freq:
        if mode == "max":
            raise ArgumentError('scale_grad_by_freq is for the modes "sum" and "mean", not for "max"')
        weight = _shared_by_uses(weight, ids)
    options = {"mode": mode, "padding_idx": row}
    if ids.ndim == 2:
        if offsets is not None:
            raise ArgumentError("embedding_bag: offsets are for bags in a vector; a matrix has one bag a row")
        return kernels.embedding_bag(weight, ids, per_sample_weights, **options)
    if ids.ndim != 1 or offsets is None:
        raise ShapeError(
            f"embedding_bag: indices are a matrix of bags, or a vector with offsets; got shape {ids.shape}"
        )
    begins = beside(offsets, weight)
    begins = begins[:-1] if include_last_offset else begins
    return kernels.embedding_bag_ragged(weight, ids, begins, per_sample_weights, **options)


def _dense(sparse: bool) -> None:
    if sparse:
        raise ArgumentError(
            "gradients of embeddings are dense, there are no sparse Tensors; leave sparse out"
        )


def _shared_by_uses(weight: Tensor, ids: Tensor) -> Tensor:
    """`weight`, each row of which is given its gradient divided by how often it is read."""
    if not weight.requires_grad:
        return weight
    read = ids.detach().cpu().numpy().ravel()
    known = read[(read >= 0) & (read < weight.shape[0])]
    uses = np.maximum(np.bincount(known, minlength=weight.shape[0]), 1)[:, None]
    shared = weight[:]
    shared.register_hook(lambda gradient: gradient / beside(uses, gradient).to(gradient.dtype))
    return shared


def _shorten(weight: Tensor, input: Any, max_norm: float | None, norm_type: float) -> None:
    """Rows of `weight` that are read, in place: no longer than `max_norm`."""
    if max_norm is None:
        return
    rows = np.unique(as_tensor(input).cpu().numpy())
    rows = rows[(rows >= 0) & (rows < weight.shape[0])]
    with no_grad():
        weight[rows] = kernels.shortened(weight[rows], max_norm=float(max_norm), norm=float(norm_type))


def _row(index: int | None, weight: Tensor) -> int | None:
    rows = weight.shape[0]
    if index is not None and not -rows <= index < rows:
        raise ArgumentError(f"padding_idx {index} is none of the {rows} rows")
    return None if index is None else index % rows


def one_hot(input: Any, num_classes: int = -1) -> Tensor:
    """1 at the class, else 0, along a new last dimension; unless given, the largest is the last class."""
    ids = as_tensor(input)
    return kernels.one_hot(ids, classes=int(ids.max()) + 1 if num_classes < 0 else num_classes)
