"""The page of an ensemble: its loss over the number of members, and where that would end."""

from pathlib import Path

from heldout.core.files import write_text
from heldout.core.measurement import Measurement
from heldout.core.results.ensemble import EnsembleResult
from heldout.report import words
from heldout.report.chart import Axis, Chart, Figure, Key, Mark, Rule, Table, band, counted
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
    sizes, curve = result.sizes, result.curve
    legend = [Key("Mean over the ensembles of that size", "heldout_dots", "dots")]
    most = len(sizes)
    marks, rules = [], []
    if curve and result.limit is not None:
        xs = [each.size for each in curve]
        most = int(max(xs))
        lows = [each.interval.low for each in curve]
        highs = [each.interval.high for each in curve]
        marks.append(band(xs, lows, highs, "heldout_band"))
        for part, dash in ((curve[: len(sizes)], "solid"), (curve[len(sizes) - 1 :], "dash")):
            values = [each.value for each in part]
            marks.append(Mark([each.size for each in part], values, "heldout", dash=dash))
        rules.append(Rule("kept", y=result.limit.limit.value))
        legend += [
            Key("The law through them", "heldout"),
            Key("beyond what was measured", "heldout", "dash"),
            Key(f"Its {words.level(curve[0].interval)} interval", "heldout_band", "band"),
            Key("Members without end", "kept", "dot"),
        ]
    marks.append(
        Mark(
            [each.size for each in sizes],
            [each.nats_per_token for each in sizes],
            "heldout_dots",
            hover="%{x} members (%{ensembles} ensembles)\n%{y} (%{interval})",
            details={
                "ensembles": [words.integer(each.num_ensembles) for each in sizes],
                "interval": [words.interval(each.interval) for each in sizes],
            },
            symbol="circle",
            size=9,
        )
    )
    told = "; ".join(f"{each.size}: {words.number(each.nats_per_token)}" for each in sizes)
    return Chart(
        "members",
        "Test loss over the number of members",
        Figure(
            Axis(
                "members",
                low=0.5,
                high=most + 0.5,
                ticks=counted(range(1, most + 1, max(1, most // 10))),
            ),
            Axis(),
            marks,
            rules,
        ),
        "Nats per token on the sealed test, lower is better",
        f"Test loss by number of members: {told}.",
        "Each mark is the mean over the ensembles of that many members. The band resamples members "
        "and documents; the dashed part lies outside all that was measured."
        if curve
        else "Each mark is the mean over the ensembles of that many members.",
        Table(
            ("Members", "Ensembles", "Test loss", "Interval"),
            [
                (
                    str(each.size),
                    words.integer(each.num_ensembles),
                    words.number(each.nats_per_token, 4),
                    words.interval(each.interval),
                )
                for each in sizes
            ],
        ),
        400,
        tuple(legend),
    )
