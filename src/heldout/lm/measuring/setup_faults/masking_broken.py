"""Prompts were learned as well as answers, or instead of them."""

# T tokens of one window

import numpy as np

from heldout.core.facts import SetupFault
from heldout.core.row import Row
from heldout.core.stats import RatioEstimate
from heldout.lm.measuring.setup_faults.model_pair import (
    ModelPair,
    change_in_words,
    mean_per_token,
    minus,
)
from heldout.lm.tokenize import IGNORED, Window, tokenize_row

NAME = "masking_broken"
REMEDY = (
    "Score the answer's tokens only: completion_only_loss or assistant_only_loss in TRL, "
    "train_on_inputs: false in axolotl, and look at the labels of one batch."
)
LEAST_GAIN = 0.05  # nats/token; less was not learned
LEARNED_INSTEAD = 1 / 3  # of the loss on prompts, where they were learned in place of answers
# What prompts gain, as a share of what answers do: less than the first where prompts are masked,
# for their words come in answers too; more than the second where they are not.
MASKED_SHARE, UNMASKED_SHARE = 0.5, 0.75


def masking_broken(pair: ModelPair) -> SetupFault:
    """Whether the loss of prompts fell as much as that of answers, or in place of it."""
    rows, windows, is_prompt = _unmasked(pair)
    if not rows:
        return SetupFault(NAME, "absent", "The rows are plain texts, which have no prompt to mask.")
    if pair.base is None:
        return SetupFault(NAME, "unknown", "Needs the base model's loss on the same tokens.")
    before = pair.nats(pair.base, windows)
    gains = minus(before, pair.nats(pair.model, windows))
    prompt = _where(gains, is_prompt)
    answer = _where(gains, [~each_T for each_T in is_prompt])
    if not sum(map(len, prompt)) or not sum(map(len, answer)):
        return SetupFault(NAME, "unknown", "The rows have no prompt or no answer to compare.")
    prompt_gain, answer_gain = mean_per_token(rows, prompt), mean_per_token(rows, answer)

    def beyond(share: float) -> RatioEstimate:
        """How much more prompts gained than a share of what answers did."""
        return mean_per_token(rows, [gain_T - share * answer_gain.value for gain_T in prompt])

    evidence = (
        f"On {len(rows)} training rows the loss of prompts {change_in_words(prompt_gain)} and that "
        f"of answers {change_in_words(answer_gain)} nats/token."
    )
    prompts_learned = prompt_gain.interval.low > LEAST_GAIN
    # A model that collapsed gains a little on prompts, which are alike, and nothing on answers.
    before_prompt = mean_per_token(rows, _where(before, is_prompt))
    instead = prompt_gain.value > LEARNED_INSTEAD * before_prompt.value
    as_well = prompts_learned and beyond(UNMASKED_SHARE).interval.low > 0
    if as_well and (instead or answer_gain.interval.low > LEAST_GAIN):
        return SetupFault(NAME, "found", evidence, REMEDY)
    if not prompts_learned or beyond(MASKED_SHARE).interval.high < 0:
        return SetupFault(NAME, "absent", evidence)
    return SetupFault(NAME, "unknown", evidence)


def _unmasked(pair: ModelPair) -> tuple[list[Row], list[Window], list[np.ndarray]]:
    """Rows with a prompt, their first windows with all tokens scored, and which are the prompt's.

    The first token of a window, which cannot be scored, is left out of the latter.
    """
    rows, windows, is_prompt = [], [], []
    for row in pair.train:
        cut = tokenize_row(row, pair.tokenizer, pair.max_length).windows
        if row.kind == "text" or not cut:
            continue
        ids = cut[0].input_ids
        rows.append(row)
        windows.append(Window(ids, [IGNORED, *ids[1:]]))
        is_prompt.append(np.array(cut[0].labels[1:]) == IGNORED)
    return rows, windows, is_prompt


def _where(values: list[np.ndarray], chosen: list[np.ndarray]) -> list[np.ndarray]:
    return [values_T[chosen_T] for values_T, chosen_T in zip(values, chosen, strict=True)]
