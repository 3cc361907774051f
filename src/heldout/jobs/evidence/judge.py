"""From the evidence in a run folder to measurements, verdict, causes, report and model card."""

from dataclasses import asdict, replace
from typing import Any

from heldout.core.discovery import build, entries_of
from heldout.core.facts import Facts, HistoryPoint, SetupFault
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.probe import MODELS, Evidence
from heldout.core.recipe import Recipe
from heldout.core.run import Run
from heldout.core.verdict import Verdicts
from heldout.diagnosis.causes import find_causes
from heldout.diagnosis.remedies import remedies_for
from heldout.diagnosis.verdicts import verdicts_of
from heldout.jobs.evidence.measure import load_memorization, load_scores
from heldout.jobs.evidence.saved import load_generations, load_statistics
from heldout.jobs.kit.hashes import write_hashes
from heldout.jobs.kit.token_size import saved_token_size
from heldout.report.card import write_card
from heldout.report.page import write_run_report


def judge_run(run: Run) -> Verdicts:
    """Run every probe on the evidence in the folder, then write what follows from it."""
    recipe = run.recipe
    facts = facts_of_run(run, recipe)
    evidence = Evidence(
        {
            (model, part): found
            for model in MODELS
            for part in ("train", "validation", "test", "out_of_fold")
            if (found := run.losses(model, part)) is not None
        },
        load_scores(run),
        load_memorization(run),
        recipe.eval.min_effect,
        statistics={
            (model, part): load_statistics(path)
            for model in MODELS
            for part in ("train", "test")
            if (path := run.path(f"evaluations/{model}-{part}-readings.npz")).exists()
        },
        generations={
            (model, "test"): load_generations(path)
            for model in MODELS
            if (path := run.path(f"evaluations/{model}-generations.json")).exists()
        },
        facts=facts,
    ).adding(saved_token_size(run))
    measurements: list[Measurement | NotMeasured] = []
    for entry in entries_of("probe"):
        measurements += build("probe", entry.name, {}).measure(evidence)
    verdict = verdicts_of(
        measurements, min_effect=recipe.eval.min_effect, peak=_peak(run), facts=facts
    )
    causes = find_causes(measurements, facts, verdict.verdicts)
    verdict = replace(verdict, causes=causes)
    run.write_json(
        "measurements.json",
        {
            "schema": "heldout.measurements/1",
            "measurements": [measurement.to_json() for measurement in measurements],
        },
    )
    run.write_json("remedies.json", [asdict(remedy) for remedy in remedies_for(causes, facts)])
    run.write_json("verdict.json", verdict.to_json())
    return verdict


def facts_of_run(run: Run, recipe: Recipe, condition: str = "best") -> Facts:
    """What a run's own files tell of the training of ``best``, ``last`` or ``fixed_epochs``."""
    result = run.read_json("result.json") if run.path("result.json").exists() else {}
    about = run.read_json("data.json")
    is_control = condition == "fixed_epochs"
    last_epoch = recipe.control.fixed_epochs if is_control else result.get("last_epoch")
    regularizers = {} if is_control else recipe.regularizers
    history = tuple(
        HistoryPoint(
            entry["step"],
            entry["epoch"],
            entry.get("train_nll"),
            entry.get("validation_nll"),
            entry.get("learning_rate"),
        )
        for entry in run.history("control_history.jsonl" if is_control else "history.jsonl")
    )
    rate = result.get("learning_rate")
    checks = run.read_json("setup.json") if run.path("setup.json").exists() else []
    return Facts(
        num_train_rows=about["rows"]["train"],
        num_train_groups=about["groups"].get("train"),
        num_heldout_groups=about["groups"].get("test"),
        parameters=result.get("parameters"),
        trained_parameters=result.get("trained_parameters"),
        method=recipe.model.method,
        from_scratch=bool(run.read_json("environment.json").get("from_scratch")),
        epochs=result.get("best_epoch") if condition == "best" else last_epoch,
        total_epochs=last_epoch,
        learning_rate=rate,
        best_learning_rate=rate if recipe.train.learning_rate is None else None,
        batch_size=recipe.train.batch_size,
        # What a recipe does not name is off.
        weight_decay=_weight_decay(regularizers, result),
        dropout=regularizers.get("dropout", {"hidden": 0.0}).get("hidden"),
        regularizers=tuple(regularizers),
        duplicate_share=about["duplicates"] / max(1, about["rows"]["train"]),
        leak_share=0.0 if about["mode"] == "split" else None,
        history=history,
        checks=tuple(SetupFault(**check) for check in checks),
    )


def _weight_decay(regularizers: dict[str, dict[str, Any]], result: dict[str, Any]) -> float | None:
    """Per step and unit of learning rate; None where it is not known."""
    if "weight_decay" not in regularizers:
        return 0.0
    return regularizers["weight_decay"].get("rate", result.get("weight_decay"))


def publish(run: Run) -> None:
    """The report and the model card, from what lies in the folder, and hashes of it all."""
    write_card(run)
    write_run_report(run)
    write_hashes(run)


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
