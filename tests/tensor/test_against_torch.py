"""Values and gradients of operators, methods and views against torch."""

import operator

import numpy as np
import pytest
import torch

import tilewright as tw
from tests.tensor.against_torch import DTYPES, assert_close, compare, draw, numbers, to_torch

BINARY = [operator.add, operator.sub, operator.mul, operator.truediv]
SHAPES = [((3, 4), (3, 4)), ((3, 4), (4,)), ((2, 1, 3), (4, 1)), ((), (3,)), ((1,), (2, 3)), ((0, 3), (1, 3))]


@pytest.mark.parametrize("function", BINARY, ids=lambda f: f.__name__)
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_arithmetic_broadcasts(function, shapes):
    a, b = draw(shapes[0], seed=1), draw(shapes[1], seed=2, low=0.5)
    compare(function, function, a, b)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", BINARY, ids=lambda f: f.__name__)
def test_arithmetic_in_every_precision(function, dtype):
    compare(function, function, draw((5, 7), dtype, 1), draw((7,), dtype, 2, low=0.5))


@pytest.mark.parametrize("dtype", DTYPES)
def test_python_numbers_are_weak(dtype):
    x = draw((6,), dtype, low=0.5)
    compare(lambda x: 2.5 - (x * 3 + 0.1) / 2, lambda x: 2.5 - (x * 3 + 0.1) / 2, x)
    compare(lambda x: 1 / x, lambda x: 1 / x, x)
    assert (tw.tensor(x) * True).dtype == tw.tensor(x).dtype


UNARY = {
    "exp": (-2, 2), "log": (0.1, 4), "sqrt": (0.1, 4), "rsqrt": (0.1, 4), "sin": (-3, 3), "cos": (-3, 3),
    "tanh": (-3, 3), "sigmoid": (-4, 4), "erf": (-2, 2), "abs": (-2, 2), "log1p": (-0.5, 2), "expm1": (-1, 1),
    "floor": (-3, 3), "lgamma": (0.2, 5), "digamma": (0.5, 5), "atan": (-2, 2), "asinh": (-2, 2),
    "square": (-2, 2), "relu": (-2, 2), "neg": (-1, 1), "sinh": (-2, 2), "acosh": (1.2, 4), "log2": (0.1, 4),
}  # fmt: skip


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_operand(name):
    x = draw((4, 5), "float64", low=UNARY[name][0], high=UNARY[name][1])
    relative = 1e-9 if name in ("lgamma", "digamma") else None
    compare(lambda x: getattr(x, name)(), lambda x: getattr(x, name)(), x, relative=relative)


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 4, 5, -1, -2, 0.5, -0.5, 1.7])
def test_powers(exponent):
    compare(lambda x: x**exponent, lambda x: x**exponent, draw((5,), low=0.3))


def test_a_number_to_the_power_of_a_tensor():
    compare(lambda x: 2.0**x, lambda x: 2.0**x, draw((5,)))
    compare(operator.pow, operator.pow, draw((3, 4), low=0.3), draw((4,), seed=3))


REDUCED = [None, 0, 1, -1, (0, 2), (1, 2), (0, 1, 2)]


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", REDUCED, ids=str)
@pytest.mark.parametrize("name", ["sum", "mean", "var", "amax", "amin", "logsumexp"])
def test_reductions(name, dim, keepdim):
    x = draw((2, 3, 5))
    dims = (0, 1, 2) if dim is None else dim
    ours = {"amax": "max", "amin": "min"}.get(name, name)
    options = {"correction": 1} if name == "var" else {}
    compare(
        lambda x: getattr(x, ours)(dim, keepdim, **options),
        lambda x: getattr(x, name)(dim=dims, keepdim=keepdim, **options),
        x,
    )


def test_product_along_one_dimension():
    compare(lambda x: x.prod(1), lambda x: x.prod(1), draw((2, 3, 4)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_in_every_precision(dtype):
    compare(lambda x: x.sum(0), lambda x: x.sum(0), draw((9, 4), dtype))
    compare(lambda x: x.mean(-1), lambda x: x.mean(-1), draw((9, 4), dtype))


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@pytest.mark.parametrize("dim", [None, 0, -1])
def test_positions_of_extremes(name, dim):
    x = draw((4, 6))
    ours, theirs = getattr(tw.tensor(x), name)(dim), getattr(torch.tensor(x), name)(dim)
    assert ours.dtype == tw.int64
    np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


PRODUCTS = [((3, 4), (4, 5)), ((4,), (4,)), ((3, 4), (4,)), ((4,), (4, 5)), ((2, 3, 4), (2, 4, 5)),
            ((2, 3, 4), (4, 5)), ((3, 4), (2, 4, 5)), ((2, 1, 3, 4), (5, 4, 2)), ((4,), (2, 4, 3)),
            ((2, 3, 4), (4,)), ((0, 4), (4, 3)), ((3, 0), (0, 2))]  # fmt: skip


@pytest.mark.parametrize("shapes", PRODUCTS, ids=str)
def test_matmul(shapes):
    compare(operator.matmul, operator.matmul, draw(shapes[0], seed=1), draw(shapes[1], seed=2))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_matmul_in_lower_precision(dtype):
    compare(operator.matmul, operator.matmul, draw((17, 33), dtype, 1), draw((33, 9), dtype, 2))


VIEWS = {
    "reshape": lambda x: x.reshape(4, -1),
    "reshape after a transpose": lambda x: x.transpose(0, 2).reshape(-1, 3),
    "permute": lambda x: x.permute(2, 0, 1),
    "T of a matrix": lambda x: x[0].T,
    "mT": lambda x: x.mT,
    "unsqueeze": lambda x: x.unsqueeze(1).unsqueeze(-1),
    "squeeze": lambda x: x[:, :1].squeeze(1),
    "flatten": lambda x: x.flatten(1),
    "expand": lambda x: x[:1].expand(5, -1, 4),
    "expand a new dimension": lambda x: x.expand(3, -1, -1, -1),
    "integer index": lambda x: x[1],
    "negative index": lambda x: x[-1, :, -2],
    "slices": lambda x: x[:, 1:, ::2],
    "None and ...": lambda x: x[..., None, 1],
    "element": lambda x: x[1, 2, 3],
    "clone": lambda x: x.clone(),
    "contiguous": lambda x: x.permute(2, 1, 0).contiguous(),
    "overlapping uses": lambda x: x[:, 1:] * x[:, :-1],
}


@pytest.mark.parametrize("name", VIEWS)
def test_views(name):
    function = VIEWS[name]
    x = draw((2, 3, 4))
    compare(lambda x: function(x) * 2, lambda x: function(x) * 2, x)
    compare(function, function, x)


def test_slices_backwards():
    x = tw.tensor(draw((5,)), requires_grad=True)
    x[::-2].backward(tw.tensor(np.array([1.0, 2, 3])))
    np.testing.assert_array_equal(x.grad.numpy(), [3, 0, 2, 0, 1])


@pytest.mark.parametrize("seed", range(12))
def test_random_expressions(seed):
    """Random trees of broadcasting operators, reductions and views."""
    random = np.random.default_rng(seed)
    arrays = [draw(shape, seed=seed + n) for n, shape in enumerate([(3, 1, 4), (5, 1), (1, 5, 4)])]
    steps = [int(random.integers(7)) for _ in range(6)]
    pairs = [random.integers(0, 3, 2) for _ in steps]

    def compute(*tensors):
        values = list(tensors)
        for step, (i, j) in zip(steps, pairs, strict=True):
            x, y = values[i], values[j]
            values[i] = [
                lambda x, y: x * y + 1, lambda x, y: (x - y).tanh(), lambda x, y: x / (y * y + 1),
                lambda x, y: x + y.mean(), lambda x, y: (x + y).sum(-1, True) * 0.1,
                lambda x, y: (x * 0.3).exp() - y[..., :1], lambda x, y: x * y.sigmoid(),
            ][step](x, y)  # fmt: skip
        return (values[0] * values[1]).sum(-1) + values[2].mean()

    compare(compute, compute, *arrays)


SECOND = {
    "exp": lambda x: x.exp(),
    "tanh of a product": lambda x: (x @ x.T).tanh(),
    "quotient": lambda x: x / (1 + x * x),
    "sqrt": lambda x: (x * x + 1).sqrt(),
    "mean and var": lambda x: (x - x.mean(-1, True)) / (x.var(-1, keepdim=True, correction=1) + 1).sqrt(),
    "views": lambda x: x[1:] * x.T[:1].T[:-1] + x[:1].expand(3, 3),
    "logsumexp": lambda x: x.logsumexp(-1),
    "pow": lambda x: (x * x) ** 1.5,
    "where": lambda x: x.relu() * x,
}


@pytest.mark.parametrize("name", SECOND)
def test_gradients_of_gradients(name):
    function = SECOND[name]
    array = draw((4, 3) if name == "views" else (3, 3))
    x = tw.tensor(array, requires_grad=True)
    z = to_torch(array, True)
    ours = theirs = None
    for order in range(1, 4):
        ours = (function(x) ** 2).sum() if ours is None else (ours**2).sum()
        theirs = (function(z) ** 2).sum() if theirs is None else (theirs**2).sum()
        (ours,) = tw.grad(ours, x, create_graph=True)
        (theirs,) = torch.autograd.grad(theirs, z, create_graph=True)
        assert_close(ours, theirs, 10.0 ** (order - 13))


KERNELS = {
    "softmax": (tw.kernels.softmax, lambda x: x.softmax(-1)),
    "log_softmax": (tw.kernels.log_softmax, lambda x: x.log_softmax(-1)),
    "layer_norm": (tw.kernels.layer_norm, lambda x: torch.nn.functional.layer_norm(x, (5,))),
    "gelu": (tw.kernels.gelu, torch.nn.functional.gelu),
    "silu": (tw.kernels.silu, torch.nn.functional.silu),
}


@pytest.mark.parametrize("name", KERNELS)
def test_gradients_of_gradients_of_prebuilt_ops(name):
    ours, theirs = KERNELS[name]
    array = draw((4, 5))
    x, z = tw.tensor(array, requires_grad=True), to_torch(array, True)
    (g,) = tw.grad((ours(x) ** 3).sum(), x, create_graph=True)
    (h,) = torch.autograd.grad((theirs(z) ** 3).sum(), z, create_graph=True)
    assert_close(g, h, 1e-11)
    (g * g).sum().backward()
    (h * h).sum().backward()
    assert_close(x.grad, z.grad, 1e-10)


def test_gradients_of_gradients_through_residuals():
    """Attention's backward reads residuals of its forward; its derivative computes them again."""
    arrays = [draw((4, 3), seed=s) for s in range(3)]
    mine = [tw.tensor(a, requires_grad=True) for a in arrays]
    other = [to_torch(a, True) for a in arrays]
    attend = torch.nn.functional.scaled_dot_product_attention
    g = tw.grad((tw.kernels.attention(*mine) ** 2).sum(), mine, create_graph=True)
    h = torch.autograd.grad((attend(*other) ** 2).sum(), other, create_graph=True)
    sum((x * x).sum() for x in g).backward()
    sum((x * x).sum() for x in h).backward()
    for x, z in zip(mine, other, strict=True):
        assert_close(x.grad, z.grad, 1e-9)


def test_finite_differences():
    rng = np.random.default_rng(4)
    array, direction = rng.standard_normal((2, 5, 6))

    def value(a):
        x = tw.as_tensor(a)
        return ((x @ x.T).sigmoid() * x.mean(1)).sum() + x.logsumexp(0).prod()

    x = tw.tensor(array, requires_grad=True)
    value(x).backward()
    step = 1e-5
    slope = (value(array + step * direction) - value(array - step * direction)).item() / (2 * step)
    np.testing.assert_allclose((x.grad.numpy() * direction).sum(), slope, rtol=1e-8)


@pytest.mark.parametrize("dtype", DTYPES)
def test_conversions_pass_gradients(dtype):
    wider = {"float64": "float32"}.get(dtype, "float64")
    compare(
        lambda x: (x.to(wider) * 3).to(dtype) * 2,
        lambda x: (x.to(getattr(torch, wider)) * 3).to(getattr(torch, dtype)) * 2,
        draw((4,), dtype),
    )


def test_conversion_of_half_precision_keeps_the_dtype_asked_for():
    x = tw.tensor([1.5, 2.25], dtype="float16")
    assert x.float().dtype == tw.float32
    assert x.to(tw.bfloat16).dtype == tw.bfloat16
    assert (x > 1.6).long().numpy().tolist() == [0, 1]


def test_comparisons_and_logic():
    a, b = tw.tensor([1, 2, 3]), tw.tensor([3, 2, 1])
    for name in ("lt", "le", "gt", "ge", "eq", "ne"):
        function = getattr(operator, name)
        np.testing.assert_array_equal(function(a, b).numpy(), function(a.numpy(), b.numpy()))
        np.testing.assert_array_equal(function(a, 2).numpy(), function(a.numpy(), 2))
    p, q = a < 3, a > 1
    np.testing.assert_array_equal(((p & q) | ~p ^ q).numpy(), ((a.numpy() < 3) & (a.numpy() > 1))
                                  | ~(a.numpy() < 3) ^ (a.numpy() > 1))  # fmt: skip
    assert (a << 2).tolist() == [4, 8, 12] and (a >> 1).tolist() == [0, 1, 1]


PAIRS = [
    ("int32", "float32", "float32"), ("int64", "float16", "float16"), ("bool", "int8", "int8"),
    ("uint8", "int8", "int16"), ("float16", "bfloat16", "float32"), ("float32", "float64", "float64"),
]  # fmt: skip


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_mixed_dtypes_meet_as_in_the_language(pair):
    a, b = tw.ones(3, dtype=pair[0]), tw.ones(3, dtype=pair[1])
    assert (a + b).dtype.name == (b * a).dtype.name == pair[2]


def test_integers():
    a = tw.tensor([7, -7, 5])
    assert (a // 2).tolist() == [3, -4, 2] and (a % 3).tolist() == [1, 2, 2]
    assert (a / 2).dtype == tw.float32
    assert (a**2).tolist() == [49, 49, 25] and (a**2).dtype == tw.int64
    assert (a * 0.5).dtype == tw.float32 and (a * 0.5).tolist() == [3.5, -3.5, 2.5]
    assert a.sum().dtype == tw.int64 and a.mean().dtype == tw.float32
    assert tw.tensor([1, 2], dtype="int8").sum().dtype == tw.int64
    assert (tw.tensor([1, 2], dtype="int8") + 3).dtype == tw.int8
    assert (tw.tensor([True, False]) + 1).tolist() == [2, 1]


def test_nan_and_infinities_propagate():
    x = tw.tensor([1.0, float("nan"), -float("inf")])
    assert np.isnan(x.max().item()) and np.isnan(x.clip(0, 1).numpy()[1]) and np.isnan(x.relu().numpy()[1])
    assert x.isnan().tolist() == [False, True, False] and x.isinf().tolist() == [False, False, True]


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_empty_tensors(shape):
    x = tw.zeros(*shape, requires_grad=True)
    y = (x * 2 + 1).sum()
    y.backward()
    assert y.item() == 0 and x.grad.shape == shape
    assert numbers(x.sum(0)).shape == shape[1:]
