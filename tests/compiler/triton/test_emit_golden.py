"""The text of one small kernel a family, kept in `tests/golden/triton` to be read in review."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

import tilewright as tw
from tests.compiler.triton.emit_cases import blend, columns, layer, normalise, product, soften, total, turn
from tests.support.indexing_ops import conv2d, embedding
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.triton.executable import source


def _operands(*shapes: tuple[int, ...], dtype: type = np.float32) -> tuple[np.ndarray, ...]:
    return tuple(np.empty(shape, dtype) for shape in shapes)


@tw.op
def recurrence(a: tw.Tile["n t"], b: tw.Tile["n t"], *, reverse=False):
    """h = a·h + b along t, and a sum that starts before each position."""

    def step(l, r):
        return l[0] * r[0], l[1] * r[0] + r[1]

    h = tw.scan(step, (tw.sigmoid(a), b), "t", reverse=reverse)[1]
    return tw.tanh(h), tw.cumsum(b, "t", reverse=reverse, exclusive=True)


KERNELS = {
    "pointwise": (blend, _operands((5, 7), (5, 7))),
    "transposed": (turn, _operands((32, 100), (100, 32))),
    "row": (soften, _operands((100, 300))),
    "looped_row": (soften, _operands((80, 100_000))),
    "column_reduction": (columns, _operands((100, 300))),
    "chunks_of_columns": (columns, _operands((16384, 64))),
    "chunks_of_rows": (normalise.vjp, _operands((100, 300), (300,), (100, 300))),
    "chunks_of_one_row": (total, _operands((300, 300))),
    "contraction": (layer, _operands((100, 64), (50, 64), (50,))),
    "half_contraction": (product, _operands((128, 128), (128, 128), dtype=np.float16)),
    "float8_contraction": (
        product,
        (
            *_operands((60, 128), dtype=ml_dtypes.float8_e4m3fn),
            *_operands((128, 60), dtype=ml_dtypes.float8_e4m3fn),
        ),
    ),
    "scan": (recurrence, _operands((100, 300), (100, 300)), {"reverse": True}),
    "looped_scan": (recurrence, _operands((4, 100_000), (4, 100_000))),
    "convolution": (conv2d, _operands((2, 16, 30, 30), (32, 16, 3, 3)), {"stride": 2, "pad": 1}),
    "convolution_backward": (
        conv2d.vjp,
        _operands((2, 16, 30, 30), (32, 16, 3, 3), (2, 32, 15, 15)),
        {"stride": 2, "pad": 1},
    ),
    "embedding": (embedding, (*_operands((50, 40)), np.zeros((6, 7), np.int64))),
    "embedding_backward": (
        embedding.vjp,
        (*_operands((50, 40)), np.zeros((6, 7), np.int64), *_operands((6, 7, 40))),
    ),
}


@pytest.mark.parametrize("name", KERNELS)
def test_golden(name: str, golden: Callable[[str, str], None]):
    op, operands, *constants = KERNELS[name]
    call = op.bind(op.arguments(operands, constants[0] if constants else {}))
    texts = source(lower(call.program), call.arrays)
    golden(f"triton/{name}.py.txt", "\n\n".join(texts.values()))
