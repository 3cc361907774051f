"""Lines of equal loss over model size and tokens."""

from collections.abc import Sequence

import contourpy
import numpy as np

from heldout.report import words
from heldout.report.chart import Label, Mark, Table, thinned

NUM_LINES = 14
MAX_COLUMNS = 6


def isoloss_lines(
    N: Sequence[float], D: Sequence[float], loss: Sequence[Sequence[float | None]]
) -> tuple[list[Mark], list[Label]]:
    """Lines and the loss that each stands for; losses are (len(D), len(N)), None where unknown."""
    values = np.ma.masked_invalid(np.array(loss, dtype=float))
    # Both axes are logarithmic: lines between grid points are straight there.
    lines = contourpy.contour_generator(np.log10(N), np.log10(D), values)
    marks: list[Mark] = []
    labels: list[Label] = []
    for level in _levels(float(values.min()), float(values.max())):
        name = f"loss {level:.4g}"
        found = [10 ** np.asarray(points) for points in lines.lines(level)]
        for points in found:
            xs, ys = points.T.tolist()
            marks.append(Mark(xs, ys, "heldout", name, dash="solid", width=1.6))
        if found:
            longest = max(found, key=len)
            # At other places from line to line, so that labels do not stand on one another.
            x, y = longest[round((0.35, 0.5, 0.65)[len(labels) % 3] * (len(longest) - 1))]
            labels.append(Label(float(y), f"{level:.4g}", x=float(x)))
    return marks, labels


def isoloss_table(
    N: Sequence[float], D: Sequence[float], loss: Sequence[Sequence[float | None]]
) -> Table:
    """The loss at some of the sizes (across) and numbers of tokens (down)."""
    across = thinned(range(len(N)), MAX_COLUMNS)
    return Table(
        ("Tokens", *(f"{words.compact(N[place])} parameters" for place in across)),
        [
            (words.compact(D[row]), *(words.compact(loss[row][place]) for place in across))
            for row in reversed(thinned(range(len(D)), 2 * MAX_COLUMNS))
        ],
    )


def _levels(low: float, high: float) -> np.ndarray:
    """About as many round losses between the two."""
    rough = max(high - low, 1e-9) / NUM_LINES
    power = 10 ** np.floor(np.log10(rough))
    step = next(each * power for each in (1, 2, 2.5, 5, 10) if each * power >= rough)
    return np.arange(np.ceil(low / step), high / step) * step
