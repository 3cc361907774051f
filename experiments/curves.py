"""Curves as a small SVG picture, for the README of an experiment."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 420, 250, 52, 12, 28, 40


@dataclass(frozen=True)
class Curve:
    """One line; ``color`` is its number in the palette."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    color: int
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """One pair of axes with its curves; the axes begin at the smallest value drawn."""

    title: str
    x_label: str
    curves: Sequence[Curve]
    log_x: bool = True
    log_y: bool = False


def write_curves(path: Path, panels: Sequence[Panel]) -> None:
    """Panels side by side, each with its own legend, on white."""
    width, height = WIDTH * len(panels), HEIGHT + 18 * max(len(p.curves) for p in panels) + 6
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for number, panel in enumerate(panels):
        parts.append(f'<g transform="translate({number * WIDTH} 0)">{_panel(panel)}</g>')
    path.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


def _panel(panel: Panel) -> str:
    x_of, x_ticks = _axis([x for c in panel.curves for x in c.x], panel.log_x, LEFT, WIDTH - RIGHT)
    y_of, y_ticks = _axis([y for c in panel.curves for y in c.y], panel.log_y, HEIGHT - BOTTOM, TOP)
    parts = [
        f'<text x="{LEFT}" y="16" font-weight="600">{html.escape(panel.title)}</text>',
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">'
        f"{html.escape(panel.x_label)}</text>",
    ]
    for y in y_ticks:
        parts.append(
            f'<path d="M{LEFT} {y_of(y):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
            f'<text x="{LEFT - 5}" y="{y_of(y) + 4:.1f}" text-anchor="end">{y:g}</text>'
        )
    for x in x_ticks:
        parts.append(
            f'<text x="{x_of(x):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{x:g}</text>'
        )
    for number, curve in enumerate(panel.curves):
        points = " ".join(
            f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in zip(curve.x, curve.y, strict=True)
        )
        dash = ' stroke-dasharray="5 3"' if curve.dashed else ""
        line = f'fill="none" stroke="{COLORS[curve.color]}" stroke-width="1.8"{dash}'
        at = HEIGHT + 18 * number + 8
        parts.append(
            f'<polyline points="{points}" {line}/><path d="M{LEFT} {at}h26" {line}/>'
            f'<text x="{LEFT + 34}" y="{at + 4}">{html.escape(curve.label)}</text>'
        )
    return "\n".join(parts)


def _axis(values: list[float], log: bool, start: float, stop: float):
    """Where a value lies between ``start`` and ``stop``, and the values to label."""
    low, high = min(values), max(values)
    if log:
        a, b = math.log10(low), math.log10(high)
        ticks = [10.0**n for n in range(math.ceil(a - 1e-9), math.floor(b + 1e-9) + 1)]
        ticks = ticks if len(ticks) > 1 else [low, high]
        return lambda v: start + (math.log10(v) - a) / ((b - a) or 1) * (stop - start), ticks
    rough = ((high - low) or 1) / 4
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= rough)
    ticks = [step * n for n in range(math.ceil(low / step - 1e-9), int(high / step + 1e-9) + 1)]
    return lambda v: start + (v - low) / ((high - low) or 1) * (stop - start), ticks
