"""Losses without dropout or penalties, with the window and batch sizes of a recipe."""

from collections.abc import Callable
from typing import Any

from heldout.core.losses import DocumentLosses
from heldout.core.recipe import Recipe
from heldout.jobs.kit.parts import Texts
from heldout.lm.nll import document_losses


def losses_of(model: Any, tokenizer: Any, rows: Any, recipe: Recipe) -> DocumentLosses:
    """Streaming losses with the recipe's window and batch sizes."""
    return document_losses(
        model,
        rows,
        tokenizer,
        max_length=recipe.data.max_length,
        batch_size=recipe.eval.batch_size,
    )


def measurer(
    model: Any, tokenizer: Any, recipe: Recipe, texts: Texts
) -> Callable[[str], DocumentLosses]:
    """Clean losses of the model as it is now on ``validation`` or ``train`` (``texts.beside``)."""
    beside = texts.beside

    def measure(part: str) -> DocumentLosses:
        rows = texts.validation if part == "validation" else beside
        return losses_of(model, tokenizer, rows, recipe)

    return measure
