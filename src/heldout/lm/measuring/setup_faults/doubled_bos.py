"""Two start tokens stand before each text, one by the tokenizer and one by the chat template."""

import numpy as np
import torch

from heldout.core.facts import SetupFault
from heldout.lm.measuring.setup_faults.model_pair import (
    ModelPair,
    change_in_words,
    mean_per_token,
    minus,
)
from heldout.lm.tokenize import IGNORED, Window, tokenize_row

NAME = "doubled_bos"
REMEDY = (
    "Tokenize rendered conversations with add_special_tokens=False: the chat template has put "
    "the start token already."
)


def doubled_bos(pair: ModelPair) -> SetupFault:
    """Whether two start tokens before a text fit the model better than one."""
    start_id = pair.tokenizer.bos_token_id
    if start_id is None:
        return SetupFault(NAME, "absent", "The tokenizer has no start token.")
    rows, plain = [], []
    for row in pair.train:
        cut = tokenize_row(row, pair.tokenizer, pair.max_length).windows
        if cut:
            rows.append(row)
            plain.append(cut[0])
    own = 1 if plain and plain[0].input_ids[0] == start_id else 0

    def saved(model: torch.nn.Module, fewer: int) -> list[np.ndarray]:
        """By how much every token is likelier behind two start tokens."""
        less, two = (
            pair.nats(model, [_started(window, start_id, count) for window in plain])
            for count in (fewer, 2)
        )
        return minus(less, two)

    tuned = saved(pair.model, own)
    after = mean_per_token(rows, tuned)
    evidence = (
        f"With two start tokens instead of {own} the loss of {len(rows)} training rows "
        f"{change_in_words(after)} nats/token."
    )
    if after.interval.high <= 0:
        return SetupFault(NAME, "absent", evidence)
    if own == 0 and mean_per_token(rows, saved(pair.model, 1)).interval.high < 0:
        return SetupFault(NAME, "absent", f"{evidence} With one it is lower still.")
    if pair.base is None:
        return SetupFault(
            NAME, "unknown", f"{evidence} Without the base it is unknown what it did."
        )
    untuned = saved(pair.base, own)
    more = mean_per_token(rows, minus(tuned, untuned))
    evidence += f" Under the base model it {change_in_words(mean_per_token(rows, untuned))}."
    if after.interval.low <= 0 or more.interval.low <= 0:
        # Indifferent where the base is not: so it is after masked rows with two start tokens.
        indifferent = more.interval.low > 0
        return SetupFault(NAME, "unknown" if indifferent else "absent", evidence)
    return SetupFault(NAME, "found", evidence, REMEDY)


def _started(window: Window, start_id: int, count: int) -> Window:
    first = next((i for i, id in enumerate(window.input_ids) if id != start_id), 0)
    ids, labels = window.input_ids[first:], window.labels[first:]
    # Its first own token is scored in none, because with no start token it cannot be.
    return Window([start_id] * count + ids, [IGNORED] * (count + 1) + labels[1:])
