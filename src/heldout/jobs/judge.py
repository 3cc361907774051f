"""From the losses in a run folder to measurements, verdict, report and model card."""

from heldout.advice.lights import judge as judge_lights
from heldout.core.discovery import build, entries_of
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.probe import Evidence
from heldout.core.run import Run
from heldout.core.verdict import Verdict
from heldout.jobs.measure import load_recitals, load_scores
from heldout.report.card import write_card
from heldout.report.page import write_report


def judge(run: Run) -> Verdict:
    """Run every probe on the evidence in the folder, then write what follows from it."""
    losses = {
        (model, part): found
        for model in ("base", "best", "last", "fixed_epochs")
        for part in ("train", "validation", "test", "out_of_fold")
        if (found := run.losses(model, part)) is not None
    }
    recipe = run.recipe
    evidence = Evidence(losses, load_scores(run), load_recitals(run), recipe.eval.min_effect)
    measurements: list[Measurement | NotMeasured] = []
    for entry in entries_of("probe"):
        measurements += build("probe", entry.name, {}).measure(evidence)
    verdict = judge_lights(measurements, min_effect=recipe.eval.min_effect, peak=_peak(run))
    run.write_json(
        "measurements.json",
        {
            "schema": "heldout.measurements/1",
            "measurements": [measurement.to_json() for measurement in measurements],
        },
    )
    run.write_json("verdict.json", verdict.to_json())
    return verdict


def publish(run: Run) -> None:
    """The report and the model card, from what lies in the folder."""
    write_card(run)
    write_report(run)


def _peak(run: Run) -> str:
    if not run.path("result.json").exists():
        return ""
    result = run.read_json("result.json")
    if result["best_step"] == 0:
        return "No checkpoint was better than the base model: training did not help."
    if run.path("cross_validation.json").exists():
        return f"Cross-validation puts the lowest loss at epoch {result['best_epoch']:.2g}."
    if result["best_step"] == result["last_step"]:
        return f"The loss was still falling at the end, epoch {result['last_epoch']:.3g}."
    return (
        f"It peaked at epoch {result['best_epoch']:.3g} of {result['last_epoch']:.3g} trained "
        f"(step {result['best_step']})."
    )
