"""`op.code`: the generated source, in every language that this machine can write."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tilewright.errors import ArgumentError
from tilewright.op.code import ahead_of_time


@tw.op
def softmax(x: tw.Tile["... d"]):
    e = tw.exp(x - tw.max(x, "d"))
    return e / tw.sum(e, "d")


@pytest.mark.parametrize(
    ("target", "comment", "token"),
    [
        ("cpu", "//", "vector<"),
        ("mlir", "//", "arith."),
        ("llvm", ";", "define void @tw_softmax_0"),
        ("asm", "#", "tw_softmax_0:"),
    ],
)
def test_cpu_languages(target: str, comment: str, token: str):
    text = softmax.code((64, 128), target=target)
    assert token in text
    assert f"{comment} y = e / sum(e, d)" in text
    assert f"{comment} row kernel softmax_0: x → y" in text


def test_the_backward_has_its_own_source():
    text = softmax.code((64, 128), grad=True)
    assert "// d_x = y * (d_y - sum(d_y * y, d))" in text
    assert "tw_softmax_backward_0" in text


def test_only_the_kernels_of_this_call_are_shown():
    softmax.code((3, 5))
    assert softmax.code((64, 128)).count("row kernel softmax_0") == 1


def test_an_unknown_target_is_refused():
    with pytest.raises(ArgumentError, match="no target 'metal'"):
        softmax.code((4, 4), target="metal")


def test_triton_source():
    text = softmax.code((64, 128), target="triton")
    assert "@triton.jit" in text
    assert "# row kernel softmax_0: x → y" in text
    assert softmax.code((64, 128), target="cuda:90") == text


def test_ptx():
    pytest.importorskip("triton")
    text = softmax.code((64, 128), target="ptx:90", grad=True)
    assert "// d_x = y * (d_y - sum(d_y * y, d))" in text
    assert ".target sm_90" in text


def test_binaries_ahead_of_time():
    pytest.importorskip("triton")
    (artefact,) = ahead_of_time(softmax, ((64, 128),), {}, "cuda:90")
    assert artefact.binary_kind == "cubin"
    assert artefact.binary[:4] == b"\x7fELF"


def test_elements_that_straddle_addresses_are_shown_as_their_copy():
    pairs = np.zeros((4, 6), np.dtype([("small", np.int8), ("x", np.float32)]))
    assert "tl.load" in softmax.code(pairs["x"], target="triton")


@tw.op
def softened(x: tw.Tile["n d"]):
    e = tw.exp(x - tw.max(x, "d"))
    return e / tw.sum(e, "d")


@tw.op
def long_product(a: tw.Tile["m k"], b: tw.Tile["k n"]):
    return tw.sum(a * b, "k")


@pytest.mark.parametrize(
    ("op", "shapes", "kernels"),
    [
        (softened, ((2, 1 << 19),), 5),  # a row in chunks
        (long_product, ((16, 8192), (8192, 16)), 2),  # a sum in parts
        (long_product, ((16, 80), (80, 1)), 1),  # a row kernel
    ],
)
def test_kernels_that_extents_decide_are_told(op, shapes, kernels):
    text = op.code(*shapes, target="cuda:90")
    assert text.count("@triton.jit\ndef " + op.name) == kernels == text.count("#   cost ")
