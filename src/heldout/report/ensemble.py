"""The page of an ensemble: its loss over the number of members, and where that would end."""

from pathlib import Path

import plotly.graph_objects as go

from heldout.core.files import write_text
from heldout.core.measurement import Measurement
from heldout.core.results.ensemble import EnsembleResult
from heldout.report import words
from heldout.report.chart import Chart, Key, band, blank, horizontal, line, marker
from heldout.report.page import render_page

NAMES = {
    "one_member": "One member",
    "ensemble": "All members together",
    "ensemble_limit": "Members without end",
    "ensemble_remaining": "What more members could still gain",
}


def write_ensemble(result: EnsembleResult, path: Path) -> Path:
    """Write one self-contained HTML file; whole or not at all."""
    return write_text(path, render_ensemble(result))


def render_ensemble(result: EnsembleResult) -> str:
    """The page as text."""
    return render_page(
        "ensemble.html.j2",
        [members_curve(result)],
        title=f"Ensemble of {len(result.members)}: {words.last_name(result.model)}",
        result=result,
        names=NAMES,
        measured=[each for each in result.measurements if isinstance(each, Measurement)],
        missing=[each for each in result.measurements if not isinstance(each, Measurement)],
    )


def members_curve(result: EnsembleResult) -> Chart:
    """Test loss over the number of members, with the fitted law and its limit."""
    height = 400
    figure = blank(height)
    sizes, curve = result.sizes, result.curve
    legend = [Key("Mean over the ensembles of that size", "heldout_dots", "dots")]
    most = len(sizes)
    if curve and result.limit is not None:
        xs = [each.size for each in curve]
        most = int(max(xs))
        figure.add_trace(
            band(
                xs,
                [each.interval.low for each in curve],
                [each.interval.high for each in curve],
                "heldout_band",
            )
        )
        for part, dash in ((curve[: len(sizes)], "solid"), (curve[len(sizes) - 1 :], "dash")):
            figure.add_trace(
                go.Scatter(
                    x=[each.size for each in part],
                    y=[round(each.value, 5) for each in part],
                    mode="lines",
                    line=line("heldout", dash=dash),
                    hoverinfo="skip",
                )
            )
        horizontal(figure, result.limit.limit.value, "kept")
        legend += [
            Key("The law through them", "heldout"),
            Key("beyond what was measured", "heldout", "dash"),
            Key(f"Its {words.level(curve[0].interval)} interval", "heldout_band", "band"),
            Key("Members without end", "kept", "dot"),
        ]
    figure.add_trace(
        go.Scatter(
            x=[each.size for each in sizes],
            y=[round(each.nats_per_token, 5) for each in sizes],
            customdata=[(each.num_ensembles, words.interval(each.interval)) for each in sizes],
            mode="markers",
            marker=marker("heldout_dots", size=9),
            hovertemplate="%{x} members (%{customdata[0]} ensembles): %{y:.4f} "
            "(%{customdata[1]})<extra></extra>",
        )
    )
    figure.update_xaxes(title_text="members", dtick=max(1, most // 10), range=[0.5, most + 0.5])
    told = "; ".join(f"{each.size}: {words.number(each.nats_per_token)}" for each in sizes)
    return Chart(
        "members",
        "Test loss over the number of members",
        figure,
        "Nats per token on the sealed test, lower is better",
        f"Test loss by number of members: {told}.",
        "Each mark is the mean over the ensembles of that many members. The band resamples members "
        "and documents; the dashed part lies outside all that was measured."
        if curve
        else "Each mark is the mean over the ensembles of that many members.",
        height,
        tuple(legend),
    )
