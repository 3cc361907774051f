"""How much a token of a run's model holds, measured once for all parts and models of the run."""

from dataclasses import asdict
from typing import Any

from heldout.core.run import Run
from heldout.core.token_size import ENGLISH_TOKENS, TokenSize
from heldout.jobs.kit.parts import sample_rows
from heldout.lm.characters import token_size

FILE = "token_size.json"
MOST_ROWS = 200


def token_size_of(run: Run, tokenizer: Any) -> TokenSize:
    """Of training rows, as it was measured before or now."""
    if not run.path(FILE).exists():
        rows = sample_rows(run.read_rows("train"), MOST_ROWS, run.recipe.data.seed)
        run.write_json(FILE, asdict(token_size(tokenizer, rows)))
    return saved_token_size(run)


def saved_token_size(run: Run) -> TokenSize:
    """What ``token_size_of`` wrote; as of English in a run that has none."""
    return TokenSize(**run.read_json(FILE)) if run.path(FILE).exists() else ENGLISH_TOKENS
