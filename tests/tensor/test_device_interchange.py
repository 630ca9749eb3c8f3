"""Device memory shared with other libraries without a copy: DLPack and the CUDA array interface."""

from __future__ import annotations

import gc

import ml_dtypes
import numpy as np
import pytest

import tilewright as tw
from tilewright.errors import ArgumentError, DerivativeError, DTypeError
from tilewright.runtime.cuda import dlpack
from tilewright.runtime.cuda.dlpack import _dtype

X = np.arange(12, dtype=np.float32).reshape(3, 4)


def address(x: tw.Tensor) -> int:
    return x.__cuda_array_interface__["data"][0]


class Lent:
    """Another library's array: it says where its memory is, and when it was asked."""

    def __init__(self, x: tw.Tensor, **changes: object):
        self.x = x
        self.__cuda_array_interface__ = {**x.__cuda_array_interface__, **changes}


class Capsules:
    """Another library's array that speaks DLPack."""

    def __init__(self, x: tw.Tensor):
        self.x, self.stream = x, None

    def __dlpack_device__(self):
        return self.x.__dlpack_device__()

    def __dlpack__(self, stream=None):
        self.stream = stream
        return self.x.__dlpack__(stream=stream)


@pytest.mark.parametrize(
    "dtype",
    [
        *(np.float64, np.float32, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn),
        *(ml_dtypes.float8_e5m2, np.int64, np.uint8, np.bool_, np.complex64),
    ],
)
def test_capsules_carry_every_dtype(device, dtype):
    x = tw.tensor(X.astype(dtype), device=device)
    y = tw.from_dlpack(Capsules(x))
    assert (y.dtype, y.shape, address(y)) == (x.dtype, x.shape, address(x))
    assert y.tolist() == x.tolist()


def test_capsules_show_views_as_they_lie(device):
    x = tw.tensor(X, device=device)
    for view in (x.T, x[1:, ::2], x[2], x[:0], x[1, 1]):
        y = tw.from_dlpack(view)
        assert y.stride() == view.stride() or not y.numel()
        assert y.tolist() == view.tolist()
    y = tw.from_dlpack(x)
    y[0, 0] = 100
    assert x[0, 0].item() == 100


def test_memory_lives_as_long_as_somebody_needs_it(device):
    before = len(dlpack._lent)
    live = tw.cuda.memory_stats().live_bytes
    x = tw.tensor(X, device=device)
    y = tw.from_dlpack(Capsules(x))
    del x
    gc.collect()
    assert len(dlpack._lent) == before + 1
    assert y.tolist() == X.tolist()
    del y
    gc.collect()
    assert len(dlpack._lent) == before
    assert tw.cuda.memory_stats().live_bytes == live


def test_capsules_that_nobody_takes_are_forgotten(device):
    before = len(dlpack._lent)
    capsule = tw.tensor(X, device=device).__dlpack__()
    assert len(dlpack._lent) == before + 1
    del capsule
    gc.collect()
    assert len(dlpack._lent) == before


def test_capsules_are_taken_once(device):
    capsule = tw.tensor(X, device=device).__dlpack__()

    class Twice:
        def __dlpack_device__(self):
            return 2, 0

        def __dlpack__(self, stream=None):
            return capsule

    assert tw.from_dlpack(Twice()).tolist() == X.tolist()
    with pytest.raises(ArgumentError, match="was used before"):
        tw.from_dlpack(Twice())


def test_the_consumers_stream_waits(device):
    side = tw.cuda.Stream()
    source = Capsules(tw.tensor(X, device=device) * 2)  # queued on the default stream
    with tw.cuda.stream(side):
        y = tw.from_dlpack(source)
        assert source.stream == side.handle
        assert (y + 1).tolist() == (X * 2 + 1).tolist()
    assert tw.from_dlpack(source).tolist() == (X * 2).tolist()
    assert source.stream == 1, "the legacy default stream, as DLPack counts"


def test_requests_that_cannot_be_met(device):
    x = tw.tensor(X, device=device)
    with pytest.raises(BufferError, match="lies on cuda:0"):
        x.__dlpack__(dl_device=(1, 0))
    with pytest.raises(DerivativeError, match=r"pass x\.detach\(\)"):
        x.requires_grad_().__dlpack__()
    with pytest.raises(DTypeError, match="cannot be a tensor"):
        _dtype(2, 8, 1)


def test_the_array_interface_shares_memory(device):
    x = tw.tensor(X, device=device)
    for view in (x, x.T, x[:, 1:]):
        y = tw.as_tensor(Lent(view))
        assert address(y) == address(view)
        assert y.tolist() == view.tolist()
    copy = tw.tensor(Lent(x))
    assert address(copy) != address(x)
    assert copy.device == device
    assert tw.tensor(Lent(x), device="cpu").device == "cpu"
    assert tw.as_tensor(Lent(x), dtype="float64").tolist() == X.tolist()


def test_what_the_array_interface_says_is_respected(device):
    x = tw.tensor(X, device=device)
    lent = tw.as_tensor(Lent(x, data=(address(x), True)))
    with pytest.raises(tw.errors.OverlapError, match="read-only"):
        lent.zero_()
    with pytest.raises(ArgumentError, match="mask"):
        tw.as_tensor(Lent(x, mask=x))
    with pytest.raises(ArgumentError, match="strides"):
        tw.as_tensor(Lent(x, shape=(2, 2), strides=(6, 4)))
    side = tw.cuda.Stream()
    with tw.cuda.stream(side):
        y = x * 3
    assert Lent(y).__cuda_array_interface__["stream"] == side.handle
    assert tw.as_tensor(Lent(y)).tolist() == (X * 3).tolist()


def test_tensors_on_the_cpu_have_no_device_memory():
    assert not hasattr(tw.ones(2), "__cuda_array_interface__")
    assert tw.ones(2).__dlpack_device__()[0] == 1
