"""The tokenizer is not the one that the model was trained with."""

from typing import Any

import numpy as np

from heldout.core.facts import SetupFault
from heldout.core.row import Row
from heldout.core.stats import LEAST_TO_RESAMPLE, ratio_estimate
from heldout.lm.head import unwrapped
from heldout.lm.measuring.setup_faults.model_pair import ModelPair, change_in_words
from heldout.lm.measuring.token_nats import token_nats_of
from heldout.lm.special_tokens import content_ids, prompted_ids, with_end
from heldout.lm.tokenize import IGNORED, Window, tokenize_row

NAME = "tokenizer_mismatch"
REMEDY = "Put the tokenizer that the model was trained with into its folder."
MOST_UNKNOWN = 0.05  # of all tokens
NUM_CHARACTERS = 300  # of each row, where two tokenizers are compared


def tokenizer_mismatch(pair: ModelPair, other_tokenizer: Any | None) -> SetupFault:
    """Whether text makes more sense to the model through the base's tokenizer, or none at all."""
    rows = [row for row in (*pair.heldout, *pair.train) if row.text]
    if not rows:
        return SetupFault(NAME, "unknown", "There are no rows to read.")
    tokenizer = pair.tokenizer
    unknown_id = tokenizer.unk_token_id
    ids = [id for row in rows for id in content_ids(tokenizer, row.text)[: pair.max_length]]
    num_unknown = sum(id == unknown_id for id in ids) if unknown_id is not None else 0
    if num_unknown > MOST_UNKNOWN * len(ids):
        share = num_unknown / len(ids)
        evidence = f"{share:.0%} of the tokens of {len(rows)} rows are unknown to the tokenizer."
        return SetupFault(NAME, "found", evidence, REMEDY, share)
    if other_tokenizer is not None:
        return _beside_other(pair, rows, other_tokenizer)
    return _beside_chance(pair, rows, f"{num_unknown} of {len(ids)} tokens are unknown.")


def _num_embeddings(pair: ModelPair) -> int:
    return int(unwrapped(pair.model).get_input_embeddings().weight.shape[0])


def _beside_other(pair: ModelPair, rows: list[Row], other_tokenizer: Any) -> SetupFault:
    """By the loss of the same characters through both tokenizers."""
    size = _num_embeddings(pair)
    if len(other_tokenizer) > size:
        evidence = (
            f"The base's tokenizer has {len(other_tokenizer)} tokens, more than the model's "
            f"{size}: they have different vocabularies, and only its own fits."
        )
        return SetupFault(NAME, "absent", evidence)
    groups = [row.group for row in rows]
    if len(set(groups)) < LEAST_TO_RESAMPLE:
        return SetupFault(NAME, "unknown", "Too few groups of rows to compare two tokenizers.")
    texts = [row.text[:NUM_CHARACTERS] for row in rows]
    change = _nats_of(pair, texts, pair.tokenizer) - _nats_of(pair, texts, other_tokenizer)
    saved = ratio_estimate(
        change, np.array([float(len(text)) for text in texts]), groups, signed=True
    )
    evidence = (
        f"Through the base's tokenizer, which splits text differently, the loss of {len(rows)} "
        f"rows {change_in_words(saved)} nats/character."
    )
    if saved.interval.low > 0:
        return SetupFault(NAME, "found", evidence, REMEDY)
    return SetupFault(NAME, "absent", evidence)


def _nats_of(pair: ModelPair, texts: list[str], tokenizer: Any) -> np.ndarray:
    """Loss of each text; the end token stands for what is left of it."""
    windows = [
        Window(ids, [IGNORED, *ids[1:]])
        for text in texts
        for ids in [with_end(tokenizer, prompted_ids(tokenizer, text))]
    ]
    found = token_nats_of(pair.model, windows, tokenizer, pair.batch_size)
    return np.array([nats_T.sum() for nats_T in found])


def _beside_chance(pair: ModelPair, rows: list[Row], unknown: str) -> SetupFault:
    """By the loss beside that of guessing evenly; ``unknown`` is a sentence for the evidence."""
    windows = [
        window
        for row in rows
        for window in tokenize_row(row, pair.tokenizer, pair.max_length).windows[:1]
    ]
    if not windows:
        return SetupFault(NAME, "unknown", "The rows have no scored tokens.")
    size = _num_embeddings(pair)
    mean = float(np.concatenate(pair.nats(pair.model, windows)).mean())
    uniform = float(np.log(size))
    evidence = (
        f"Loss of {mean:.2f} nats/token, {uniform:.2f} would be chance over {size} tokens; "
        f"{unknown}"
    )
    if mean < 0.9 * uniform:
        return SetupFault(NAME, "absent", evidence)
    return SetupFault(
        NAME,
        "unknown",
        f"{evidence} So near to chance, the model is untrained, has diverged, or was trained with "
        "another tokenizer.",
    )
