"""``result.json`` of a run: where training ended, and the main numbers."""

from heldout.core.regularizer import Weights
from heldout.core.run import Run
from heldout.jobs.kit.condition import Trained
from heldout.jobs.kit.context import RunContext


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
    num_trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
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
            "parameters": sum(p.numel() for p in model.parameters()),
            "seconds_training": outcome.seconds,
            "finish": finished,
        },
    )


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
            "figures": figures,
        },
    )
