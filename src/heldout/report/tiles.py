"""The key figures under the headline: what was gained, where it peaked, what stopping saved."""

from dataclasses import dataclass

from heldout.core.finite import finite
from heldout.core.measurement import Interval
from heldout.report import words
from heldout.report.summary import RunSummary


@dataclass(frozen=True)
class Tile:
    """One key figure with its label above and its details below."""

    label: str
    value: str
    details: tuple[str, ...] = ()


def run_tiles(summary: RunSummary) -> list[Tile]:
    """Gain over the base model, where it peaked, what stopping saved, and the cost."""
    made = [_gain(summary), _peak(summary), _saved(summary), _cost(summary)]
    return [tile for tile in made if tile is not None]


def _gain(summary: RunSummary) -> Tile | None:
    name = f"{summary.unseen}_nll_best"
    contrast = summary.contrast(name, "base")
    best = summary.measured.get(name)
    unseen = "Out-of-fold loss" if summary.is_cross_validated else "Loss on unseen text"
    if contrast is not None and best is not None:
        before = best.value - contrast.difference
        bounds = contrast.interval
        return Tile(
            f"{unseen}, against base",
            f"{words.signed(contrast.difference)} nats/token",
            (
                words.with_level(bounds, sign=True),
                f"perplexity {words.perplexity(before)} → {words.perplexity(best.value)}",
            ),
        )
    kept, start = summary.kept, summary.history[0] if summary.history else None
    if kept is None or start is None or start.step != 0 or kept.step == 0:
        return None
    if kept.validation_nll is None or start.validation_nll is None:
        return None
    return Tile(
        "Validation loss so far, against base",
        f"{words.signed(kept.validation_nll - start.validation_nll)} nats/token",
        ("used to choose the checkpoint, so no proof: nothing was measured on sealed text",),
    )


def _peak(summary: RunSummary) -> Tile | None:
    result, kept = summary.result, summary.kept
    best_epoch = finite(result.get("best_epoch"))
    best_step = finite(result.get("best_step"))
    if best_epoch is None and kept is not None:
        best_epoch, best_step = kept.epoch, kept.step
    if best_epoch is None:
        return None
    details = []
    last_step = finite(result.get("last_step"))
    if best_step is not None and last_step is not None:
        details.append(f"step {int(best_step)} of {int(last_step)} trained")
    elif best_step is not None:
        details.append(f"step {int(best_step)}")
    if which := _weights(summary):
        details.append(which)
    if result.get("stop_reason"):
        details.append(f"ended: {result['stop_reason']}")
    label = "Peaked at" if summary.status.get("state") == "complete" else "Lowest so far"
    return Tile(label, f"Epoch {words.epoch(best_epoch)}", tuple(details))


def _weights(summary: RunSummary) -> str:
    """Which weights were kept; empty where there was no choice."""
    kept = summary.kept
    if kept is None or kept.other_nll is None or kept.validation_nll is None:
        is_averaged = summary.result.get("best_weights") == "average"
        return "averaged weights" if is_averaged else ""
    below = words.number(kept.other_nll - kept.validation_nll)
    if kept.weights == "average":
        return f"averaged weights: {below} below the raw ones on validation"
    return f"raw weights: {below} below their average on validation"


def _saved(summary: RunSummary) -> Tile | None:
    """What keeping the best instead of the last, or of a fixed number of epochs, is worth."""
    name = f"{summary.unseen}_nll_best"
    details = []
    value = ""
    best, last = (finite(summary.result.get(key)) for key in ("best_step", "last_step"))
    against_last = summary.contrast(name, "last")
    against_fixed = summary.contrast(name, "fixed_epochs")
    if best is not None and best == last:
        details.append("the last checkpoint is the kept one")
    elif against_last is not None:
        value = f"{words.number(-against_last.difference)} nats/token"
        details.append(f"against the last checkpoint ({_turned(against_last.interval)})")
    if against_fixed is not None:
        spared = words.number(-against_fixed.difference)
        plain, ends = _fixed_epochs(summary), _turned(against_fixed.interval)
        details.append(
            f"{spared} against {plain} without regularization ({ends})"
            if value
            else f"against {plain} without regularization ({ends})"
        )
        value = value or f"{spared} nats/token"
    planned, ended = _planned_epochs(summary), finite(summary.result.get("last_epoch"))
    if planned is not None and ended is not None and planned - ended >= 0.5:
        details.append(
            f"{words.epoch(planned - ended)} of {words.epoch(planned)} planned epochs not run"
        )
        value = value or f"{words.percent((planned - ended) / planned)} of the training"
    return Tile("Saved by keeping the best", value, tuple(details)) if value else None


def _cost(summary: RunSummary) -> Tile | None:
    seconds = finite(summary.result.get("seconds"))
    if seconds is None:
        return None
    details = []
    training = finite(summary.result.get("seconds_training"))
    if training is not None:
        details.append(f"{words.duration(training)} of it training")
    if summary.search is not None and (searching := summary.search.seconds_apart):
        details.append(f"{words.duration(searching)} of it the search for the learning rate")
    peak = finite(summary.result.get("peak_gb"))
    if peak is not None:
        details.append(f"at most {words.number(peak, 1)} GB of memory")
    return Tile("Took", words.duration(seconds), tuple(details))


def _turned(bounds: Interval) -> str:
    """The interval of the control minus the kept one."""
    return words.interval(bounds.moved(times=-1))


def _fixed_epochs(summary: RunSummary) -> str:
    epochs = summary.recipe.control.fixed_epochs if summary.recipe else 0
    return f"{words.epoch(epochs)} epochs" if epochs else "a fixed number of epochs"


def _planned_epochs(summary: RunSummary) -> float | None:
    return summary.recipe.train.max_epochs if summary.recipe else None
