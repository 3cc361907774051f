"""How answers look after their own prompts and after swapped ones, as a figure."""

import numpy as np

from heldout.core.results.label_noise import LabelNoise
from heldout.report import words
from heldout.report.chart import Axis, Chart, Figure, Key, Mark, Rule, table_of


def label_noise_chart(noise: LabelNoise) -> Chart:
    """Two histograms of the excess loss; what lies right of 0 is in doubt."""
    both = np.array([*noise.excess_bits, *noise.swapped_excess_bits])
    # A few answers far out would leave no room for the rest.
    low, high = np.quantile(both, (0.005, 0.995))
    low, high = min(float(low), -0.05), max(float(high), 0.05)
    edges = np.linspace(low, high, 41)
    marks = []
    for values, name, token, fill, dash in (
        (noise.excess_bits, "As they stand", "train", "train_band", "solid"),
        (noise.swapped_excess_bits, "Swapped on purpose", "heldout", "heldout_band", "dash"),
    ):
        counts, _ = np.histogram(np.clip(values, low, high), bins=edges)
        marks.append(
            Mark(
                ((edges[1:] + edges[:-1]) / 2).tolist(),
                counts.tolist(),
                token,
                name=name,
                hover="%{x}: %{y} answers",
                dash=dash,
                width=1.6,
                fill=fill,
                is_stepped=True,
            )
        )
    above = [
        float(np.mean(np.array(values) > 0))
        for values in (noise.excess_bits, noise.swapped_excess_bits)
    ]
    return Chart(
        "label-noise",
        "Do the answers belong to their prompts?",
        Figure(
            Axis("bits per token after the own prompt minus after others", low=low, high=high),
            Axis(low=0),
            marks,
            [Rule("base", x=0, label="the own prompt says nothing")],
        ),
        "Answers, under models that have not seen them",
        f"Two histograms: right of zero lie {words.percent(above[0])} of the answers as they stand "
        f"and {words.percent(above[1])} of answers swapped on purpose.",
        "An answer left of the line is likelier after its own prompt than after those of other "
        "rows. A wrong answer is not, nor is one that any prompt could have. The dashed curve "
        "shows the same answers with prompts swapped on purpose: where the two curves lie apart, "
        "swaps can be seen.",
        table_of("bits per token", marks),
        320,
        (
            Key("As they stand", "train"),
            Key("Swapped on purpose", "heldout", "dash"),
        ),
    )
