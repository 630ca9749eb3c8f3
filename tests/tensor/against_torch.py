"""One computation run by tilewright and by torch, values and gradients compared."""

import ml_dtypes
import numpy as np
import torch

import tilewright as tw

RELATIVE = {"float64": 1e-12, "float32": 2e-5, "float16": 4e-3, "bfloat16": 3e-2}
DTYPES = tuple(RELATIVE)


def draw(shape, dtype="float64", seed=0, low=-2.0, high=2.0):
    values = np.random.default_rng(seed).uniform(low, high, shape)
    return values.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def to_torch(array, requires_grad=False):
    if array.dtype == ml_dtypes.bfloat16:
        tensor = torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    else:
        tensor = torch.from_numpy(array.copy())
    return tensor.requires_grad_(requires_grad)


def numbers(value):
    """A Tensor or torch tensor as float64 (or its own integers)."""
    if isinstance(value, torch.Tensor):
        value = value.detach()
        return (value.double() if value.is_floating_point() else value).numpy()
    array = value.detach().numpy() if isinstance(value, tw.Tensor) else np.asarray(value)
    return array if array.dtype.kind in "iub" else array.astype(np.float64)


def assert_close(ours, theirs, relative):
    ours, theirs = numbers(ours), numbers(theirs)
    assert ours.shape == theirs.shape
    scale = np.max(np.abs(theirs[np.isfinite(theirs)]), initial=1e-3)
    np.testing.assert_allclose(ours, theirs, rtol=relative, atol=relative * scale)


def compare(ours, theirs, *arrays, relative=None, gradient=True):
    """`ours(*tensors)` against `theirs(*torch tensors)`: the values, and the gradients."""
    dtype = next(str(a.dtype) for a in arrays if a.dtype.kind not in "iub")
    relative = relative or RELATIVE[dtype]
    floating = [a.dtype.kind not in "iub" for a in arrays]
    mine = [tw.tensor(a, requires_grad=gradient and f) for a, f in zip(arrays, floating, strict=True)]
    other = [to_torch(a, gradient and f) for a, f in zip(arrays, floating, strict=True)]
    y, z = ours(*mine), theirs(*other)
    assert str(y.dtype.name) == str(z.dtype).removeprefix("torch.")
    assert_close(y, z, relative)
    if not gradient:
        return
    cotangent = draw(y.shape, dtype, seed=9)
    y.backward(tw.tensor(cotangent))
    z.backward(to_torch(cotangent))
    for a, b in zip(mine, other, strict=True):
        if b.grad is not None:
            assert_close(a.grad, b.grad, relative)
