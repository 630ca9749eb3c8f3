"""ln |Gamma|."""

from __future__ import annotations

import math
from functools import partial

from tilewright.compiler.targets.cpu.builder import F64, Builder, Value
from tilewright.compiler.targets.cpu.vector_math.formats import INFINITY, hexes
from tilewright.compiler.targets.cpu.vector_math.logarithm import log, log_in_two_parts
from tilewright.compiler.targets.cpu.vector_math.parts import (
    fast_two_sum,
    horner,
    two_product,
    two_sum,
)
from tilewright.compiler.targets.cpu.vector_math.trigonometric import sin

# In u, |u| <= 1/2: ln Gamma(t) / (t - 1) for t = 3/4 + u/2, / ((t - 1)(t - 2)) for t = 3/2 + u, / (t - 2) for
# t = 3 + 2u, and ln Gamma(t) itself for t = 6 + 4u; and what the first two coefficients of each lack.
_PIECES = (
    hexes(
        "-0x1.a051c372609eep-1 0x1.17486335fff9p-1 -0x1.709f65e47894ep-3 0x1.4f79918c96441p-4",
        "-0x1.5891e03a47df9p-5 0x1.782f325617816p-6 -0x1.a9f05074496ddp-7 0x1.ee2877e0f333cp-8",
        "-0x1.23bd066668812p-8 0x1.5d2012274704bp-9 -0x1.a645dd8cc7808p-10 0x1.019aad3f4be3fp-10",
        "-0x1.3ca0b909718e5p-11 0x1.878623ea1014p-12 -0x1.e56fbe7cad2d2p-13 0x1.2f16922906644p-13",
        "-0x1.881fcfa29545ep-14 0x1.eda58957fc669p-15 -0x1.dee049d47b49cp-16 0x1.2e42609e1abb9p-16",
        "-0x1.b2b92a2c6abd1p-16 0x1.152562e7b3072p-16",
    ),
    hexes(
        "0x1.eeb95b094c191p-2 -0x1.2aed059bd608ap-3 0x1.01af62a2929cp-4 -0x1.007aa83cee1acp-5",
        "0x1.133423527f1f2p-6 -0x1.34dbda14971e2p-7 0x1.64f0664c4f943p-8 -0x1.a5035232a7d25p-9",
        "0x1.f814bab49d011p-10 -0x1.313e8a3ddad6fp-10 0x1.750a7900f071ep-11 -0x1.cb44dee9facp-12",
        "0x1.1c7e3a261c9ebp-12 -0x1.623f109df00eep-13 0x1.b9e43433855c2p-14 -0x1.156abea920aefp-14",
        "0x1.68f13e0fbb796p-15 -0x1.c85e4bc95846cp-16 0x1.ba730a9784e07p-17 -0x1.18598e23bb974p-17",
        "0x1.9759e019683dp-17 -0x1.0467902760469p-17",
    ),
    hexes(
        "0x1.62e42fefa39efp-1 0x1.d64c012583fdfp-2 -0x1.0789a24308237p-3 0x1.a8f7a26d75c68p-5",
        "-0x1.90bbdd3858f9dp-6 0x1.9c394c61f6545p-7 -0x1.bfe2067563d29p-8 0x1.f903580ca4f18p-9",
        "-0x1.245ad02212781p-9 0x1.5934907270ba7p-10 -0x1.9dc61ce56cb9cp-11 0x1.f5d5153315bap-12",
        "-0x1.333be111be6a3p-12 0x1.7b09e80f9eb64p-13 -0x1.d56033e6d8ceap-14 0x1.24eb56fdbb146p-14",
        "-0x1.7b0be6c59deep-15 0x1.dd603a97d50d3p-16 -0x1.cec5fc4bafc43p-17 0x1.244e26e26c1bcp-17",
        "-0x1.a5bb321744f85p-17 0x1.0d1b570705cb4p-17",
    ),
    hexes(
        "0x1.326643c4479c9p+2 0x1.b4c420a50ad7cp+2 0x1.735973273d5e7p+0 -0x1.6626bc9b31b47p-2",
        "0x1.0262026c6e315p-3 -0x1.be37a89885552p-5 0x1.ab0713f9134dp-6 -0x1.b4c58e3ff22b5p-7",
        "0x1.d3f25b0699e43p-8 -0x1.0359981c2d9e2p-8 0x1.270573b127fcap-9 -0x1.567948e41af56p-10",
        "0x1.941b503e20b2ap-11 -0x1.e32016ce52e57p-12 0x1.234c7d41e9824p-12 -0x1.63490688cc6c6p-13",
        "0x1.c198933222efcp-14 -0x1.165f1d479f99dp-14 0x1.0dc5f1a3bbc21p-15 -0x1.4ff872b18833fp-16",
        "0x1.d52b3ebbd447ep-16 -0x1.28d1e099067dfp-16",
    ),
)
_LOWER_PARTS = (
    hexes("0x1.29294cce18aacp-56 0x1.85047b3ac0f66p-55"),
    hexes("0x1.3ed469cc0967dp-56 -0x1.519151869fe53p-60"),
    hexes("0x1.a1091df29b82p-56 0x1.65abc0d4bf2b1p-56"),
    hexes("0x1.a82d896062962p-53 0x1.bff0416ebd221p-55"),
)
# The same for f32, to 2^-32 of the value.
_SHORT_PIECES = (
    hexes(
        "-0x1.a051c3718ae2dp-1 0x1.174863357b6f4p-1 -0x1.709f69a4fc887p-3 0x1.4f799633d0c44p-4",
        "-0x1.588f28b5d02ffp-5 0x1.782bd3d03ac66p-6 -0x1.aaa7221d17eefp-7 0x1.ef0b279bc4799p-8",
        "-0x1.1904d6dc33a86p-8 0x1.4fd64ab0178d5p-9 -0x1.1b02ac8fbf21cp-9 0x1.5aa6e297d4d94p-10",
    ),
    hexes(
        "0x1.eeb95b088b4afp-2 -0x1.2aed059ae557cp-3 0x1.01af6605047e8p-4 -0x1.007aac768e839p-5",
        "0x1.1331affa01495p-6 -0x1.34d8cafa1ad61p-7 0x1.6595450d000ep-8 -0x1.a5d119fc28a5dp-9",
        "0x1.e4c0e6a79bcdp-10 -0x1.252f70a296e05p-10 0x1.f688e9ad7bd6ap-11 -0x1.36641a708a57ap-11",
    ),
    hexes(
        "0x1.62e42ff00b38dp-1 0x1.d64c012503bbcp-2 -0x1.0789a4149ce8ap-3 0x1.a8f7a6ee39c7fp-5",
        "-0x1.90b93af1efcb7p-6 0x1.9c3609b3eaef2p-7 -0x1.c093447655c71p-8 0x1.f9deb76029425p-9",
        "-0x1.19f622f94749p-9 0x1.4c5870278f192p-10 -0x1.1495de560c3d3p-10 0x1.51198fd5b0622p-11",
    ),
    hexes(
        "0x1.326643c4261ccp+2 0x1.b4c420a51efb4p+2 0x1.735973bdcbce5p+0 -0x1.6626be05388abp-2",
        "0x1.0261284d0ef57p-3 -0x1.be359c2a4103cp-5 0x1.ab79d69cf0407p-6 -0x1.b54f7a9d5829p-7",
        "0x1.c677de05234aap-8 -0x1.f6824d3a45fcp-9 0x1.81b2198e231dap-9 -0x1.c347acd384c9ap-10",
    ),
)
# B_2k / (2k (2k - 1)): ln Gamma(x) ~ (x - 1/2)(ln x - 1) + (ln 2 pi - 1) / 2 + sum_k of it / x^(2k - 1)
# (DLMF 5.11.1).
_STIRLING = (
    1 / 12,
    -1 / 360,
    1 / 1260,
    -1 / 1680,
    1 / 1188,
    -691 / 360360,
    1 / 156,
    -3617 / 122400,
    43867 / 244188,
)
_HALF_LOG_TWO_PI_LESS_ONE = 0.4189385332046727
_LOG_PI = hexes("0x1.250d048e7a1bdp+0 0x1.7abf2ad8d5088p-57")


def lgamma(b: Builder, x: Value) -> Value:
    """ln |Gamma(x)|; infinite at the poles 0, -1, -2, … and at both infinities.

    From -1/2 to 8 four polynomials, with the factors x - 1 and x - 2 that make its zeros exact, and
    ln Gamma(x) = ln Gamma(x + 1) - ln |x| up to 1/2; Stirling's series from 8 on. Below -1/2 it is
    ln pi - ln |x sin pi x| - ln Gamma(-x), whose error near the zeros is small beside 1, not beside the
    result. f32 is computed in f64, with shorter polynomials where no argument is below -1/2.
    """
    if x.type.kind == "f64":
        return _exact(b, x)
    wide = b.convert(x, "f64")
    with b.if_(b.any(b.cmp("lt", wide, -0.5)), [wide.type]) as choice:
        choice.yield_(_exact(b, wide))
        choice.otherwise()
        choice.yield_(_short(b, wide))
    return b.convert(choice.results[0], x.type.kind)


def _exact(b: Builder, x: Value) -> Value:
    """In f64; the terms are sums of two numbers until the last rounding."""
    size = b.abs(x)
    log_high, log_low = log_in_two_parts(b, size)
    piece = _Piece(b, x, size)
    high, low = _by_piece(b, piece)
    with_log = _sum_of_parts(b, (b.neg(log_high), b.neg(log_low)), (high, low))
    far_high, far_low = _stirling(b, size, log_high, log_low)
    far = b.cmp("ge", size, 8.0)
    high = b.select(far, far_high, b.select(piece.near_zero, with_log[0], high))
    low = b.select(far, far_low, b.select(piece.near_zero, with_log[1], low))
    y = b.add(high, low)
    reflected = b.cmp("lt", x, -0.5)
    with b.if_(b.any(reflected), [x.type]) as choice:
        opposite = _reflect(b, size, (log_high, log_low), (high, low))
        choice.yield_(b.select(reflected, opposite, y))
        choice.otherwise()
        choice.yield_(y)
    return _with_poles(b, x, size, choice.results[0])


def _short(b: Builder, x: Value) -> Value:
    """In f64 to the precision that f32 wants, for x >= -1/2."""
    size = b.abs(x)
    logarithm = log(b, size)
    piece = _Piece(b, x, size)
    constant, *slopes = (piece.choose(*row) for row in zip(*_SHORT_PIECES, strict=True))
    value = b.fma(piece.u, horner(b, piece.u, slopes), constant)
    near = b.add(b.mul(b.mul(piece.first, piece.second), value), 0.0)  # 0, not -0, at the zeros
    near = b.select(piece.near_zero, b.sub(near, logarithm), near)
    inverse = b.div(1.0, size)
    tail = horner(b, b.mul(inverse, inverse), _STIRLING[:3])
    tail = b.fma(inverse, tail, _HALF_LOG_TWO_PI_LESS_ONE)
    far = b.fma(b.sub(size, 0.5), b.sub(logarithm, 1.0), tail)
    return _with_poles(b, x, size, b.select(b.cmp("ge", size, 8.0), far, near))


def _with_poles(b: Builder, x: Value, size: Value, y: Value) -> Value:
    pole = b.and_(b.cmp("le", x, 0.0), b.cmp("eq", b.floor(x), x))
    overflow = b.cmp("gt", size, 2.6e305)
    return b.select(b.or_(pole, overflow), INFINITY, b.select(b.cmp("eq", x, x), y, x))


class _Piece:
    """The polynomial's argument for each lane, size up to 8 or x + 1 where size <= 1/2, and its factors."""

    def __init__(self, b: Builder, x: Value, size: Value) -> None:
        self._b = b
        self.near_zero = b.cmp("le", size, 0.5)
        t = b.select(self.near_zero, b.add(x, 1.0), size)
        self._above = above1, above2, above4 = tuple(b.cmp("gt", t, bound) for bound in (1.0, 2.0, 4.0))
        self.u = b.fma(t, self.choose(2.0, 1.0, 0.5, 0.25), -1.5)
        from1, from2 = b.select(self.near_zero, x, b.sub(t, 1.0)), b.sub(t, 2.0)
        self.first = b.select(above4, 1.0, b.select(above2, from2, from1))
        self.second = b.select(b.and_(above1, b.not_(above2)), from2, 1.0)

    def choose(self, up_to_1: float, up_to_2: float, up_to_4: float, up_to_8: float) -> Value:
        """The number of each lane's piece."""
        b, (above1, above2, above4) = self._b, self._above
        constant = partial(b.constant, type=F64.vector(above1.lanes) if above1.lanes else F64)
        lower = b.select(above1, constant(up_to_2), constant(up_to_1))
        return b.select(above2, b.select(above4, constant(up_to_8), constant(up_to_4)), lower)


def _by_piece(b: Builder, piece: _Piece) -> tuple[Value, Value]:
    """ln Gamma at the piece's argument."""
    u = piece.u
    constant, slope, *rest = (piece.choose(*row) for row in zip(*_PIECES, strict=True))
    constant_low, slope_low = (piece.choose(*row) for row in zip(*_LOWER_PARTS, strict=True))
    slope, lost = fast_two_sum(b, slope, b.mul(u, horner(b, u, rest)))
    product, rounded = two_product(b, u, slope)
    value, carried = fast_two_sum(b, constant, product)
    value_low = b.add(carried, b.fma(u, b.add(lost, slope_low), b.add(rounded, constant_low)))
    factor, factor_low = two_product(b, piece.first, piece.second)
    high, low = two_product(b, factor, value)
    return high, b.add(low, b.fma(factor, value_low, b.mul(factor_low, value)))


def _stirling(b: Builder, size: Value, log_high: Value, log_low: Value) -> tuple[Value, Value]:
    less, lost = fast_two_sum(b, log_high, b.constant(-1.0, size.type))
    shifted, dropped = fast_two_sum(b, size, b.constant(-0.5, size.type))
    high, low = two_product(b, shifted, less)
    low = b.fma(shifted, b.add(lost, log_low), b.fma(dropped, less, low))
    inverse = b.div(1.0, size)
    square = b.mul(inverse, inverse)
    tail = b.fma(inverse, horner(b, square, _STIRLING), _HALF_LOG_TWO_PI_LESS_ONE)
    return fast_two_sum(b, high, b.add(low, tail))


def _reflect(b: Builder, size: Value, log_size: tuple[Value, Value], opposite: tuple[Value, Value]) -> Value:
    distance = b.sub(size, b.round_even(size))
    sine = b.abs(sin(b, b.mul(distance, math.pi)))
    log_sine = log_in_two_parts(b, sine)
    logs = _sum_of_parts(b, log_size, log_sine)
    pi_high, pi_low = (b.constant(part, size.type) for part in _LOG_PI)
    taken = _sum_of_parts(b, logs, opposite)
    high, low = two_sum(b, pi_high, b.neg(taken[0]))
    return b.add(high, b.add(low, b.sub(pi_low, taken[1])))


def _sum_of_parts(b: Builder, x: tuple[Value, Value], y: tuple[Value, Value]) -> tuple[Value, Value]:
    high, low = two_sum(b, x[0], y[0])
    return high, b.add(low, b.add(x[1], y[1]))
