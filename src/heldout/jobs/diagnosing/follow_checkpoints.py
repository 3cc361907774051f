"""Losses along a training, from the checkpoints that it left."""

from pathlib import Path

import numpy as np

from heldout.core.facts import HistoryPoint
from heldout.core.losses import DocumentLosses
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.diagnosis.over_epochs import STANDARD_ERRORS
from heldout.jobs.diagnosing.find_log import find_state
from heldout.jobs.diagnosing.find_target import step_of
from heldout.jobs.diagnosing.trainer_logs import read_logs
from heldout.jobs.evidence.texts import DiagnosedTexts, spread
from heldout.jobs.kit.clean_losses import losses_of
from heldout.lm.accelerator import empty_cache, training_device
from heldout.lm.chat_template import with_template_arguments
from heldout.lm.load import LoadedModel, load_model
from heldout.lm.quantized import quantization_of

MOST_CHECKPOINTS = 8


def load(place: str, recipe: Recipe, like: LoadedModel | None = None) -> LoadedModel:
    """A model or an adapter merged into its base, on the device that trains.

    ``like``: a model whose weights were loaded as this one's are to be.
    """
    loaded = load_model(
        place,
        device=training_device(),
        trust_remote_code=recipe.model.trust_remote_code,
        quantization=None if like is None else quantization_of(like.model),
    )
    with_template_arguments(loaded.tokenizer, recipe.data.template_arguments)
    return loaded


def follow(
    checkpoints: list[Path],
    texts: DiagnosedTexts,
    recipe: Recipe,
    progress: Progress,
    of_base: DocumentLosses | None = None,
) -> tuple[dict[tuple[str, str], DocumentLosses], list[HistoryPoint]]:
    """Losses of the checkpoints on both samples, the first and the last among them.

    ``of_base``: those of the base on the held-out sample, with which errors of a rise count.
    """
    chosen = spread(checkpoints, MOST_CHECKPOINTS)
    losses: dict[tuple[str, str], DocumentLosses] = {}
    points = []
    unseen = [of_base] if of_base is not None else []
    with progress.stage("checkpoints", len(chosen)):
        for folder in chosen:
            loaded = load(str(folder), recipe)
            state = find_state(folder)
            step = step_of(folder)
            epoch = read_logs(state).facts.epochs if state else None
            for part, rows in (("train", texts.train), ("test", texts.heldout)):
                losses[folder.name, part] = losses_of(loaded.model, loaded.tokenizer, rows, recipe)
            points.append(
                HistoryPoint(
                    step,
                    epoch if epoch is not None else float(step),
                    losses[folder.name, "train"].nats_per_token,
                    losses[folder.name, "test"].nats_per_token,
                    validation_error=_error(losses[folder.name, "test"], unseen),
                )
            )
            unseen.append(losses[folder.name, "test"])
            del loaded
            empty_cache()
            progress.advance(1, folder.name)
    return losses, points


def _error(found: DocumentLosses, earlier: list[DocumentLosses]) -> float | None:
    """Standard error of a held-out loss minus the lowest before it, paired by document."""
    best = min(earlier, key=lambda each: each.nats_per_token, default=found)
    alike = np.array_equal(best.num_tokens_D, found.num_tokens_D)
    if best.nats_per_token >= found.nats_per_token or not alike or found.num_groups < 2:
        return None
    interval = found.minus(best).interval
    return None if interval.is_withheld else (interval.high - interval.low) / (2 * STANDARD_ERRORS)
