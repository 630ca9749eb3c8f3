"""The same kernels on a CUDA device."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from tests.compiler.triton.emit_cases import FAMILIES, Family, call_of, check, derived
from tests.support.layouts import LAYOUTS
from tilewright.compiler.targets.triton.on_device import CudaExecutable

pytestmark = pytest.mark.gpu
on_device = functools.partial(CudaExecutable, device="cuda:0")
EVERY = pytest.mark.parametrize("family", FAMILIES, ids=str)


@EVERY
def test_value(family: Family):
    for extents in family.extents:
        for dtype in family.dtypes:
            check(call_of(family, family.operands(extents, dtype)), on_device)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f.differentiable], ids=str)
def test_derivatives(family: Family):
    for extents in family.extents[-2:]:
        operands = family.operands(extents, np.float32)
        for rule in ("vjp", "jvp"):
            check(derived(rule, call_of(family, operands)), on_device)


@EVERY
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout(family: Family, layout: str):
    operands = family.operands(family.extents[-1], family.dtypes[1])
    check(call_of(family, [LAYOUTS[layout](o) for o in operands]), on_device)
