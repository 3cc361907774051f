"""One model on the rows of one part, with the window and batch sizes of the recipe."""

from collections.abc import Callable
from typing import Any

from heldout.core.pass_statistics import Generations, PassStatistics
from heldout.core.recipe import Recipe
from heldout.core.row import Row
from heldout.core.token_size import TokenSize
from heldout.lm.load import LoadedModel
from heldout.lm.measuring.generations import PROMPT_TOKENS, generations
from heldout.lm.measuring.pass_statistics import pass_statistics
from heldout.lm.nll import context_length

NUM_PROMPTS = 64
NEW_TOKENS = 64


def read_part(
    loaded: LoadedModel,
    rows: list[Row],
    recipe: Recipe,
    size: TokenSize,
    advance: Callable[[int], None] | None = None,
) -> PassStatistics:
    """All that one pass tells of the rows."""
    return pass_statistics(
        loaded.model,
        rows,
        loaded.tokenizer,
        max_length=max_length_of(loaded, recipe),
        batch_size=recipe.eval.batch_size,
        size=size,
        progress=advance,
    )


def write_part(
    loaded: LoadedModel, rows: list[Row], recipe: Recipe, size: TokenSize
) -> Generations:
    """Greedy continuations of some of the rows, the same for every model."""
    options = writing_options(loaded, recipe, size)
    return generations(loaded.model, loaded.tokenizer, rows, **options)


def writing_options(loaded: LoadedModel, recipe: Recipe, size: TokenSize) -> dict[str, Any]:
    """How much is written behind how much of how many rows."""
    # A model of few positions needs half of them for what it is to continue.
    limit = (context_length(loaded.model) or 2**31) // 2
    return {
        "num_prompts": NUM_PROMPTS,
        "prompt_tokens": min(size.tokens(PROMPT_TOKENS), max(PROMPT_TOKENS, limit)),
        "new_tokens": min(size.tokens(NEW_TOKENS), limit),
        "seed": recipe.data.seed,
    }


def max_length_of(loaded: LoadedModel, recipe: Recipe) -> int:
    """Tokens of a window: those of the recipe, or fewer where the model has fewer positions."""
    limit = context_length(loaded.model)
    return min(recipe.data.max_length, limit or recipe.data.max_length)
