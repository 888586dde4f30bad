"""Plots as SVG, by logarithmic scales, in light and in dark: no library is worth its weight for three of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, log10
from pathlib import Path
from typing import Final

import msgspec

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 420, 70, 170, 54, 50

LIGHT: Final = {
    "paper": "#ffffff",
    "ink": "#1f2328",
    "muted": "#59636e",
    "grid": "#d8dee4",
    "c0": "#0b6e99",
    "c1": "#c2410c",
    "c2": "#15803d",
    "c3": "#7e22ce",
    "c4": "#525252",
}
DARK: Final = {
    "paper": "#0d1117",
    "ink": "#e6edf3",
    "muted": "#9198a1",
    "grid": "#30363d",
    "c0": "#58b7e0",
    "c1": "#f0883e",
    "c2": "#56d364",
    "c3": "#c58af9",
    "c4": "#b1bac4",
}
COLOURS: Final = 5


def drawing(width: int, height: int, title: str, description: str, parts: Sequence[str]) -> str:
    """Return an SVG with its colours, and with a title and a description for who does not see it.

    The parts have classes for what they are: ``ink``, ``muted`` and ``c0`` to ``c4`` are filled, ``grid`` and ``line``
    are drawn.
    """
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
            'aria-labelledby="title description" font-family="sans-serif" font-size="12">',
            f'<title id="title">{escape(title)}</title>',
            f'<desc id="description">{escape(description)}</desc>',
            "<style>",
            *_colours(LIGHT),
            ".line { fill: none; stroke-width: 2 }",
            "@media (prefers-color-scheme: dark) {",
            *_colours(DARK),
            "}",
            "</style>",
            f'<rect class="paper" width="{width}" height="{height}"/>',
            f'<text class="ink" x="12" y="22" font-size="15">{escape(title)}</text>',
            *parts,
            "</svg>\n",
        ]
    )


def _colours(colours: Mapping[str, str]) -> list[str]:
    filled = [f".{name} {{ fill: {colour} }}" for name, colour in colours.items() if name != "grid"]
    drawn = [f".line.{name} {{ fill: none; stroke: {colours[name]} }}" for name in map("c{}".format, range(COLOURS))]
    return [*filled, *drawn, f".grid {{ stroke: {colours['grid']} }}"]


def _grid(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="grid" x1="{x1:.0f}" y1="{y1:.0f}" x2="{x2:.0f}" y2="{y2:.0f}"/>'


def _text(x: float, y: float, text: str, of: str = "ink", anchor: str = "start") -> str:
    return f'<text class="{of}" x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{escape(text)}</text>'


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

    parts = [_text(LEFT, HEIGHT - 10, x, "muted"), _text(12, TOP - 12, y, "muted")]
    for exponent in range(low_x, high_x + 1):
        across, bottom = place((10.0**exponent, 10.0**low_y))
        parts.append(_grid(across, TOP, across, bottom))
        parts.append(_text(across, bottom + 16, f"{10**exponent:,}", "muted", "middle"))
    for exponent in range(low_y, high_y + 1):
        left, up = place((10.0**low_x, 10.0**exponent))
        parts.append(_grid(left, up, WIDTH - RIGHT, up))
        parts.append(_text(left - 6, up + 4, f"{10.0**exponent:g}", "muted", "end"))
    for number, (name, points) in enumerate(lines.items()):
        colour = f"c{number % COLOURS}"
        placed = [place(point) for point in points]
        path_of = " ".join(f"{across:.1f},{up:.1f}" for across, up in placed)
        parts.append(f'<polyline class="line {colour}" points="{path_of}"/>')
        parts += [f'<circle class="{colour}" cx="{across:.1f}" cy="{up:.1f}" r="3"/>' for across, up in placed]
        parts.append(_text(WIDTH - RIGHT + 12, TOP + 14 + 18 * number, name, colour))
    path.write_text(drawing(WIDTH, HEIGHT, title, f"{y} by {x}: {', '.join(lines)}.", parts))


class Row(msgspec.Struct, frozen=True):
    """A subject of a plot of dots.

    Attributes:
        figures: one for each panel, or why there is none.
        colour: the number of its colour.
    """

    name: str
    figures: Sequence[float | str]
    colour: int


def plot_dots(path: Path, title: str, panels: Sequence[str], rows: Sequence[Row]) -> None:
    """Write a plot with a row for each subject and a panel for each kind of figure, all greater than 0."""
    names, between, height = 262, 62, 24
    width = (WIDTH - names - between * len(panels)) / len(panels)
    bottom = 62 + height * len(rows)
    parts = [_text(names - 14, 62 + height * at + 16, row.name, f"c{row.colour}", "end") for at, row in enumerate(rows)]
    for number, panel in enumerate(panels):
        left = names + number * (width + between)
        found = [figure for row in rows if not isinstance(figure := row.figures[number], str)]
        low, high = floor(log10(min(found))), ceil(log10(max(found)))
        scale = width / max(high - low, 1)
        parts.append(_text(left, 48, panel))
        for exponent in range(low, max(high, low + 1) + 1):
            across = left + (exponent - low) * scale
            parts.append(_grid(across, 58, across, bottom))
            parts.append(_text(across, bottom + 16, f"{10.0**exponent:,g}", "muted", "middle"))
        for at, row in enumerate(rows):
            up = 62 + height * at + 12
            figure = row.figures[number]
            if isinstance(figure, str):
                parts.append(_text(left + 4, up + 4, figure, "muted"))
                continue
            across = left + (log10(figure) - low) * scale
            parts.append(_grid(left, up, across, up))
            parts.append(f'<circle class="c{row.colour}" cx="{across:.1f}" cy="{up:.1f}" r="5"/>')
            parts.append(_text(across + 9, up + 4, shown(figure)))
    said = "; ".join(
        f"{row.name}: {', '.join(each if isinstance(each, str) else shown(each) for each in row.figures)}"
        for row in rows
    )
    path.write_text(drawing(WIDTH, bottom + 28, title, f"{', '.join(panels)}. {said}.", parts))


def shown(figure: float) -> str:
    """Return a figure with no more digits than it can have."""
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.2g}" if abs(figure) < 10 else f"{figure:.0f}"
