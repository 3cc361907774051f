"""``result.json`` of a run: where training ended, and the main numbers."""

from heldout.core.errors import UserError
from heldout.core.progress import Progress
from heldout.core.regularizer import Weights
from heldout.core.run import Run
from heldout.core.verdict import COLORS, Verdicts
from heldout.jobs.kit.condition import Trained
from heldout.jobs.kit.context import RunContext
from heldout.jobs.kit.find_rate import read_search
from heldout.lm.quantized import num_parameters
from heldout.training.trackers import tell_end


def write_result(
    context: RunContext,
    trained: Trained,
    *,
    learning_rate: float,
    best_step: int,
    best_epoch: float,
    best_weights: Weights,
    finished: dict[str, float],
) -> None:
    """What the main training did; ``finished`` are figures of what came after its last step."""
    model, outcome = trained.model, trained.outcome
    decay = trained.decay
    num_trained = num_parameters(model, trained=True)
    context.run.write_json(
        "result.json",
        {
            "schema": "heldout.result/1",
            "best_step": best_step,
            "best_epoch": best_epoch,
            "best_weights": best_weights,
            "last_step": outcome.step,
            "last_epoch": outcome.epoch,
            "steps_per_epoch": round(outcome.step / outcome.epoch) if outcome.epoch else 0,
            "stop_reason": outcome.reason,
            "learning_rate": learning_rate,
            "weight_decay": decay.decay if decay else None,
            "weight_decay_shrink": decay.shrink if decay else None,
            "best_weight_decay_shrink": decay.until(best_step) if decay else None,
            "method": context.recipe.model.method,
            "trained_parameters": num_trained,
            "parameters": num_parameters(model),
            "seconds_training": outcome.seconds,
            "finish": finished,
        },
    )


def validation_looks(run: Run) -> dict[str, int]:
    """How often the validation part, or folds, chose: among so many trainings, so many times.

    Of a trial of a learning rate its end counts alone, and of the trial that became the training
    nothing, as its evaluations are those of the training.
    """
    rates = read_search(run)
    rate_trials = len(rates.trials) - (1 if rates.handed_on else 0)
    searched = [
        entry
        for name in ("tuning.json", "ablation.json")
        if run.path(name).exists()
        for entry in run.read_json(name)["trials"]
    ]
    # Evaluations of a trial from before they were counted: one, at its end.
    seen = sum(entry.get("evaluations", 1) for entry in searched)
    # Where an average of weights was measured beside, two chose.
    own = sum(1 if entry.get("other_nll") is None else 2 for entry in run.history())
    return {
        "trainings": 1 + rate_trials + len(searched),
        "evaluations": own + rate_trials + seen,
    }


def write_figures(run: Run) -> None:
    """The main numbers by name, with time and memory, into ``result.json``."""
    figures = {}
    for measured in run.read_json("measurements.json")["measurements"]:
        if measured["status"] != "measured":
            continue
        figures[measured["name"]] = measured["value"]
        for control, contrast in measured["contrasts"].items():
            figures[f"{measured['name']}_minus_{control}"] = contrast["difference"]
            for end in ("low", "high"):  # None where the interval is withheld
                if contrast["interval"][end] is not None:
                    figures[f"{measured['name']}_minus_{control}_{end}"] = contrast["interval"][end]
    found = run.read_json("result.json")
    run.write_json(
        "result.json",
        {
            **found,
            "seconds": run.status.get("seconds", 0.0),
            "peak_gb": run.status.get("peak_gb", 0.0),
            "validation_looks": validation_looks(run),
            "figures": figures,
        },
    )


def tell_trackers(run: Run, verdict: Verdicts, progress: Progress) -> None:
    """Figures and verdicts; a tracker that fails by now costs no run its report."""
    found = run.read_json("result.json")
    colors = {f"verdict/{name}": COLORS.index(v.color) for name, v in verdict.verdicts.items()}
    try:
        tell_end(
            run.recipe.train.report_to,
            run.folder,
            step=found["last_step"],
            figures={f"heldout/{name}": value for name, value in found["figures"].items()} | colors,
            sentences={
                "headline": verdict.headline,
                **{f"verdict/{n}/words": v.sentence for n, v in verdict.verdicts.items()},
            },
        )
    except UserError as error:
        progress.note(f"warning: {error}")
