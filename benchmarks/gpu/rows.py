"""The rows of the GPU table: rows and norms of every length, losses, products, attention, and launches."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.nn import functional as F

import tilewright as tw
from benchmarks.families.rows import column_sum, row_sum
from benchmarks.gpu.work import HOST, SEED, Operation, Row, Shapes, Work, backward, forward, ours
from tests.kernels.test_convolution import channels_last
from tilewright import kernels as K

ELEMENTS = 2**27  # of an operand that no cache holds
LENGTHS = (4096, 16384, 65536, 262144)
BANDWIDTH, PRODUCT = "2.9 TB/s", "0.97 cuBLAS"


@tw.op
def squared_relu(x: tw.Tile["..."]):
    """max(x, 0)²"""
    return K.relu(x) * K.relu(x)


# --- rows -------------------------------------------------------------------------------------------------


def rows_of(length: int) -> Shapes:
    return {"x": (ELEMENTS // length, length)}


def softmax(length: int) -> Operation:
    return Operation(K.softmax, lambda x: F.softmax(x, -1), rows_of(length), {"x": (3, 33)})


def rms_norm(length: int, rows: int | None = None) -> Operation:
    shape = (rows or ELEMENTS // length, length)
    return Operation(
        lambda x, w: K.rms_norm(x, w, eps=1e-6),
        lambda x, w: F.rms_norm(x, (x.shape[-1],), w, 1e-6),
        {"x": shape, "w": shape[1:]},
        {"x": (3, 40), "w": (40,)},
    )


def layer_norm(length: int, rows: int | None = None) -> Operation:
    shape = (rows or ELEMENTS // length, length)
    return Operation(
        lambda x, w, b: K.layer_norm(x, w, b),
        lambda x, w, b: F.layer_norm(x, (x.shape[-1],), w, b),
        {"x": shape, "w": shape[1:], "b": shape[1:]},
        {"x": (3, 40), "w": (40,), "b": (40,)},
    )


def in_float32(operation: Operation) -> Operation:
    return replace(operation, dtype=torch.float32, tolerance=64)


def labels(device: str, sizes: Shapes) -> torch.Tensor:
    count, classes = sizes.get("x", ())[0], sizes["weight"][0] if "weight" in sizes else sizes["x"][1]
    generator = torch.Generator(device).manual_seed(SEED)
    return torch.randint(0, classes, (count,), generator=generator, device=device)


def cross_entropy(count: int, classes: int) -> Operation:
    return Operation(
        K.cross_entropy,
        F.cross_entropy,
        {"x": (count, classes), "target": (count,)},
        {"x": (5, 19), "target": (5,)},
        special={"target": labels},
        truth=lambda x, target: F.cross_entropy(x, target),
    )


ROWS = [
    *(
        forward(f"softmax {length}", "rows", softmax(length), aim=BANDWIDTH, compiles=length == LENGTHS[0])
        for length in LENGTHS
    ),
    *(
        forward(f"rms_norm {length}", "rows", rms_norm(length), aim=BANDWIDTH, compiles=length == LENGTHS[1])
        for length in LENGTHS
    ),
    *(forward(f"layer_norm {length}", "rows", layer_norm(length), aim=BANDWIDTH) for length in LENGTHS[::2]),
    backward("rms_norm 4096×16384", "rows", rms_norm(16384, 4096), aim="2.5 TB/s", compiles=True),
    backward("layer_norm 4096×16384", "rows", layer_norm(16384, 4096), aim="2.5 TB/s"),
    backward("rms_norm 64×1048576, float32", "rows", in_float32(rms_norm(2**20, 64)), aim="2 TB/s"),
    forward("cross_entropy 4096×32768", "rows", cross_entropy(4096, 32768), aim=BANDWIDTH, compiles=True),
    forward("cross_entropy 1024×131072", "rows", cross_entropy(1024, 131072), aim=BANDWIDTH),
    backward("cross_entropy 4096×32768", "rows", cross_entropy(4096, 32768), aim=BANDWIDTH),
]


# --- pointwise, sums, scans -------------------------------------------------------------------------------


@functools.cache
def angles(length: int, width: int, device: torch.device, dtype: torch.dtype) -> Any:
    """Cosines and sines of RoPE, which models in torch keep in a table."""
    rates = 10000.0 ** (-torch.arange(width // 2, device=device, dtype=torch.float64) * 2 / width)
    angle = torch.arange(length, device=device, dtype=torch.float64)[:, None] * rates
    whole = torch.cat([angle, angle], -1)
    return whole.cos().to(dtype), whole.sin().to(dtype)


def torch_rope(x: torch.Tensor) -> torch.Tensor:
    cosine, sine = angles(x.shape[-2], x.shape[-1], x.device, x.dtype)
    first, second = x.chunk(2, -1)
    return x * cosine + torch.cat([-second, first], -1) * sine


WIDE = {"x": (16384, 8192)}
PAIR = {"x": (16384, 8192), "gate": (16384, 8192)}
PLANE = {"x": (8192, 16384)}
CHANNELS = {"x": (32, 256, 64 * 64), "w": (256,), "b": (256,)}

OTHERS = [
    forward(
        "swiglu", "pointwise",
        Operation(K.swiglu, lambda x, gate: x * F.silu(gate), PAIR, {"x": (3, 9), "gate": (3, 9)}),
        aim=BANDWIDTH, compiles=True,
    ),
    forward(
        "squared ReLU", "pointwise",
        Operation(squared_relu, lambda x: F.relu(x) ** 2, WIDE, {"x": (3, 9)}), aim=BANDWIDTH,
    ),
    forward(
        "rope 8×16×4096×128", "pointwise",
        Operation(K.rope, torch_rope, {"x": (8, 16, 4096, 128)}, {"x": (2, 5, 8)}), aim=BANDWIDTH,
    ),
    forward(
        "row sum, float32", "sums",
        Operation(row_sum, lambda x: x.sum(1), PLANE, {"x": (5, 33)}, dtype=torch.float32, tolerance=64),
        aim=BANDWIDTH,
    ),
    forward(
        "column sum, float32", "sums",
        Operation(column_sum, lambda x: x.sum(0), PLANE, {"x": (33, 5)}, dtype=torch.float32, tolerance=64),
        aim=BANDWIDTH,
    ),
    forward(
        "cumsum, float32", "scans",
        Operation(
            K.cumsum, lambda x: x.cumsum(-1), PLANE, {"x": (3, 33)}, dtype=torch.float32, tolerance=256
        ),
        aim="torch",
    ),
    forward(
        "cumsum of one row, float32", "scans",
        Operation(
            K.cumsum, lambda x: x.cumsum(-1), {"x": (1, 2**26)}, {"x": (1, 99)}, dtype=torch.float32,
            tolerance=256,
        ),
        aim="torch",
    ),
    forward(
        "group_norm 32×256×64²", "rows",
        Operation(
            lambda x, w, b: K.group_norm(x, w, b, groups=32), lambda x, w, b: F.group_norm(x, 32, w, b),
            CHANNELS, {"x": (2, 64, 9), "w": (64,), "b": (64,)},
        ),
        aim="torch",
    ),
]  # fmt: skip


# --- products ---------------------------------------------------------------------------------------------


def product_operations(sizes: Shapes) -> float:
    (m, k), (_, n) = sizes["a"], sizes["b"]
    return 2.0 * m * n * k


def matmul(m: int, k: int, n: int) -> Operation:
    return Operation(
        K.matmul, torch.matmul, {"a": (m, k), "b": (k, n)}, {"a": (17, 33), "b": (33, 9)},
        operations=product_operations,
    )  # fmt: skip


def linear_operations(sizes: Shapes) -> float:
    (m, k), (n, _) = sizes["x"], sizes["weight"]
    return 2.0 * m * n * k


LINEAR = Operation(
    lambda x, weight, bias: K.linear(x, weight, bias, activation="gelu"),
    lambda x, weight, bias: F.gelu(F.linear(x, weight, bias)),
    {"x": (8192, 8192), "weight": (8192, 8192), "bias": (8192,)},
    {"x": (9, 17), "weight": (5, 17), "bias": (5,)},
    operations=linear_operations,
)
LINEAR_CROSS_ENTROPY = Operation(
    K.linear_cross_entropy,
    lambda x, weight, target: F.cross_entropy(F.linear(x, weight), target),
    {"x": (4096, 4096), "weight": (131072, 4096), "target": (4096,)},
    {"x": (6, 8), "weight": (11, 8), "target": (6,)},
    special={"target": labels},
    operations=linear_operations,
    scale=0.2,
    tolerance=8,
)
IMAGES = {"x": (32, 56, 56, 256), "weight": (256, 3, 3, 256)}


def convolution_operations(sizes: Shapes) -> float:
    (n, h, w, c), (o, r, s, _) = sizes["x"], sizes["weight"]
    return 2.0 * n * (h - r + 3) * (w - s + 3) * c * o * r * s


PRODUCTS = [
    *(
        forward(f"matmul {edge}³", "products", matmul(edge, edge, edge), aim=PRODUCT, compiles=edge == 4096)
        for edge in (1024, 2048, 4096, 8192)
    ),
    forward("matmul 8192×512×8192", "products", matmul(8192, 512, 8192), aim="cuBLAS"),
    forward("matmul 4095×4097×4093", "products", matmul(4095, 4097, 4093), aim="cuBLAS"),
    forward("matmul 256×65536×256", "products", matmul(256, 65536, 256), aim="cuBLAS"),
    forward("matmul 16×8192×8192", "products", matmul(16, 8192, 8192), aim="cuBLAS"),
    forward("linear + GELU 8192³", "products", LINEAR, aim="cuBLAS", compiles=True),
    forward(
        "linear + cross_entropy 4096×4096→131072", "products", LINEAR_CROSS_ENTROPY, aim="500 TFLOP/s"
    ),
    forward(
        "conv 3×3 256→256 56², NHWC", "products",
        Operation(
            lambda x, weight: K.conv2d_channels_last(x, weight, padding=1),
            lambda x, weight: channels_last(x, weight, padding=1),
            IMAGES, {"x": (2, 5, 6, 4), "weight": (3, 3, 3, 4)}, operations=convolution_operations,
        ),
        aim="torch",
    ),
]  # fmt: skip


# --- attention --------------------------------------------------------------------------------------------


def plain_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool = False) -> torch.Tensor:
    """softmax(q·kᵀ / √d)·v, head by head: in float64 the scores of all would fill a card."""
    return torch.stack([_head(*each, causal=causal) for each in zip(q, k, v, strict=True)])


def _head(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> torch.Tensor:
    scores = q @ k.T * q.shape[-1] ** -0.5
    if causal:
        later = torch.ones_like(scores, dtype=torch.bool).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    return scores.softmax(-1) @ v


def torch_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool = False) -> torch.Tensor:
    """torch's best: it takes four dimensions."""
    whole = (t.unsqueeze(0) for t in (q, k, v))
    return F.scaled_dot_product_attention(*whole, is_causal=causal).squeeze(0)


def attention(heads: int, length: int, causal: bool) -> Operation:
    shapes = dict.fromkeys("qkv", (heads, length, 128))
    pairs = (0.5 if causal else 1.0) * heads * length**2
    return Operation(
        lambda q, k, v, causal: K.attention(q, k, v, causal=causal), torch_attention, shapes,
        dict.fromkeys("qkv", (2, 9, 8)), truth=plain_attention, constants={"causal": causal},
        operations=lambda sizes: 4.0 * pairs * 128,
    )  # fmt: skip


ATTENTION = [
    forward("attention 16×4096×128", "attention", attention(16, 4096, False), aim="torch"),
    forward("attention 4×16384×128, causal", "attention", attention(4, 16384, True), aim="torch"),
    backward("attention 16×4096×128, causal", "attention", attention(16, 4096, True), aim="FA2"),
]


# --- launches ---------------------------------------------------------------------------------------------

DEPTH = 10


def _launches(call: Callable[[Any, Any], Any], peer: Callable[..., Any], graphed: bool) -> Any:
    def make(device: str, small: bool) -> Work:
        generator = torch.Generator(device).manual_seed(SEED)
        theirs = [torch.randn(16, generator=generator, device=device) for _ in range(2)]
        mine = [ours(t) for t in theirs]
        run = tw.graph(call, reuse=True) if graphed and device != "cpu" else call

        def results() -> list[torch.Tensor]:
            for _ in range(4):  # a graph's first calls are not those that are timed
                found = run(*mine)
            return [torch.from_numpy(found.cpu().numpy()).to(device)]

        return Work(
            lambda: run(*mine), lambda: peer(*theirs), None, results,
            lambda: [peer(*(t.double() for t in theirs))], 0, 0.0, 1e-5,
        )  # fmt: skip

    return make


def chain(x: Any, y: Any) -> Any:
    for _ in range(DEPTH):
        x = x * y + 1.0
    return x


LAUNCHES = [
    Row("x + y, 16 elements", "launch", _launches(lambda x, y: x + y, lambda x, y: x + y, False), "5 µs",
        clock=HOST),
    Row("20 ops on 16 elements", "launch", _launches(chain, chain, False), "100 µs", clock=HOST),
    Row("20 ops on 16 elements, one graph", "launch", _launches(chain, chain, True), "20 µs", clock=HOST),
]  # fmt: skip

TABLE = [*PRODUCTS, *ROWS, *OTHERS, *ATTENTION, *LAUNCHES]
