"""Tensors on a device: that they hold, compute and differentiate what they do on the CPU."""

from __future__ import annotations

import copy
import pickle

import ml_dtypes
import numpy as np
import pytest

import tilewright as tw
from tilewright.errors import DerivativeError, DeviceError, OverlapError, ShapeError

RNG = np.random.default_rng(7)
X = RNG.standard_normal((3, 5)).astype(np.float32)
Y = RNG.standard_normal((3, 5)).astype(np.float32)
W = RNG.standard_normal((5, 4)).astype(np.float32)
IDS = np.array([2, 0, 2, 1])


def values(result) -> list[np.ndarray]:
    """The results of a case, on the CPU."""
    results = result if isinstance(result, (tuple, list)) else (result,)
    return [r.detach().cpu().numpy() if isinstance(r, tw.Tensor) else np.asarray(r) for r in results]


# --- what they hold ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype",
    [
        *(np.float64, np.float32, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn),
        *(ml_dtypes.float8_e5m2, np.int64, np.uint8, np.bool_, np.complex64),
    ],
)
def test_values_travel_there_and_back(device, dtype):
    whole = np.arange(24).reshape(2, 3, 4).astype(dtype)
    for array in (whole, whole.transpose(2, 0, 1), whole[:, ::-1], whole[:0], whole[1, 2, 3]):
        there = tw.tensor(np.asarray(array)).to(device)
        assert there.device == device
        assert there.shape == array.shape
        np.testing.assert_array_equal(there.cpu().numpy(), array)
        assert there.tolist() == array.tolist()


def test_to_names_devices_dtypes_and_tensors(device):
    x = tw.ones(3)
    assert x.to("cpu") is x
    there = x.to(device)
    assert there.to(device) is there
    assert there.to(device, copy=True) is not there
    assert x.cuda(0).device == device
    assert there.cpu().device == "cpu"
    assert str(x.to(tw.device(device), tw.float16).dtype) == "f16"
    assert x.to(device, dtype="float64").device == device
    assert (x.to(there).device, x.to(there.double()).dtype) == (there.device, tw.float64)
    assert x.to(dtype=tw.int32, device=device).tolist() == [1, 1, 1]


def test_tensors_are_made_on_a_device(device):
    assert tw.zeros(2, 2, device=device).tolist() == [[0, 0], [0, 0]]
    assert tw.full((2,), 2.5, device=device).tolist() == [2.5, 2.5]
    assert tw.ones(2, dtype="int64", device=device).tolist() == [1, 1]
    assert tw.empty(4, device=device).device == device
    assert tw.arange(3, device=device).tolist() == [0, 1, 2]
    assert tw.eye(2, device=device).tolist() == [[1, 0], [0, 1]]
    assert tw.zeros_like(tw.ones(2, device=device)).device == device
    assert tw.ones_like(tw.ones(2, device=device), device="cpu").device == "cpu"
    with tw.device(device):
        assert tw.tensor([1.0, 2.0]).device == device
        assert tw.rand(3).device == device
        with tw.device("cpu"):
            assert tw.zeros(1).device == "cpu"
    assert tw.zeros(1).device == "cpu"


def test_random_numbers_are_those_of_the_cpu(device):
    for draw in (
        lambda **where: tw.rand(4, **where),
        lambda **where: tw.randn(3, 2, **where),
        lambda **where: tw.randint(0, 100, 5, **where),
        lambda **where: tw.bernoulli(0.5, 8, **where),
        lambda **where: tw.randperm(6, **where),
    ):
        generator = tw.Generator(5)
        here = draw(generator=generator)
        there = draw(generator=generator.manual_seed(5), device=device)
        assert there.device == device
        np.testing.assert_array_equal(values(there)[0], here.numpy())


def test_text_says_where(device):
    x = tw.tensor([1.0, 2.0], device=device)
    assert repr(x) == f"tensor([1., 2.], device='{device}')"
    assert repr(x.requires_grad_()) == f"tensor([1., 2.], device='{device}', requires_grad=True)"
    assert bool((x > 0).all())
    assert float(x.sum()) == 3.0
    assert x[1].item() == 2.0


def test_numpy_asks_for_a_copy(device):
    x = tw.ones(2, device=device)
    with pytest.raises(DeviceError, match=rf"lies on {device}, .*x\.cpu\(\)\.numpy\(\)"):
        x.numpy()
    with pytest.raises(DeviceError, match=r"x\.cpu\(\)"):
        np.asarray(x)


def test_copies_and_pickles_stay_there(device, tmp_path):
    x = tw.tensor(X, device=device, requires_grad=True)
    again = pickle.loads(pickle.dumps(x))
    assert again.device == device
    assert again.requires_grad
    np.testing.assert_array_equal(values(again)[0], X)
    deep = copy.deepcopy(x)
    deep.detach().zero_()
    np.testing.assert_array_equal(values(x)[0], X)
    assert copy.copy(x.detach()).device == device
    tw.save({"x": x.detach()}, tmp_path / "x.safetensors")
    assert tw.load(tmp_path / "x.safetensors")["x"].device == "cpu"
    loaded = tw.load(tmp_path / "x.safetensors", device=device)["x"]
    assert loaded.device == device
    np.testing.assert_array_equal(values(loaded)[0], X)


# --- what they compute ------------------------------------------------------------------------------------

CASES = {
    "arithmetic": lambda x, y: (x * 2 + y - 1) / (y.abs() + 1),
    "comparison": lambda x, y: (x > y, x == x, x.isnan()),
    "choice": lambda x, y: tw.where(x > 0, x, y),
    "broadcast": lambda x, y: x[0] + y[:, :1],
    "reductions": lambda x, y: (x.sum(), x.mean(0), x.max(1), x.argmax(1), x.var(1), x.logsumexp(1)),
    "products": lambda x, y: (x @ y.T, x[0] @ y[1], x.T @ y),
    "scans": lambda x, y: (x.cumsum(1), x.cummax(0)),
    "orders": lambda x, y: (x.sort(1), x.topk(2, 1)[1], x.median(1)),
    "conversion": lambda x, y: (x.int(), x.half().float(), (x > 0).long()),
    "complex": lambda x, y: tw.complex(x, y).abs() + (tw.complex(x, y) * (2 + 1j)).imag,
    "views": lambda x, y: (x.T, x.reshape(5, 3), x[1:, ::2], x.flatten(), x.unsqueeze(1).expand(3, 2, 5)),
    "strided": lambda x, y: (x.T.contiguous(), x.T.reshape(-1), x[:, ::2].clone(), x[1:, 1:].T + y[1:, 1:].T),
    "joining": lambda x, y: (tw.cat([x, y.T.reshape(3, 5)], 1), tw.stack([x, y], 1), *x.split(2, 1)),
    "indices": lambda x, y: (x[IDS], x[:, [1, 3]], x[x > 0], x[tw.tensor([0, 1]), tw.tensor([4, -1])]),
    "kernels": lambda x, y: (tw.kernels.softmax(x), tw.kernels.layer_norm(x, y[0], y[1])),
    "empty": lambda x, y: (x[:0].sum(), x[:0] + 1, x[:, :0].sum(1)),
    "numbers": lambda x, y: (x**2, 1 / x, x.clip(-1, 1), tw.exp(x), x.long() // 2, tw.minimum(x, 0.5)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_ops_compute_what_they_do_on_the_cpu(device, case):
    compute = CASES[case]
    expected = values(compute(tw.tensor(X), tw.tensor(Y)))
    results = compute(tw.tensor(X, device=device), tw.tensor(Y, device=device))
    assert all(r.device == device for r in (results if isinstance(results, (tuple, list)) else (results,)))
    for result, wanted in zip(values(results), expected, strict=True):
        assert result.dtype == wanted.dtype
        np.testing.assert_allclose(result, wanted, rtol=2e-5, atol=2e-6)


@tw.op
def shifted(x: tw.Tile["... d"], w: tw.Tile["d"], *, scale: tw.Scalar = 1.0):
    """A users' op: a stencil and a norm."""
    near = x.at(d=tw.index("d") - 1)
    return (x - scale * near) * w * tw.rsqrt(tw.mean(x * x, "d") + 1)


GRADIENTS = {
    "products": lambda x, w: (x @ w).sum(),
    "a user's op": lambda x, w: (shifted(x, w[:, 0], scale=0.5) ** 2).sum(),
    "repeated indices": lambda x, w: (x[IDS] * tw.tensor(W.T.copy(), device=x.device)).sum() + w.sum(),
    "views": lambda x, w: (x.T.reshape(3, 5)[:, 1:] * w.T[:3, 1:]).sum() + tw.cat([x, x]).max(),
    "a loss": lambda x, w: -tw.kernels.log_softmax(x @ w)[0, 1],
    "conversion": lambda x, w: (x.double() * 2).float().sum() * w.mean(),
}


@pytest.mark.parametrize(
    "dtype", ["float8_e4m3fn", pytest.param("float8_e5m2", marks=pytest.mark.exhaustive)]
)
def test_floats_of_8_bits(device, dtype):
    rng = np.random.default_rng(0)
    x, w = (tw.tensor(rng.standard_normal(shape), dtype=dtype) for shape in ((5, 6), (6, 7)))
    answers = []
    for a, b in ((x.clone(), w), (x.to(device), w.to(device))):
        a.requires_grad_()
        y = a @ b
        y.sum().backward()
        answers.append(values([y, a.grad, a.to(tw.float32), a[:, ::2] * 2, (a > 0.1).sum()]))
    for mine, theirs in zip(*answers, strict=True):
        np.testing.assert_array_equal(mine.astype(np.float64), theirs.astype(np.float64))


@pytest.mark.parametrize("case", GRADIENTS)
def test_gradients_are_those_of_the_cpu(device, case):
    found = []
    for place in ("cpu", device):
        x, w = (tw.tensor(a, device=place, requires_grad=True) for a in (X, W))
        GRADIENTS[case](x, w).backward()
        assert x.grad.device == place
        found.append(values((x.grad, w.grad)))
    for here, there in zip(*found, strict=True):
        np.testing.assert_allclose(there, here, rtol=2e-5, atol=2e-6)


def test_gradients_pass_between_devices_and_add_up(device):
    x = tw.tensor(X, requires_grad=True)
    for _ in range(2):
        (x.to(device) * 3).cpu().sum().backward()
    assert x.grad.device == "cpu"
    np.testing.assert_array_equal(x.grad.numpy(), np.full_like(X, 6))


def test_gradients_of_gradients(device):
    found = []
    for place in ("cpu", device):
        x = tw.tensor(X[0], device=place, requires_grad=True)
        (first,) = tw.grad((x**3).sum() * x.sum(), (x,), create_graph=True)
        (first * first).sum().backward()
        found.append(values(x.grad)[0])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)


def test_derivative_ops_run_there(device):
    ct = np.ones((3, 4), np.float32)
    expected = shifted.vjp(X, W[:, 0], X)
    results = shifted.vjp(*(tw.tensor(a, device=device) for a in (X, W[:, 0].copy(), X)))
    for result, wanted in zip(values(results), expected, strict=True):
        np.testing.assert_allclose(result, wanted, rtol=2e-5, atol=2e-6)
    assert ct.size


def test_hooks_and_retained_gradients(device):
    x = tw.tensor(X, device=device, requires_grad=True)
    y = x * 2
    y.retain_grad()
    y.register_hook(lambda gradient: gradient * 10)
    y.sum().backward()
    assert y.grad.device == device
    np.testing.assert_array_equal(values(x.grad)[0], np.full_like(X, 20))


# --- what is written to them ------------------------------------------------------------------------------

WRITES = {
    "all": lambda x: x.copy_(X[0]),
    "a number": lambda x: x.fill_(2),
    "a row": lambda x: x.__setitem__(1, 5.0),
    "a strided part": lambda x: x.__setitem__(
        (slice(None), slice(None, None, 2)), tw.tensor(Y[:, :3].copy())
    ),
    "itself, moved": lambda x: x.__setitem__((slice(None), slice(1, None)), x[:, :-1]),
    "itself, reversed": lambda x: x.copy_(x[:, ::-1]),
    "rows by numbers": lambda x: x.__setitem__([2, 0], np.float32([[1], [2]])),
    "a repeated number": lambda x: x.__setitem__(([0, 0], [1, 1]), np.float32([3, 4])),
    "by a mask": lambda x: x.__setitem__(x > 0, 0.0),
    "by arithmetic": lambda x: x.add_(1).mul_(2).sub_(x, 0.5).clamp_(-1, 1),
    "a part by arithmetic": lambda x: x[:, 1].add_(7),
    "another dtype": lambda x: x.copy_(np.arange(5)),
}


@pytest.mark.parametrize("case", WRITES)
def test_writing_is_that_of_the_cpu(device, case):
    here, there = tw.tensor(X), tw.tensor(X, device=device)
    WRITES[case](here)
    WRITES[case](there)
    assert there.version == here.version > 0
    np.testing.assert_array_equal(values(there)[0], here.numpy())


def test_results_go_where_out_says(device):
    x, y = tw.tensor(X, device=device), tw.tensor(Y, device=device)
    whole = tw.zeros(3, 10, device=device)
    out = whole[:, ::2]
    assert shifted(x, y[0], out=out) is out
    np.testing.assert_allclose(values(whole)[0][:, ::2], shifted(X, Y[0]), rtol=2e-5, atol=2e-6)
    assert not values(whole)[0][:, 1::2].any()
    shifted(x, y[0], out=x)  # reads what stands beside: not to be overwritten before
    np.testing.assert_allclose(values(x)[0], shifted(X, Y[0]), rtol=2e-5, atol=2e-6)
    with pytest.raises(DeviceError, match=f"operands lie on {device}, out= on cpu"):
        shifted(y, y[0], out=tw.zeros(3, 5))


def test_changed_values_are_noticed(device):
    x = tw.tensor(X, device=device, requires_grad=True)
    y = x * 1
    z = (y * y).sum()
    y.detach().zero_()
    with pytest.raises(DerivativeError, match="modified in place"):
        z.backward()
    with pytest.raises(OverlapError, match="read-only or repeated"):
        tw.ones(1, device=device).expand(3).zero_()
    with pytest.raises(ShapeError, match="does not broadcast"):
        tw.ones(2, device=device).copy_(tw.ones(3))


# --- what does not fit ------------------------------------------------------------------------------------

MIXED = {
    "op 'add': a lies on cuda:0, b on cpu; an op runs on one device: write b.to\\(\"cuda:0\"\\)":
        lambda x, y: x + y,
    'op \'shifted\': x lies on cuda:0, w on cpu; .*tw.tensor\\(w, device="cuda:0"\\)':
        lambda x, y: shifted(x, X[0]),
    "cat.*tensor 0 lies on cuda:0, tensor 1 on cpu": lambda x, y: tw.cat([x, y]),
    "the gradient lies on cpu, the tensor on cuda:0":
        lambda x, y: (x.requires_grad_() * 2).backward(y),
    "grad lies where the tensor does, on cuda:0, not on cpu":
        lambda x, y: setattr(x.requires_grad_(), "grad", y),
}  # fmt: skip


@pytest.mark.parametrize("message", MIXED)
def test_mixed_devices_are_refused(device, message):
    x, y = tw.tensor(X, device=device), tw.tensor(X)
    for _ in range(2):  # also when the call is not new
        with pytest.raises(DeviceError, match=message):
            MIXED[message](x, y)


def test_single_numbers_may_come_from_the_cpu(device):
    x = tw.tensor(X, device=device)
    np.testing.assert_allclose(values(x * tw.tensor(2.0) + np.float32(1))[0], X * 2 + 1, rtol=1e-6)
