"""The precision of float32 products: exact unless asked, on the tensor cores then, and never half chosen."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import tilewright as tw
from tests.compiler.triton.emit_cases import product
from tests.compiler.triton.test_emit_aot import compiled
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.triton.executable import InterpreterExecutable, source
from tilewright.errors import ArgumentError

A = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    tw.set_matmul_precision("float32")


def call_of(dtype: object = np.float32):
    return product.bind(product.arguments((A.astype(dtype), A.astype(dtype)), {}))


def text_of(dtype: object = np.float32) -> str:
    call = call_of(dtype)
    (text,) = source(lower(call.program), call.arrays).values()
    return text


@pytest.mark.parametrize("precision", ["float32", "tf32x3", "tf32"])
def test_what_the_compiler_is_told_and_what_it_makes_of_it(precision: str):
    tw.set_matmul_precision(precision)
    assert tw.get_matmul_precision() == precision
    ((step, artefact),) = compiled(call_of(), "cuda:90")
    word = "ieee" if precision == "float32" else precision
    assert f'input_precision="{word}"' in step.emitted.text
    assert (".tf32" in artefact.texts["ptx"]) == (precision != "float32")


@pytest.mark.parametrize(("precision", "word"), [("tf32x3", "bf16x6"), ("tf32", "bf16x3")])
def test_units_without_tf32_multiply_bfloat16_parts(precision: str, word: str):
    tw.set_matmul_precision(precision)
    ((step, artefact),) = compiled(call_of(), "hip:gfx942")
    assert f'input_precision="{word}"' in step.emitted.text
    assert "mfma_f32" in artefact.texts["amdgcn"] and "_bf16" in artefact.texts["amdgcn"]


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_types_are_not_concerned(dtype: object):
    before = text_of(dtype)
    tw.set_matmul_precision("tf32")
    assert text_of(dtype) == before


def test_an_executable_follows_a_later_choice():
    executable = InterpreterExecutable(lower(call_of().program))
    arrays = call_of().arrays
    exact = A.astype(np.float64) @ A
    errors = []
    for precision in ("float32", "tf32", "float32"):
        tw.set_matmul_precision(precision)
        errors.append(np.abs(executable.run(arrays)[0] - exact).max() / np.abs(exact).max())
    assert errors[0] == errors[2] < 1e-6
    assert 1e-5 < errors[1] < 2**-10


@pytest.mark.parametrize("word", ["highest", "", None, 32])
def test_other_words_are_refused(word: object):
    with pytest.raises(ArgumentError, match='write one of "float32", "tf32x3", "tf32"'):
        tw.set_matmul_precision(word)  # type: ignore[arg-type]
    assert tw.get_matmul_precision() == "float32"
