"""Hand-written Triton sources for the tests of what surrounds generated ones."""

HEADER = "import triton\nimport triton.language as tl\n\n\n"

ADD = (
    HEADER
    + """@triton.jit
def scaled(value, scale):
    result = value * scale
    return result


@triton.jit
def add(x, y, out, n, scale, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    a = tl.load(x + i, mask=inside)
    b = tl.load(y + i, mask=inside)
    tl.store(out + i, a + scaled(b, scale), mask=inside)
"""
)

SOFTMAX = (
    HEADER
    + """@triton.jit
def larger(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def softmax(x, out, columns, stride_row, stride_column, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    inside = column < columns
    place = row * stride_row + column * stride_column
    values = tl.load(x + place, mask=inside, other=-float("inf")).to(tl.float32)
    top = tl.reduce(values, 0, larger)
    e = tl.exp(values - top)
    y = e / tl.sum(e, 0)
    tl.store(out + row * columns + column, y.to(out.dtype.element_ty), mask=inside)
"""
)

MATMUL = (
    HEADER
    + """@triton.jit
def matmul(a, b, c, m, n, k, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, ACC: tl.constexpr):
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    total = tl.zeros((BM, BN), dtype=ACC)
    for start in range(0, k, BK):
        depth = start + tl.arange(0, BK)
        a_inside = (row[:, None] < m) & (depth[None, :] < k)
        b_inside = (depth[:, None] < k) & (column[None, :] < n)
        left = tl.load(a + row[:, None] * k + depth[None, :], mask=a_inside, other=0.0)
        right = tl.load(b + depth[:, None] * n + column[None, :], mask=b_inside, other=0.0)
        total = tl.dot(left, right, total, input_precision="ieee", out_dtype=ACC)
    c_inside = (row[:, None] < m) & (column[None, :] < n)
    tl.store(c + row[:, None] * n + column[None, :], total.to(c.dtype.element_ty), mask=c_inside)
"""
)
