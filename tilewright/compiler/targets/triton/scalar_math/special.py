"""The error function, ln Gamma and its derivative."""

from __future__ import annotations

from tilewright.compiler.targets.triton.scalar_math.helpers import define_both, polynomial

define_both(
    '''
def erfc_T(x):
    """1 - erf(x); from |x| = 1/2 on e^(-x²)·P((a-3) / (a+3)) / (1 + 2a) with a = |x|, or two less it."""
    a = tl.minimum(tl.abs(x), $ERFC_ZERO)
    t = (a - 3.0) / (a + 3.0)
    POLYNOMIAL p t
    square = a * a
    lost = tl.fma(a, a, -square)
    e = EXP(-square)
    e = e - e * lost
    y = DIVIDE(e * p, 1.0 + 2.0 * a)
    y = tl.where(x < 0, 2.0 - y, y)
    return tl.where(tl.abs(x) >= 0.5, y, 1.0 - tl.erf(x))
''',
    p="ERFCX",
)

define_both(
    '''
def lgamma_T(x):
    """log|Γ(x)|: y·P(y) about Γ(2), reached by Γ(x+1) = x·Γ(x); Stirling's series; reflection below -1/2."""
    a = tl.abs(x)
    low = a < 0.5
    # Γ(2 + y): y = x below 1/2, x - 1 up to 3/2, x - 2 beyond, after steps down from at most the limit
    w = tl.minimum(a, $STIRLING)
    product = tl.where(w < 0, w, 1.0)
    for _ in range($STEPS):
        step = w >= 2.5
        product = tl.where(step, product * (w - 1.0), product)
        w = tl.where(step, w - 1.0, w)
    y = tl.where(low, x, tl.where(a < 1.5, w - 1.0, w - 2.0))
    POLYNOMIAL p y
    logarithm = tl.log(tl.where(low, a * (1.0 + x), tl.where(a < 1.5, a, product)))
    near = y * p + tl.where(a < 1.5, -logarithm, logarithm)
    # Stirling: (a - 1/2)·(log a - 1) + (log 2π - 1)/2 + Σ B₂ₖ / (2k (2k-1) a²ᵏ⁻¹)
    i = 1.0 / tl.maximum(a, $STIRLING)
    z = i * i
    SERIES
    log_a = tl.log(a)
    far = (a - 0.5) * (log_a - 1.0) + (i * q + 0.4189385332046727)
    y = tl.where(a < $STIRLING, near, far)
    # Γ(-a)·Γ(a) = -π / (a·sin(πa))
    distance = tl.abs(a - round_T(a))
    sine = tl.sin($PI_HIGH * distance)
    reflected = 1.1447298858494002 - log_a - tl.log(sine) - y
    y = tl.where(x <= -0.5, tl.where(distance == 0, float("inf"), reflected), y)
    return tl.where(a == float("inf"), a, y)
'''.replace(
        "SERIES",
        polynomial(
            "q",
            "z",
            (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156, -3617 / 122400),
        ).replace("\n", "\n    "),
    ),
    p="LGAMMA",
)

define_both(
    '''
def digamma_T(x):
    """ψ(x) = (x - root)·P(x) on [1, 2], reached by ψ(x+1) = ψ(x) + 1/x; a series; reflection below zero."""
    v = tl.where(x < 0, 1.0 - x, x)
    w = tl.where(v < 1.0, v + 1.0, tl.minimum(v, $ASYMPTOTIC))
    total = tl.where(v < 1.0, -1.0 / tl.where(v < 1.0, v, 1.0), 0.0)
    for _ in range($STEPS):
        step = w > 2.0
        total = total + tl.where(step, 1.0 / tl.where(step, w - 1.0, 1.0), 0.0)
        w = tl.where(step, w - 1.0, w)
    u = w - 1.5
    POLYNOMIAL p u
    near = ((w - $ROOT_HIGH) - $ROOT_LOW) * p + total
    # log v - 1/(2v) - Σ B₂ₖ / (2k v²ᵏ)
    i = 1.0 / tl.maximum(v, $ASYMPTOTIC)
    z = i * i
    SERIES
    far = tl.log(v) - (0.5 * i + z * q)
    y = tl.where(v < $ASYMPTOTIC, near, far)
    # ψ(1 - x) = ψ(x) + π·cot(πx)
    distance = x - round_T(x)
    pole = (x <= 0) & (distance == 0)
    turn = $PI_HIGH * distance
    quarter = 0.5 - tl.abs(distance)
    cosine = tl.where(quarter < 0.25, tl.sin($PI_HIGH * quarter), tl.cos(turn))
    cotangent = cosine / tl.where(distance == 0, 1.0, tl.sin(turn))
    y = tl.where(x < 0, y - $PI_HIGH * cotangent, y)
    y = tl.where(pole, float("nan"), tl.where(x == x, y, x))
    return tl.where(x == 0, copysign_T(tl.abs(x) + 1.0, x) * -float("inf"), y)
'''.replace(
        "SERIES",
        polynomial(
            "q", "z", (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12, -3617 / 8160)
        ).replace("\n", "\n    "),
    ),
    p="DIGAMMA",
)
