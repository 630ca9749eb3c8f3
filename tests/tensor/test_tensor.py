"""Tensors as containers: creation, conversion, views, in-place writes, text, errors."""

import copy
import pickle

import ml_dtypes
import numpy as np
import pytest
import torch

import tilewright as tw
from tilewright.errors import ArgumentError, DTypeError, OverlapError, ShapeError


def test_creation_from_data():
    assert tw.tensor([1.5, 2]).dtype == tw.float32
    assert tw.tensor([1, 2]).dtype == tw.int64
    assert tw.tensor(True).dtype == tw.bool_ and tw.tensor(2).shape == ()
    assert tw.tensor(np.arange(3.0)).dtype == tw.float64
    assert tw.tensor([np.float64(1), np.float64(2)]).dtype == tw.float64
    assert tw.tensor([1, 2], dtype=tw.float16).dtype == tw.float16
    assert tw.tensor([tw.tensor(1.0), tw.tensor(2.0)]).tolist() == [1, 2]
    assert tw.tensor(np.ones(2, ml_dtypes.bfloat16)).dtype == tw.bfloat16


def test_copies_and_shared_memory():
    array = np.zeros(3, np.float32)
    copied, shared, same = tw.tensor(array), tw.from_numpy(array), tw.as_tensor(array)
    array[0] = 5
    assert copied.tolist() == [0, 0, 0] and shared.tolist() == same.tolist() == [5, 0, 0]
    assert shared.numpy() is array and tw.as_tensor(shared) is shared
    assert np.shares_memory(np.asarray(shared), array)


def test_data_that_cannot_be_a_tensor():
    with pytest.raises(DTypeError, match="uint16"):
        tw.tensor(np.zeros(2, np.uint16))
    with pytest.raises(ArgumentError, match="not of one shape"):
        tw.tensor([[1, 2], [3]])
    with pytest.raises(
        ArgumentError, match=r"from_numpy takes a NumPy array, not a list; use tw.tensor\(data\)"
    ):
        tw.from_numpy([1, 2])
    with pytest.raises(DTypeError, match="not a dtype"):
        tw.zeros(2, dtype="uint16")


def test_filled_tensors():
    assert tw.zeros(2, 3).shape == tw.ones((2, 3)).shape == tw.empty([2, 3]).shape == (2, 3)
    assert tw.full((2,), 7).tolist() == [7, 7] and tw.full((2,), 7).dtype == tw.int64
    assert tw.full((), 0.5).dtype == tw.float32
    assert tw.arange(3).tolist() == [0, 1, 2] and tw.arange(1, 2, 0.5).tolist() == [1, 1.5]
    assert tw.linspace(0, 1, 3).tolist() == [0, 0.5, 1] and tw.eye(2).tolist() == [[1, 0], [0, 1]]
    x = tw.ones(2, dtype="float16")
    assert tw.zeros_like(x).dtype == tw.float16 and tw.ones_like(x, dtype="int8").dtype == tw.int8
    assert tw.full_like(x, 3).tolist() == [3, 3] and tw.empty_like(x).shape == (2,)
    assert tw.zeros(2, requires_grad=True).requires_grad


def test_random_tensors_follow_the_seed():
    tw.manual_seed(3)
    first = [tw.rand(4), tw.randn(2, 2), tw.randint(0, 9, (5,)), tw.randperm(6)]
    tw.manual_seed(3)
    second = [tw.rand(4), tw.randn(2, 2), tw.randint(0, 9, (5,)), tw.randperm(6)]
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    generator = tw.Generator(1)
    assert (tw.randn(3, generator=generator) != tw.randn(3, generator=generator)).all()
    draws = tw.rand(1000, dtype="float64")
    assert draws.min() >= 0 and draws.max() < 1 and draws.dtype == tw.float64
    with pytest.raises(DTypeError, match=r"tw.randint"):
        tw.rand(3, dtype="int32")


def test_dlpack_both_ways():
    x = tw.arange(4).float()
    assert torch.from_dlpack(x).tolist() == [0, 1, 2, 3]
    source = torch.ones(3)
    shared = tw.from_dlpack(source)
    source[0] = 5
    assert shared.tolist() == [5, 1, 1]
    assert tw.tensor(torch.ones(2)).tolist() == [1, 1]


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_dlpack_of_floats_that_numpy_lacks(dtype):
    values = [[0.0, -0.0, 1.5], [-448.0, 2.0**-9, float("nan")]]
    x = tw.tensor(values, dtype=dtype)
    theirs = torch.from_dlpack(x.T)
    assert theirs.dtype == getattr(torch, dtype) and theirs.stride() == (1, 3)
    assert theirs.data_ptr() == x.numpy().ctypes.data
    np.testing.assert_array_equal(theirs.float().numpy(), x.T.to(tw.float32).numpy())
    source = torch.tensor(values).to(getattr(torch, dtype))
    for ours in (tw.from_dlpack(source), tw.as_tensor(source), tw.tensor(source)):
        assert ours.dtype == x.dtype
        np.testing.assert_array_equal(ours.numpy().view(np.uint8), source.view(torch.uint8).numpy())
    assert tw.from_dlpack(source[:, ::2]).stride() == (3, 2)
    assert tw.from_dlpack(x).tolist()[0] == [0, 0, 1.5]


def test_dlpack_of_dtypes_that_the_language_lacks():
    with pytest.raises(DTypeError, match=r"DLPack's dtype \(11, 8 bits\) cannot be a tensor"):
        tw.from_dlpack(torch.ones(2).to(torch.float8_e4m3fnuz))
    with pytest.raises(DTypeError, match="data of dtype uint16 cannot be a tensor"):
        tw.from_dlpack(torch.ones(2).to(torch.uint16))


def test_a_capsule_is_taken_once():
    class Twice:
        capsule = torch.ones(2).__dlpack__()

        def __dlpack_device__(self):
            return 1, 0

        def __dlpack__(self, **keywords):
            return self.capsule

    source = Twice()
    assert tw.from_dlpack(source).tolist() == [1, 1]
    with pytest.raises(BufferError, match="was used before"):
        tw.from_dlpack(source)


def test_python_values():
    assert float(tw.tensor([2.5])) == 2.5 and int(tw.tensor(3)) == 3 and bool(tw.tensor([[0]])) is False
    assert [10, 20, 30][tw.tensor(1)] == 20
    assert tw.tensor(1.5, dtype="bfloat16").item() == 1.5
    assert len(tw.zeros(4, 2)) == 4 and [row.tolist() for row in tw.eye(2)] == [[1, 0], [0, 1]]
    assert tw.tensor([[1, 2]]).tolist() == [[1, 2]]
    with pytest.raises(ShapeError, match=r"item\(\) needs a tensor of one element.*\(2,\)"):
        tw.ones(2).item()
    with pytest.raises(ShapeError, match=r"ambiguous; write x.any\(\) or x.all\(\)"):
        bool(tw.ones(2) > 0)
    with pytest.raises(ShapeError, match="no length"):
        len(tw.tensor(1))
    with pytest.raises(DTypeError, match="only integer tensors are indices"):
        [1, 2][tw.tensor(1.0)]


def test_tensors_are_hashed_by_identity_and_compared_by_element():
    x, y = tw.ones(2), tw.ones(2)
    assert len({x, y, x}) == 2
    assert (x == y).tolist() == [True, True]
    assert (x == None) is False and (x != None) is True  # noqa: E711


def test_text():
    assert repr(tw.tensor([1.0, 2.5])) == "tensor([1. , 2.5])"
    assert "requires_grad=True" in repr(tw.ones(2, requires_grad=True))
    assert "grad_fn=<mul>" in repr(tw.ones(2, requires_grad=True) * 2)
    assert "dtype=tilewright.float64" in repr(tw.zeros(1, dtype="float64"))
    assert "shape=(0, 3)" in repr(tw.zeros(0, 3))


def test_views_share_memory_and_copies_do_not():
    x = tw.zeros(2, 3)
    for view in (
        x.reshape(3, 2),
        x.T,
        x[0],
        x[:, 1:],
        x.unsqueeze(0),
        x.expand(4, 2, 3),
        x.detach(),
        x.view(6),
    ):
        assert np.shares_memory(view.numpy(), x.numpy())
        before = view.version
        x.add_(1)
        assert view.version == before + 1
    for other in (x.clone(), x.T.reshape(6), x.T.contiguous(), x.to("float64")):
        assert not np.shares_memory(other.numpy(), x.numpy())
        before = other.version
        x.add_(1)
        assert other.version == before
    assert x.contiguous() is x and x.float() is x and x.to("cpu") is x


def test_operators_work_on_views_of_any_layout():
    base = np.arange(24.0).reshape(4, 6)
    x = tw.from_numpy(base)
    for view, array in [(x.T, base.T), (x[::-1, ::2], base[::-1, ::2]), (x[:1].expand(3, 6), base[:1])]:
        np.testing.assert_array_equal((view * 2 + view).numpy(), np.broadcast_to(array * 3, view.shape))
        np.testing.assert_allclose(view.sum(0).numpy(), np.broadcast_to(array, view.shape).sum(0))
    unaligned = np.frombuffer(b"\0" * 4 + np.arange(4.0).tobytes(), np.uint8)[4:].view(np.float64)
    assert (tw.as_tensor(unaligned) + 1).tolist() == [1, 2, 3, 4]


def test_shapes_that_do_not_fit():
    x = tw.zeros(2, 3)
    cases = [
        (lambda: x.reshape(4, 2), r"6 elements of shape \(2, 3\) do not fit the shape \(4, 2\)"),
        (lambda: x.reshape(-1, 4), "do not fit"),
        (lambda: x.reshape(-1, -1), "do not fit"),
        (lambda: x.T.view(6), "without a copy; use reshape"),
        (lambda: x.permute(0, 0), "does not name each"),
        (lambda: x.transpose(0, 2), "no dimension 2"),
        (lambda: x.expand(3, 3), r"does not broadcast to \(3, 3\)"),
        (lambda: x.expand(-1, 2, 3), "needs its extent"),
        (lambda: x.unsqueeze(4), "no dimension 4"),
        (lambda: x[0, 0, 0], "does not fit a tensor of 2 dimensions"),
        (lambda: x[..., ...], "does not fit"),
        (lambda: x.sum(2), "no dim 2"),
        (lambda: x.sum((0, 0)), "twice"),
        (lambda: x @ tw.zeros(2, 3), "'k' is 3 in a"),
        (lambda: x + tw.zeros(2), "do not broadcast"),
        (lambda: x @ tw.tensor(1.0), r"use \* for numbers"),
        (lambda: x.copy_(tw.zeros(5)), r"\(5,\) does not broadcast to \(2, 3\)"),
        (lambda: x.add_(tw.zeros(4, 2, 3)), "the result has shape"),
    ]
    for call, message in cases:
        with pytest.raises(ShapeError, match=message):
            call()
    with pytest.raises(IndexError, match="index 2 is out of range for dimension 0"):
        x[2]
    with pytest.raises(ArgumentError, match="dim is an integer"):
        x.sum("d")
    with pytest.raises(ArgumentError, match="are integers"):
        x.reshape("a")


def test_dtypes_that_do_not_fit():
    with pytest.raises(DTypeError, match="300 does not fit int8"):
        tw.ones(2, dtype="int8") + 300
    with pytest.raises(DTypeError, match="float32 result does not fit a int64 tensor"):
        tw.tensor([1, 2]).add_(0.5)
    with pytest.raises(DTypeError, match="works on integers and bool, got float32"):
        tw.ones(2) & tw.ones(2)


def test_writes_in_place():
    x = tw.zeros(2, 3)
    x[0] = 1
    x[:, 1] = tw.tensor([5.0, 6.0])
    x[1, [0, 2]] = 9
    assert x.tolist() == [[1, 5, 1], [9, 6, 9]] and x.version == 3
    x.add_(1).mul_(2).sub_(tw.ones(3)).div_(2).clamp_(max=5)
    np.testing.assert_allclose(x.numpy(), np.minimum((2 * (np.array([[1, 5, 1], [9, 6, 9]]) + 1) - 1) / 2, 5))
    x.fill_(2.0)
    x.add_(tw.ones(3), alpha=3)
    assert x.tolist() == [[5, 5, 5], [5, 5, 5]]
    half = tw.ones(2, dtype="float16")
    assert half.add_(tw.ones(2)).dtype == tw.float16


def test_expanded_memory_is_not_written_to():
    x = tw.zeros(1, 3).expand(4, 3)
    with pytest.raises(OverlapError, match=r"x.clone\(\)"):
        x.add_(1)
    with pytest.raises(OverlapError, match="repeated"):
        x[0] = 1


def test_numpy_arrays_beside_tensors():
    x = tw.ones(2, 3)
    array = np.full((2, 3), 2.0, np.float32)
    for y in (x + array, array + x, array * x + x, np.float32(2) + x):
        assert isinstance(y, tw.Tensor) and y.dtype == tw.float32
    assert (array @ x.T).shape == (2, 2)
    with pytest.raises(TypeError):
        x * [1, 2, 3]
    with pytest.raises(ArgumentError, match="str"):
        x * "a"


def test_numpy_functions_on_tensors():
    x = tw.tensor([1.0, 4.0], requires_grad=True)
    y = np.sqrt(x) + np.multiply(np.float32(2), x) + np.power(x, 2)
    assert isinstance(y, tw.Tensor) and y.tolist() == [4, 26] and y.requires_grad
    assert np.minimum(x, 2).tolist() == [1, 2] and np.arctan(x.detach()).shape == (2,)
    assert x.detach().sum(axis=0).item() == 5 and x.argmax(axis=0).item() == 1
    with pytest.raises(ArgumentError, match=r"np.hypot works on arrays.*x.detach\(\).numpy\(\)"):
        np.hypot(x, x)


def test_copies_and_pickles():
    x = tw.tensor([1.0, 2.0], requires_grad=True)
    for other in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert (
            other.tolist() == [1, 2] and other.requires_grad and not np.shares_memory(other._array, x._array)
        )


def test_masks_and_gathers_without_gradient():
    x = tw.arange(6).reshape(2, 3)
    assert x[x > 2].tolist() == [3, 4, 5]
    assert x[:, tw.tensor([2, 0])].tolist() == [[2, 0], [5, 3]]
    assert x[tw.tensor([1])].tolist() == [[3, 4, 5]]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int64"])
def test_large_tensors_begin_at_cache_lines(dtype: str):
    """Vectors of their elements do not straddle two lines, whatever the array was that they came from."""
    size = 300_000
    bytes_behind_a_line = np.zeros(size * 8 + 72, np.uint8)[8:]
    source = bytes_behind_a_line[: size * 4].view(np.float32)
    made = [
        tw.tensor(source, dtype=dtype),
        tw.zeros(size, dtype=dtype),
        tw.ones(size, dtype=dtype),
        tw.full(size, 3, dtype=dtype),
        tw.empty(size, dtype=dtype),
        tw.ones(size + 1, dtype=dtype)[1:].clone(),
    ]
    assert [t.numpy().ctypes.data % 64 for t in made] == [0] * len(made)
    assert [float(t.numpy()[-1]) for t in made[:4]] == [0, 0, 1, 3]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_one_element_is_written_in_every_shape(dtype):
    x = tw.zeros(4, dtype=dtype)
    x[0], x[1], x[2:3] = tw.tensor([1.5]), tw.tensor(2.0, dtype=dtype), tw.ones(3, dtype=dtype)[:1]
    x[np.array([False, False, False, True])] = np.array([3.0], x.numpy().dtype)
    assert x.tolist() == [1.5, 2, 1, 3]
