"""Training texts end in a token that was not trained on, or trained away."""

# T tokens of one window

import numpy as np

from heldout.core.facts import SetupFault
from heldout.core.row import Row
from heldout.core.stats import LEAST_TO_RESAMPLE, RatioEstimate
from heldout.lm.measuring.setup_faults.model_pair import (
    ModelPair,
    change_in_words,
    mean_per_token,
    minus,
)
from heldout.lm.special_tokens import end_of_turn_ids
from heldout.lm.tokenize import Window, tokenize_row

NAME = "eos_lost"
REMEDY = (
    "Put the end-of-text token behind every training text, do not cut it off, and mask padding "
    "by the attention mask: where padding is the same token, masking by its id hides every end."
)
RARE_NATS = 2.0  # an end this much less likely than its share of the tokens was never trained on
LEARNED_SHARE = 0.1  # of the base's loss on the text; with less, ends need not be learned yet


def eos_lost(pair: ModelPair) -> SetupFault:
    """Whether the loss of the end token fell as that of the text before it did."""
    if pair.tokenizer.eos_token_id is None and not pair.tokenizer.chat_template:
        return SetupFault(NAME, "found", "The tokenizer names no end-of-text token.", REMEDY)
    rows, windows = _ends_of_texts(pair)
    if len({row.group for row in rows}) < LEAST_TO_RESAMPLE:
        return SetupFault(NAME, "unknown", "Too few training rows end with an end-of-text token.")
    tuned = pair.nats(pair.model, windows)
    probability = float(np.mean([np.exp(-nats_T[-1]) for nats_T in tuned]))
    if pair.base is None:
        return _without_base(probability)
    gains = minus(pair.nats(pair.base, windows), tuned)
    end_gain = mean_per_token(rows, [gain_T[-1:] for gain_T in gains])
    text_gain = mean_per_token(rows, [gain_T[:-1] for gain_T in gains])
    evidence = (
        f"At the ends of {len(rows)} training texts the loss of the end token "
        f"{change_in_words(end_gain)} while that of the text {change_in_words(text_gain)} "
        f"nats/token; P(end) is {probability:.2g} on average."
    )
    learned = text_gain.interval.low > 0
    unlearned = end_gain.interval.high < 0 and probability < 0.5
    if learned and (unlearned or _never_seen(windows, tuned, end_gain, text_gain)):
        return SetupFault(NAME, "found", evidence, REMEDY)
    if probability > 0.5 or end_gain.interval.low > 0:
        return SetupFault(NAME, "absent", evidence)
    return SetupFault(NAME, "unknown", evidence)


def _ends_of_texts(pair: ModelPair) -> tuple[list[Row], list[Window]]:
    """The rows that end with an end token, and the last window of each."""
    ends = {pair.tokenizer.eos_token_id} | end_of_turn_ids(pair.tokenizer)
    rows, windows = [], []
    for row in pair.train:
        cut = tokenize_row(row, pair.tokenizer, pair.max_length).windows
        if cut and cut[-1].labels[-1] in ends and cut[-1].num_scored > 1:
            rows.append(row)
            windows.append(cut[-1])
    return rows, windows


def _without_base(probability: float) -> SetupFault:
    told = f"P(end) at the ends of training texts is {probability:.2g} on average"
    if probability > 0.5:
        return SetupFault(NAME, "absent", f"{told}.")
    return SetupFault(NAME, "unknown", f"{told}; without the base it is unknown what it was.")


def _never_seen(
    windows: list[Window],
    tuned: list[np.ndarray],
    end_gain: RatioEstimate,
    text_gain: RatioEstimate,
) -> bool:
    """Whether ends gained less than the text and are rarer than even frequency would make them."""
    # Even a model that knows no context learns how often a token stands in its training texts.
    end_nats = float(np.mean([nats_T[-1] for nats_T in tuned]))
    share_nats = float(np.log(np.mean([window.num_scored for window in windows])))
    text_nats = float(np.mean(np.concatenate([nats_T[:-1] for nats_T in tuned])))
    share_learned = text_gain.value / (text_gain.value + text_nats)
    return (
        share_learned > LEARNED_SHARE
        and end_gain.interval.high < text_gain.interval.low
        and end_nats > share_nats + RARE_NATS
    )
