"""Prompts were learned as well as answers, or instead of them.

Where a language is new to the base, its prompts become likelier from answers alone. So what prompts
of training rows gained has two controls: the prompts and the answers of held-out rows.
"""

# T tokens of one window

from dataclasses import dataclass

import numpy as np
import torch

from heldout.core.facts import SetupFault
from heldout.core.row import Row
from heldout.core.stats import LEAST_TO_RESAMPLE, RatioEstimate, difference_of_ratios
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
    "train_on_inputs: false in axolotl, and look at the labels of one batch. Where "
    "prompts were meant to be learned, too: --fact trains_on_prompts=true."
)
LEAST_GAIN = 0.05  # nats/token; less was not learned
LEARNED_INSTEAD = 1 / 3  # of the loss on prompts, where they were learned in place of answers
# What prompts gain, as a share of what answers do: less than the first where prompts are masked,
# for their words come in answers too; more than the second where they are not.
MASKED_SHARE, UNMASKED_SHARE = 0.5, 0.75
# What answers teach of a language, held-out answers show best: of their loss under the base model
# prompts lose hardly a larger share.
TAUGHT_BY_ANSWERS = 1.2
MAY_BE_LANGUAGE = (
    "Prompts gained no more than a language that is learned from answers gives them, masked or "
    "not: the labels of one batch tell."
)
LEAST_SHARE = 0.01  # of the base model's loss


@dataclass(frozen=True)
class _Gains:
    """What prompts and answers of some rows gained over the base model, nats of each token."""

    rows: list[Row]
    prompt: list[np.ndarray]
    answer: list[np.ndarray]
    before_prompt: list[np.ndarray]  # the base model's loss
    before_answer: list[np.ndarray]

    @classmethod
    def of(cls, pair: ModelPair, base: torch.nn.Module, source: list[Row]) -> "_Gains":
        rows, windows, is_prompt = _unmasked(pair, source)
        before = pair.nats(base, windows)
        gains = minus(before, pair.nats(pair.model, windows))
        is_answer = [~each_T for each_T in is_prompt]
        return cls(
            rows,
            _where(gains, is_prompt),
            _where(gains, is_answer),
            _where(before, is_prompt),
            _where(before, is_answer),
        )

    @property
    def can_be_compared(self) -> bool:
        return sum(map(len, self.prompt)) > 0 and sum(map(len, self.answer)) > 0

    def prompt_beyond(self, share: float) -> RatioEstimate:
        """How much more prompts gained than a share of what answers did."""
        of_answers = share * mean_per_token(self.rows, self.answer).value
        return mean_per_token(self.rows, [gain_T - of_answers for gain_T in self.prompt])


def masking_broken(pair: ModelPair) -> SetupFault:
    """Whether the loss of prompts fell as much as that of answers, or in place of it.

    Found only where that is sure, and where it is more than training on answers teaches: prompts of
    training rows gained more than those of held-out rows, or than the answers of held-out rows did.
    """
    if all(row.kind == "text" for row in pair.train):
        return SetupFault(NAME, "absent", "The rows are plain texts, which have no prompt to mask.")
    if pair.labels_known:
        return _own_labels(pair)
    if pair.base is None:
        return SetupFault(NAME, "unknown", "Needs the base model's loss on the same tokens.")
    trained = _Gains.of(pair, pair.base, pair.train)
    if not trained.can_be_compared:
        return SetupFault(NAME, "unknown", "The rows have no prompt or no answer to compare.")
    prompt_gain, answer_gain = (
        mean_per_token(trained.rows, gained) for gained in (trained.prompt, trained.answer)
    )
    evidence = (
        f"On {len(trained.rows)} training rows the loss of prompts {change_in_words(prompt_gain)} "
        f"and that of answers {change_in_words(answer_gain)} nats/token."
    )
    prompts_learned = prompt_gain.interval.low > LEAST_GAIN
    # A model that collapsed gains a little on prompts, which are alike, and nothing on answers.
    before_prompt = mean_per_token(trained.rows, trained.before_prompt)
    instead = prompt_gain.value > LEARNED_INSTEAD * before_prompt.value
    as_well = prompts_learned and trained.prompt_beyond(UNMASKED_SHARE).interval.low > 0
    if pair.prompts_meant and answer_gain.interval.low > LEAST_GAIN:
        return SetupFault(NAME, "absent", f"{evidence} Prompts were meant to be learned, too.")
    if as_well and (instead or answer_gain.interval.low > LEAST_GAIN):
        return _beside_heldout(pair, pair.base, trained, evidence)
    if not prompts_learned or trained.prompt_beyond(MASKED_SHARE).interval.high < 0:
        return SetupFault(NAME, "absent", evidence)
    return SetupFault(NAME, "unknown", evidence)


def _beside_heldout(
    pair: ModelPair, base: torch.nn.Module, trained: _Gains, evidence: str
) -> SetupFault:
    """Whether prompts gained more than a language that is learned from answers lets them gain."""
    unseen = _Gains.of(pair, base, pair.heldout)
    num_groups = len({row.group for row in unseen.rows})
    if not unseen.can_be_compared or num_groups < LEAST_TO_RESAMPLE:
        reason = (
            f"Whether that is the language alone, held-out rows with a prompt and an answer of "
            f"{LEAST_TO_RESAMPLE} groups would tell; there are {num_groups}."
        )
        return SetupFault(NAME, "unknown", f"{evidence} {reason}")
    prompt_gain, answer_gain = (
        mean_per_token(unseen.rows, gained) for gained in (unseen.prompt, unseen.answer)
    )
    evidence += (
        f" On {len(unseen.rows)} held-out rows that of prompts {change_in_words(prompt_gain)} and "
        f"that of answers {change_in_words(answer_gain)} nats/token."
    )
    of_prompts = _share_of_loss(trained.rows, trained.prompt, trained.before_prompt)
    of_unseen = _share_of_loss(unseen.rows, unseen.prompt, unseen.before_prompt)
    of_answers = _share_of_loss(
        unseen.rows, [TAUGHT_BY_ANSWERS * gain_T for gain_T in unseen.answer], unseen.before_answer
    )
    _, by_heart = difference_of_ratios(of_prompts, of_unseen)
    _, untaught = difference_of_ratios(of_prompts, of_answers)
    if by_heart.low > LEAST_SHARE or untaught.low > LEAST_SHARE:
        return SetupFault(NAME, "found", evidence, REMEDY)
    return SetupFault(NAME, "unknown", f"{evidence} {MAY_BE_LANGUAGE}")


def _own_labels(pair: ModelPair) -> SetupFault:
    """What the labels of a run of heldout itself say: no loss needs to be asked."""
    counts = [
        (window.num_scored, len(window.input_ids) - window.num_scored)
        for row in pair.train
        if row.kind != "text"
        for window in tokenize_row(row, pair.tokenizer, pair.max_length).windows[:1]
    ]
    num_scored, num_context = (sum(count[side] for count in counts) for side in (0, 1))
    return SetupFault(
        NAME,
        "absent",
        f"By this run's own labels {num_scored:,} tokens of answers in {len(counts)} training rows "
        f"were scored, and {num_context:,} of prompts and templates were not.",
    )


def _unmasked(
    pair: ModelPair, source: list[Row]
) -> tuple[list[Row], list[Window], list[np.ndarray]]:
    """Rows with a prompt, their first windows with all tokens scored, and which are the prompt's.

    The first token of a window, which cannot be scored, is left out of the latter.
    """
    rows, windows, is_prompt = [], [], []
    for row in source:
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


def _share_of_loss(
    rows: list[Row], gained: list[np.ndarray], before: list[np.ndarray]
) -> tuple[list[float], list[float], list[str]]:
    """What was gained, the base model's loss and the group of each row."""
    sums, losses = ([float(v.sum()) for v in values] for values in (gained, before))
    return sums, losses, [row.group for row in rows]
