"""Lines of equal loss over model size and tokens, as a trace for a figure."""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from heldout.report import palette


def isoloss_lines(
    N: Sequence[float], D: Sequence[float], loss: Sequence[Sequence[float | None]], **options: Any
) -> go.Contour:
    """Losses are (len(D), len(N)), None where there is none; ``options`` go to plotly."""
    return go.Contour(
        x=N,
        y=D,
        z=[[None if value is None else round(value, 4) for value in row] for row in loss],
        contours={
            "coloring": "none",
            "showlabels": True,
            "labelfont": {"color": palette.light("ink"), "size": 11},
            "labelformat": ".2f",
        },
        ncontours=14,
        line={"color": palette.light("heldout"), "width": 1.6},
        showscale=False,
        hovertemplate="%{x:.2~e} parameters<br>%{y:.2~e} tokens<br>loss %{z:.3f}<extra></extra>",
        **options,
    )
