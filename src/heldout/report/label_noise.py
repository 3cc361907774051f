"""How answers look after their own prompts and after swapped ones, as a figure."""

import numpy as np
import plotly.graph_objects as go

from heldout.core.results.label_noise import LabelNoise
from heldout.report import palette, words
from heldout.report.chart import Chart, Key, blank, line, vertical


def label_noise_chart(noise: LabelNoise) -> Chart:
    """Two histograms of the excess loss; what lies right of 0 is in doubt."""
    height = 320
    figure = blank(height)
    both = np.array([*noise.excess_bits, *noise.swapped_excess_bits])
    # A few answers far out would leave no room for the rest.
    low, high = np.quantile(both, (0.005, 0.995))
    low, high = min(low, -0.05), max(high, 0.05)
    edges = np.linspace(low, high, 41)
    for values, name, token, fill, dash in (
        (noise.excess_bits, "as they stand", "train", "train_band", "solid"),
        (noise.swapped_excess_bits, "swapped on purpose", "heldout", "heldout_band", "dash"),
    ):
        counts, _ = np.histogram(np.clip(values, low, high), bins=edges)
        figure.add_trace(
            go.Scatter(
                x=((edges[1:] + edges[:-1]) / 2).tolist(),
                y=counts.tolist(),
                mode="lines",
                line={**line(token, width=1.6, dash=dash), "shape": "hvh"},
                fill="tozeroy",
                fillcolor=palette.light(fill),
                hovertemplate=f"%{{x:.2f}}: %{{y}} answers {name}<extra></extra>",
            )
        )
    vertical(figure, 0, "base", "the own prompt says nothing", "center")
    figure.update_xaxes(title_text="bits per token after the own prompt minus after others")
    figure.update_yaxes(rangemode="tozero")
    above = [
        float(np.mean(np.array(values) > 0))
        for values in (noise.excess_bits, noise.swapped_excess_bits)
    ]
    return Chart(
        "label-noise",
        "Do the answers belong to their prompts?",
        figure,
        "Answers, under models that have not seen them",
        f"Two histograms: right of zero lie {words.percent(above[0])} of the answers as they stand "
        f"and {words.percent(above[1])} of answers swapped on purpose.",
        "An answer left of the line is likelier after its own prompt than after those of other "
        "rows. A wrong answer is not, nor is one that any prompt could have. The dashed curve "
        "shows the same answers with prompts swapped on purpose: where the two curves lie apart, "
        "swaps can be seen.",
        height,
        (
            Key("As they stand", "train"),
            Key("Swapped on purpose", "heldout", "dash"),
        ),
    )
