"""The chart of a machine's results: each row's time against torch's, one bar a row, as an SVG picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from benchmarks.measure import COMPILED, EAGER, Measured

LINE, LABELS, PLOT, NUMBERS, TOP = 16, 400, 420, 60, 52  # pixels
SLOWEST, FASTEST = 0.25, 32.0  # ratios at the two ends of the axis
TICKS = (0.25, 0.5, 1, 2, 4, 8, 16, 32)
AHEAD, BEHIND, MARK, PLAIN = "#2c7fb8", "#d95f0e", "#31a354", "#444"


def chart(rows: Sequence[Measured], title: str) -> str:
    """Bars from 1 to each row's ratio against torch (a mark: torch.compile), on a logarithmic axis."""
    timed = [row for row in rows if row.right and _ratio(row, EAGER) is not None]
    height = TOP + LINE * len(timed) + LINE
    width = LABELS + PLOT + NUMBERS
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11" fill="{PLAIN}">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="8" y="16" font-size="13">{escape(title)}</text>',
        *_axis(height),
    ]
    for number, row in enumerate(timed):
        parts += _bar(row, TOP + LINE * number)
    return "\n".join([*parts, "</svg>", ""])


def _axis(height: int) -> Iterator[str]:
    for tick in TICKS:
        x = _place(tick)
        stroke = PLAIN if tick == 1 else "#ddd"
        yield f'<line x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{height - LINE}" stroke="{stroke}"/>'
        yield f'<text x="{x:.1f}" y="{TOP - 10}" text-anchor="middle">{tick:g}</text>'


def _bar(row: Measured, top: int) -> Iterator[str]:
    ratio, compiled = _ratio(row, EAGER), _ratio(row, COMPILED)
    assert ratio is not None
    low, high = sorted((_place(1), _place(ratio)))
    base = top + LINE - 5
    yield f'<text x="{LABELS - 8}" y="{base}" text-anchor="end">{escape(row.name)}</text>'
    yield (
        f'<rect x="{low:.1f}" y="{top + 2}" width="{max(high - low, 1):.1f}" height="{LINE - 4}" '
        f'fill="{AHEAD if ratio >= 1 else BEHIND}"/>'
    )
    if compiled is not None:
        x = _place(compiled)
        where = f'x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{top + LINE}"'
        yield f'<line {where} stroke="{MARK}" stroke-width="2"/>'
    yield f'<text x="{LABELS + PLOT + 8}" y="{base}">{ratio:.2f}</text>'


def _ratio(row: Measured, peer: str) -> float | None:
    found = row.peers.get(peer)
    return None if found is None else found.ratio


def _place(ratio: float) -> float:
    """Where a ratio lies on the axis; those beyond its ends lie at them."""
    inside = min(max(ratio, SLOWEST), FASTEST)
    return LABELS + PLOT * math.log(inside / SLOWEST) / math.log(FASTEST / SLOWEST)
