"""Attention against torch: masks, groups of heads, the module with its state; and its own options."""

import numpy as np
import pytest
import torch

import tilewright as tw
from tests.tensor.against_torch import assert_close, compare, draw, to_torch
from tilewright import nn
from tilewright.errors import ArgumentError, ShapeError
from tilewright.nn import functional as F
from tilewright.nn.functions.attention import alibi_slopes

T = torch.nn.functional.scaled_dot_product_attention


def seen(*shape):
    found = np.random.default_rng(4).random(shape) < 0.6
    found[..., 0] = True
    return found


@pytest.mark.parametrize(
    ("mask", "options"),
    [
        (seen(4, 6), {}),
        (seen(2, 1, 1, 6), {}),
        (draw((4, 4, 6), seed=5), {"scale": 0.3}),
        (None, {"is_causal": True, "enable_gqa": True}),
        (seen(2, 4, 4, 6), {"enable_gqa": True}),
        (draw((1, 4, 6), seed=5), {"enable_gqa": True}),
    ],
    ids=["mask", "key mask", "bias", "groups", "groups mask", "groups bias"],
)
@pytest.mark.everyday(3)
def test_scaled_dot_product_attention(mask, options):
    heads = 2 if options.get("enable_gqa") else 4
    arrays = draw((2, 4, 4, 5)), draw((2, heads, 6, 5), seed=1), draw((2, heads, 6, 3), seed=2)
    mine, other = (None, None) if mask is None else (tw.tensor(mask), torch.tensor(mask))
    compare(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, mine, **options),
        lambda q, k, v: T(q, k, v, other, **options),
        *arrays, relative=1e-10,
    )  # fmt: skip


def test_dropout_takes_weights_away_and_keeps_the_mean():
    x = tw.ones(1, 200, 4)
    value = tw.ones(1, 200, 4)
    y = F.scaled_dot_product_attention(x, x, value, dropout_p=0.5, generator=tw.Generator(0)).numpy()
    assert 0.05 < y.std() < 0.1 and abs(y.mean() - 1) < 0.02
    with pytest.raises(ArgumentError, match="pass seed"):
        tw.kernels.attention(x, x, value, dropout=0.5)


@pytest.mark.parametrize("heads", [1, 4, 6])
def test_slopes_of_heads(heads):
    """As the paper has them: a geometric series from 2^(-8 / heads) for powers of 2, else interleaved."""
    slopes = alibi_slopes(heads)
    wanted = {1: [2**-8], 4: [2**-2, 2**-4, 2**-6, 2**-8], 6: [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]}
    np.testing.assert_allclose(slopes, wanted[heads])
    q = draw((heads, 3, 4), "float32")
    found = F.scaled_dot_product_attention(*(tw.tensor(q),) * 3, slopes=tw.tensor(slopes, dtype="float32"))
    apart = np.abs(np.arange(3)[:, None] - np.arange(3))
    bias = torch.tensor(-np.array(slopes)[:, None, None] * apart, dtype=torch.float32)
    assert_close(found, T(*(to_torch(q),) * 3, bias), 1e-5)


MODULES = [
    {},
    {"bias": False, "batch_first": True},
    {"kdim": 5, "vdim": 3},
    {"add_bias_kv": True},
    {"add_zero_attn": True, "bias": False},
    {"add_bias_kv": True, "add_zero_attn": True, "batch_first": True, "kdim": 5, "vdim": 3},
]


def modules(**options):
    ours, theirs = nn.MultiheadAttention(8, 2, **options), torch.nn.MultiheadAttention(8, 2, **options)
    for number, parameter in enumerate(ours.parameters()):
        parameter.data.copy_(draw(parameter.shape, "float32", number, -0.5, 0.5))
    state = {n: to_torch(t.numpy()) for n, t in ours.state_dict().items()}
    assert list(state) == list(theirs.state_dict())
    theirs.load_state_dict(state)
    return ours, theirs


def compare_attention(ours, theirs, inputs, mine, other):
    a = [tw.tensor(x, requires_grad=True) for x in inputs]
    b = [to_torch(x, True) for x in inputs]
    (y, p), (z, q) = ours(*a, **mine), theirs(*b, **other)
    assert_close(y, z, 1e-4)
    assert (p is None) == (q is None)
    if q is not None:
        assert_close(p, q, 1e-4)
    cotangent = draw(y.shape, "float32", 9)
    y.backward(tw.tensor(cotangent))
    z.backward(to_torch(cotangent))
    for one, another in zip([*a, *ours.parameters()], [*b, *theirs.parameters()], strict=True):
        assert_close(one.grad, another.grad, 2e-4)


@pytest.mark.parametrize("options", MODULES, ids=str)
def test_multihead_attention(options):
    ours, theirs = modules(**options)
    widths = 8, options.get("kdim", 8), options.get("vdim", 8)
    first = options.get("batch_first")
    shapes = [((2, n) if first else (n, 2)) for n in (4, 6, 6)]
    inputs = [draw((*s, w), "float32", n) for n, (s, w) in enumerate(zip(shapes, widths, strict=True))]
    compare_attention(ours, theirs, inputs, {}, {})


def test_first_values_of_further_keys():
    tw.manual_seed(0)
    layer = nn.MultiheadAttention(400, 4, add_bias_kv=True)
    for row in (layer.bias_k, layer.bias_v):
        expected = torch.nn.init.xavier_normal_(torch.empty(row.shape)).std().item()
        assert row.detach().numpy().std() == pytest.approx(expected, rel=0.2)


FURTHER = {"add_bias_kv": True, "add_zero_attn": True}
KINDS = ["padding", "scores", "both", "added", "alone"]


@pytest.mark.parametrize(
    ("kind", "options"),
    [*((kind, {}) for kind in KINDS),
     *(pytest.param(kind, FURTHER, marks=[pytest.mark.exhaustive] * (kind != "both")) for kind in KINDS)],
    ids=str,
)  # fmt: skip
def test_masks_of_multihead_attention(kind, options):
    ours, theirs = modules(batch_first=True, **options)
    alone = kind == "alone"
    batch = () if alone else (2,)
    inputs = [draw((*batch, n, 8), "float32", n) for n in (4, 6, 6)]
    padding, scores = ~seen(*batch, 6), ~seen(4, 6)
    masks = {
        "padding": {"key_padding_mask": padding},
        "scores": {"attn_mask": scores, "average_attn_weights": False},
        "both": {"key_padding_mask": padding, "attn_mask": np.repeat(scores[None], 4, 0)},
        "added": {"attn_mask": draw((4, 6), "float32", 7), "need_weights": False},
        "alone": {"key_padding_mask": padding},
    }[kind]
    mine, other = ({n: m if isinstance(m, bool) else made(m) for n, m in masks.items()}
                   for made in (tw.tensor, torch.tensor))  # fmt: skip
    compare_attention(ours, theirs, inputs, mine, other)


def test_every_query_sees_the_further_keys():
    """Also where the others are hidden by a mask, or come later."""
    ours, theirs = modules(batch_first=True, **FURTHER)
    inputs = [draw((2, 4, 8), "float32", n) for n in range(3)]
    hidden = np.triu(np.ones((4, 4), bool), 1)
    compare_attention(ours, theirs, inputs, {"is_causal": True}, {"attn_mask": torch.tensor(hidden)})
    nothing = np.ones((2, 4), bool)
    mine, other = {"key_padding_mask": tw.tensor(nothing)}, {"key_padding_mask": torch.tensor(nothing)}
    compare_attention(ours, theirs, inputs, mine, other)


def test_a_query_that_sees_no_key_gives_the_bias_of_the_output():
    ours, _ = modules(batch_first=True)
    x = tw.tensor(draw((1, 3, 8), "float32"))
    y, p = ours(x, x, x, key_padding_mask=tw.tensor(np.ones((1, 3), bool)))
    np.testing.assert_array_equal(y.detach().numpy(), np.tile(ours.out_proj.bias.detach().numpy(), (1, 3, 1)))
    assert not p.detach().numpy().any()


def test_refusals():
    with pytest.raises(ArgumentError, match="8 features are not 3 heads of equally many"):
        nn.MultiheadAttention(8, 3)
    with pytest.raises(ShapeError, match="3 heads of queries cannot share 2 heads of keys"):
        F.scaled_dot_product_attention(tw.ones(3, 4, 5), tw.ones(2, 4, 5), tw.ones(2, 4, 5), enable_gqa=True)
