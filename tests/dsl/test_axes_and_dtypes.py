"""Axis names and annotations; dtypes and how two of them meet."""

import ml_dtypes
import numpy as np
import pytest

from tilewright.dsl.axes import Tile, base, batch_axes, fresh, is_batch_axis, split_names, union
from tilewright.dsl.dtypes import (
    ALL,
    BY_NAME,
    as_dtype,
    bfloat16,
    bool_,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    of_array,
    promote,
    uint8,
)
from tilewright.dsl.expression import merged
from tilewright.dsl.program import combine_identity
from tilewright.errors import DTypeError


def test_annotations():
    spec = Tile["... m k"]
    assert (spec.axes, spec.batched, str(spec)) == (("m", "k"), True, "... m k")
    assert spec.expand(2) == ("_1", "_0", "m", "k")
    assert Tile[""].axes == () and not Tile[""].batched
    assert Tile["m, k"] == Tile["m k"]


def test_names():
    assert split_names("... a b2 c_d") == ("...", "a", "b2", "c_d")
    assert batch_axes(3) == ("_2", "_1", "_0")
    assert is_batch_axis("_0") and not is_batch_axis("d")
    assert (base("d''"), fresh("d", {"d", "d'"}), fresh("e", {"d"})) == ("d", "d''", "e")
    assert union(("a", "b"), ("b", "c")) == ("a", "b", "c")


@pytest.mark.parametrize(
    ("groups", "order"),
    [
        ([("m", "k"), ("k", "n")], ("m", "k", "n")),
        ([("d",), ("n", "d")], ("n", "d")),
        ([("k", "n"), ("m", "k")], ("m", "k", "n")),
        ([("i",), ("j",)], ("i", "j")),
        ([("a", "b"), ("b", "a")], ("a", "b")),
        ([("_0",), ("_1", "_0", "d")], ("_1", "_0", "d")),
        ([], ()),
    ],
)
def test_axes_merge_in_the_order_of_each_group(groups, order):
    assert merged(*groups) == order


# Rows and columns in the order of ALL; NumPy's answer but where a float meets an integer or a narrow float.
PROMOTIONS = """
         f64 f32 f16 bf16 f8e4m3fn f8e5m2 i64      i32      i16      i8       u8       bool
f64      f64 f64 f64 f64  f64      f64    f64      f64      f64      f64      f64      f64
f32      f64 f32 f32 f32  f32      f32    f32      f32      f32      f32      f32      f32
f16      f64 f32 f16 f32  f16      f16    f16      f16      f16      f16      f16      f16
bf16     f64 f32 f32 bf16 bf16     bf16   bf16     bf16     bf16     bf16     bf16     bf16
f8e4m3fn f64 f32 f16 bf16 f8e4m3fn none   f8e4m3fn f8e4m3fn f8e4m3fn f8e4m3fn f8e4m3fn f8e4m3fn
f8e5m2   f64 f32 f16 bf16 none     f8e5m2 f8e5m2   f8e5m2   f8e5m2   f8e5m2   f8e5m2   f8e5m2
i64      f64 f32 f16 bf16 f8e4m3fn f8e5m2 i64      i64      i64      i64      i64      i64
i32      f64 f32 f16 bf16 f8e4m3fn f8e5m2 i64      i32      i32      i32      i32      i32
i16      f64 f32 f16 bf16 f8e4m3fn f8e5m2 i64      i32      i16      i16      i16      i16
i8       f64 f32 f16 bf16 f8e4m3fn f8e5m2 i64      i32      i16      i8       i16      i8
u8       f64 f32 f16 bf16 f8e4m3fn f8e5m2 i64      i32      i16      i16      u8       u8
bool     f64 f32 f16 bf16 f8e4m3fn f8e5m2 i64      i32      i16      i8       u8       bool
"""


def test_promotion_table():
    header, *rows = [line.split() for line in PROMOTIONS.strip().splitlines()]
    assert header == [d.short for d in ALL]
    table = {(row[0], column): cell for row in rows for column, cell in zip(header, row[1:], strict=True)}
    for a in ALL:
        for b in ALL:
            if table[a.short, b.short] == "none":
                with pytest.raises(
                    DTypeError, match=r"no dtype in which they meet; .* tw.cast\(x, tw.float32\)"
                ):
                    promote(a, b)
                continue
            assert promote(a, b).short == table[a.short, b.short], (a, b)
            assert promote(a, b) is promote(b, a)


def test_integers_meet_as_numpy_has_it():
    for a in (int64, int32, int16, int8, uint8, bool_):
        for b in (int64, int32, int16, int8, uint8, bool_):
            assert promote(a, b).numpy == np.promote_types(a.numpy, b.numpy)


def test_dtypes_by_name():
    for dtype in ALL:
        assert as_dtype(dtype.name) is as_dtype(dtype.short) is as_dtype(dtype.numpy) is BY_NAME[dtype.name]
        assert of_array(np.zeros(1, dtype.numpy)) is dtype
        assert dtype.itemsize == dtype.numpy.itemsize
        assert not dtype.is_float or dtype.epsilon == ml_dtypes.finfo(dtype.numpy).eps
    assert as_dtype(np.float32) is float32
    assert of_array(np.zeros(1, ">f4")) is None
    for unknown in ("complex64", object, "float8", 3, np.dtype("U3")):
        with pytest.raises(DTypeError, match="is not a dtype of the language"):
            as_dtype(unknown)


def test_what_a_dtype_computes_in():
    assert (float16.compute, bfloat16.compute) == (float32, float32)
    assert all(d.compute is d for d in (float64, float32, int8, bool_))
    assert (int8.range, uint8.range) == ((-128, 127), (0, 255))


@pytest.mark.parametrize(
    ("combine", "dtype", "identity"),
    [
        ("sum", float32, 0),
        ("prod", int64, 1),
        ("max", float32, -np.inf),
        ("min", float32, np.inf),
        ("max", int8, -128),
        ("min", uint8, 255),
        ("any", bool_, False),
        ("all", bool_, True),
    ],
)
def test_what_an_empty_reduction_gives(combine, dtype, identity):
    assert combine_identity(combine, dtype) == identity
