"""Convolutions and pools against torch: values and gradients, every option, every layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import tilewright as tw
from tests.support.checks import assert_close
from tilewright import kernels as K
from tilewright.errors import UserError
from tilewright.op.op import Call

Shape = tuple[int, ...]


def channels_last(x, weight, bias=None, **options):
    x, weight = x.movedim(-1, -3), weight.movedim(-1, -3)
    return F.conv2d(x, weight, bias, **options).movedim(-3, -1)


def depthwise(x, weight, bias=None, **options):
    return F.conv2d(x, weight[:, None], bias, groups=len(weight), **options)


def moded(x, weight, bias, padding, padding_mode):
    rows, columns = padding
    return F.conv2d(F.pad(x, (columns, columns, rows, rows), padding_mode), weight, bias)


def padding(x, padding, mode="constant", value=0.0):
    return F.pad(
        x, [n for pair in reversed(padding) for n in pair], mode, value if mode == "constant" else None
    )


def pool(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda x, window, **options: function(x, window, **options)


@dataclass(frozen=True)
class Against:
    """An op and torch's function for the same, on operands of these shapes."""

    op: tw.Op
    torch: Callable[..., torch.Tensor]
    shapes: tuple[Shape, ...]
    options: dict[str, Any] = field(default_factory=dict)
    tolerance: float = 64.0
    differentiable: bool = True

    def __str__(self) -> str:
        return " ".join(
            [self.op.name, *map(str, self.shapes), *(f"{k}={v}" for k, v in self.options.items())]
        )

    def operands(self, dtype: str) -> list[np.ndarray]:
        rng = np.random.default_rng(0)
        return [rng.standard_normal(shape).astype(dtype) for shape in self.shapes]

    @property
    def keywords(self) -> dict[str, Any]:
        return self.options

    def arguments(self, dtype: Any = np.float64) -> dict[str, np.ndarray]:
        """As a `tests.support.cases.Subject` has them."""
        return dict(zip([t.name for t in self.op.tiles], self.operands(dtype), strict=False))

    def call(self, arguments: dict[str, np.ndarray]) -> Call:
        return self.op.bind(self.op.arguments((), {**arguments, **self.options}))


CASES = [
    Against(K.conv1d, F.conv1d, ((2, 3, 23), (5, 3, 4), (5,)), {"stride": 2, "padding": 3, "dilation": 2}),
    Against(K.conv2d, F.conv2d, ((2, 3, 7, 13), (5, 3, 3, 2))),
    Against(K.conv2d, F.conv2d, ((2, 17, 11, 7), (19, 17, 3, 3), (19,)), {"padding": 1}),
    Against(
        K.conv2d, F.conv2d, ((2, 3, 9, 8), (5, 3, 3, 2), (5,)),
        {"stride": (2, 3), "padding": (1, 2), "dilation": (2, 1)},
    ),
    Against(K.conv2d, F.conv2d, ((2, 4, 6, 6), (3, 4, 1, 1))),
    Against(K.conv3d, F.conv3d, ((1, 2, 5, 4, 7), (3, 2, 2, 3, 3), (3,)), {"padding": 1}),
    Against(K.conv2d_channels_last, channels_last, ((2, 7, 6, 16), (5, 3, 3, 16), (5,)), {"padding": 1}),
    Against(K.depthwise_conv2d, depthwise, ((2, 5, 7, 19), (5, 3, 3), (5,)), {"stride": 2, "padding": 1}),
    Against(K.conv1d, F.conv1d, ((2, 6, 23), (9, 2, 4), (9,)), {"stride": 3, "padding": 2, "groups": 3}),
    Against(K.conv2d, F.conv2d, ((2, 6, 7, 9), (4, 3, 3, 2), (4,)), {"padding": (1, 0), "groups": 2}),
    Against(K.conv2d, F.conv2d, ((2, 6, 7, 9), (6, 1, 3, 3)), {"stride": 2, "padding": 1, "groups": 6}),
    Against(K.conv2d, F.conv2d, ((6, 7, 9), (12, 1, 3, 3), (12,)), {"dilation": 2, "groups": 6}),
    Against(K.conv2d, F.conv2d, ((2, 4, 5, 6), (3, 4, 2, 3)), {"padding": "same", "dilation": (2, 1)}),
    Against(K.conv3d, F.conv3d, ((1, 4, 5, 4, 7), (6, 2, 2, 3, 3), (6,)), {"padding": 1, "groups": 2}),
    Against(
        K.conv2d_channels_last, channels_last, ((2, 7, 6, 8), (6, 3, 3, 4), (6,)),
        {"padding": 1, "groups": 2},
    ),
    *(
        Against(
            K.conv2d, moded, ((2, 3, 5, 6), (4, 3, 3, 2), (4,)), {"padding": (2, 1), "padding_mode": mode}
        )
        for mode in ("reflect", "replicate", "circular")
    ),
    *(
        Against(op, padding, ((2, 3, *extents),), {"padding": pads, "mode": mode})
        for mode in ("constant", "reflect", "replicate", "circular")
        for op, extents, pads in (
            (K.pad1d, (5,), ((4, 3),)),
            (K.pad2d, (4, 5), ((1, 3), (2, 0))),
            (K.pad3d, (3, 4, 2), ((2, 1), (0, 3), (1, 1))),
        )
    ),
    Against(K.pad2d, padding, ((2, 3, 6, 5),), {"padding": ((-2, 1), (1, -1)), "value": 1.5}),
    Against(K.max_pool1d, pool(F.max_pool1d), ((2, 3, 19),), {"window": 3, "stride": 1, "dilation": 2}),
    Against(K.max_pool2d, pool(F.max_pool2d), ((2, 3, 8, 11),), {"window": 2}),
    Against(K.max_pool2d, pool(F.max_pool2d), ((2, 8, 11),), {"window": (3, 2), "stride": 2, "padding": 1}),
    Against(K.max_pool3d, pool(F.max_pool3d), ((1, 2, 4, 5, 6),), {"window": 2}),
    Against(K.avg_pool1d, pool(F.avg_pool1d), ((2, 3, 19),), {"window": 4, "padding": 1}),
    Against(K.avg_pool2d, pool(F.avg_pool2d), ((2, 3, 8, 11),), {"window": 3, "stride": 2, "padding": 1}),
    Against(
        K.avg_pool2d, pool(F.avg_pool2d), ((2, 3, 8, 11),),
        {"window": (3, 2), "padding": 1, "count_include_pad": False},
    ),
    Against(K.avg_pool3d, pool(F.avg_pool3d), ((1, 2, 4, 5, 6),), {"window": 2}),
]  # fmt: skip
MOST = pytest.mark.parametrize(
    "case",
    [
        pytest.param(c, marks=pytest.mark.exhaustive if number > 8 and number % 3 else ())
        for number, c in enumerate(CASES)
    ],
    ids=str,
)


def compare(case: Against, operands: list[np.ndarray]) -> None:
    tensors = [
        torch.tensor(np.ascontiguousarray(a), dtype=torch.float64, requires_grad=True) for a in operands
    ]
    expected = case.torch(*tensors, **case.options)
    assert_close(case.op(*operands, **case.options), expected.detach().numpy(), 64, str(case))
    cotangent = np.random.default_rng(1).standard_normal(tuple(expected.shape)).astype(operands[0].dtype)
    expected.backward(torch.tensor(cotangent, dtype=torch.float64))
    gradients = case.op.vjp(*operands, d_y=cotangent, **case.options)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    for mine, tensor in zip(gradients, tensors, strict=True):
        assert tensor.grad is not None
        assert_close(mine, tensor.grad.numpy(), 256, str(case), floor=1.0)


@MOST
@pytest.mark.parametrize("dtype", [pytest.param("float64", marks=pytest.mark.exhaustive), "float32"])
@pytest.mark.everyday(9)
def test_agrees_with_torch(case: Against, dtype: str):
    compare(case, case.operands(dtype))


def reversed_everywhere(a: np.ndarray) -> np.ndarray:
    return a[tuple(slice(None, None, -1) for _ in a.shape)]


def channels_innermost(a: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1) if a.ndim > 1 else a


def repeated(a: np.ndarray) -> np.ndarray:
    return np.broadcast_to(a[:1], a.shape)


@pytest.mark.parametrize("lay", [reversed_everywhere, channels_innermost, repeated])
@pytest.mark.parametrize("case", [CASES[2], pytest.param(CASES[10], marks=pytest.mark.exhaustive)], ids=str)
def test_layouts(case: Against, lay: Callable[[np.ndarray], np.ndarray]):
    compare(case, [lay(a) for a in case.operands("float64")])


@pytest.mark.parametrize("shapes", [((0, 3, 5, 5), (4, 3, 3, 3)), ((2, 3, 5, 5), (0, 3, 3, 3))], ids=str)
def test_nothing_to_do(shapes: tuple[Shape, Shape]):
    x, weight = (np.ones(shape, np.float32) for shape in shapes)
    assert K.conv2d(x, weight).shape == (shapes[0][0], shapes[1][0], 3, 3)


def test_channels_must_agree():
    with pytest.raises(UserError, match=r"\(groups c\) is 3 in x .* c = 2; it must be their product, 2"):
        K.conv2d(np.ones((1, 3, 5, 5)), np.ones((4, 2, 3, 3)))


def test_a_window_must_fit():
    with pytest.raises(UserError, match="'oh' would have"):
        K.conv2d(np.ones((1, 3, 2, 9)), np.ones((4, 3, 5, 3)))


@pytest.mark.parametrize("options", [{"stride": 0}, {"padding": -1}, {"dilation": (1, 2, 3)}], ids=str)
def test_wrong_steps_are_refused(options: dict[str, Any]):
    with pytest.raises(UserError, match=f"{next(iter(options))} is a whole number from"):
        K.conv2d(np.ones((1, 3, 5, 5)), np.ones((4, 3, 3, 3)), **options)


def test_a_stride_along_one_axis_of_windows_of_one_tap():
    """The phases of that stride are few, as taps are; some of them are a loop."""
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 3, 13, 33)), rng.standard_normal((32, 1, 1, 33))
    constants = {"stride": (2, 1), "padding": (1, 0)}
    d_y = rng.standard_normal(K.conv2d_channels_last(x, weight, **constants).shape)
    op = K.conv2d_channels_last.vjp
    found, wanted = (call(x, weight, np.zeros(32), d_y, **constants) for call in (op, op.reference))
    for mine, right in zip(found, wanted, strict=True):
        np.testing.assert_allclose(mine, right, rtol=1e-12, atol=1e-12)
