"""A plot as SVG, with both scales logarithmic: no library is worth its weight for two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, log10
from pathlib import Path

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 420, 70, 170, 40, 50
COLOURS = ("#0b6e99", "#c2410c", "#15803d", "#7e22ce", "#525252")


def plot(path: Path, title: str, x: str, y: str, lines: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Write a plot of lines, each a sequence of points greater than 0."""
    xs = [point[0] for points in lines.values() for point in points]
    ys = [point[1] for points in lines.values() for point in points]
    low_x, high_x = floor(log10(min(xs))), ceil(log10(max(xs)))
    low_y, high_y = floor(log10(min(ys))), ceil(log10(max(ys)))

    def place(point: tuple[float, float]) -> tuple[float, float]:
        across = (log10(point[0]) - low_x) / max(high_x - low_x, 1)
        up = (log10(point[1]) - low_y) / max(high_y - low_y, 1)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="22" font-size="15">{escape(title)}</text>',
        f'<text x="{LEFT}" y="{HEIGHT - 10}">{escape(x)}</text>',
        f'<text x="12" y="{TOP - 8}">{escape(y)}</text>',
    ]
    for exponent in range(low_x, high_x + 1):
        across, bottom = place((10.0**exponent, 10.0**low_y))
        parts.append(f'<line x1="{across:.0f}" y1="{TOP}" x2="{across:.0f}" y2="{bottom:.0f}" stroke="#ddd"/>')
        parts.append(f'<text x="{across:.0f}" y="{bottom + 16:.0f}" text-anchor="middle">{10**exponent:,}</text>')
    for exponent in range(low_y, high_y + 1):
        left, up = place((10.0**low_x, 10.0**exponent))
        parts.append(f'<line x1="{left:.0f}" y1="{up:.0f}" x2="{WIDTH - RIGHT}" y2="{up:.0f}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6:.0f}" y="{up + 4:.0f}" text-anchor="end">{10.0**exponent:g}</text>')
    for number, (name, points) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        placed = [place(point) for point in points]
        path_of = " ".join(f"{across:.1f},{up:.1f}" for across, up in placed)
        parts.append(f'<polyline points="{path_of}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{across:.1f}" cy="{up:.1f}" r="3" fill="{colour}"/>' for across, up in placed]
        row = TOP + 14 + 18 * number
        parts.append(f'<text x="{WIDTH - RIGHT + 12}" y="{row}" fill="{colour}">{escape(name)}</text>')
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")
