"""safetensors files."""

import numpy as np
import pytest
import safetensors.torch
import torch

import tilewright as tw
from tilewright.dsl.dtypes import ALL
from tilewright.errors import ArgumentError


def test_every_dtype_and_layout_comes_back(tmp_path):
    values = np.array([[0, 1, 1], [1, 0, 1]])
    tensors = {dtype.name: tw.tensor(values, dtype=dtype) for dtype in ALL}
    tensors |= {"turned": tw.randn(2, 3).T, "number": tw.tensor(2.5), "nothing": tw.zeros(0, 3)}
    tw.save(tensors, tmp_path / "t.safetensors")
    loaded = tw.load(tmp_path / "t.safetensors")
    assert set(loaded) == set(tensors)
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype and loaded[name].shape == tensor.shape
        assert loaded[name].tolist() == tensor.tolist()
    loaded["number"].add_(1)


def test_models_pass_to_and_from_torch(tmp_path):
    path = tmp_path / "model.safetensors"
    ours, theirs = tw.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    tw.save(ours.state_dict(), path)
    theirs.load_state_dict(safetensors.torch.load_file(path))
    np.testing.assert_array_equal(theirs.weight.detach().numpy(), ours.weight.detach().numpy())
    safetensors.torch.save_file({n: t.bfloat16() for n, t in theirs.state_dict().items()}, path)
    loaded = tw.load(path)
    assert loaded["weight"].dtype == tw.bfloat16
    ours.load_state_dict(loaded)


def test_failures_leave_what_was_there(tmp_path):
    path = tmp_path / "t.safetensors"
    tw.save({"x": tw.ones(1)}, path)
    with pytest.raises(ArgumentError, match=r"tensors by name.*'step' is a int"):
        tw.save({"x": tw.zeros(1), "step": 3}, path)
    assert tw.load(path)["x"].tolist() == [1] and [p.name for p in tmp_path.iterdir()] == ["t.safetensors"]
    path.write_bytes(b"not a file of tensors")
    with pytest.raises(ArgumentError, match="is no safetensors file, or is damaged"):
        tw.load(path)
