"""Faults of a training setup that look like overfitting, looked for in the model's losses.

The trainer's own batches are gone, but each fault leaves a trace that is the model's alone: the
end of text did not become likelier, the prompts became as likely as the answers, two start tokens
fit better than one, another chat template fits better than the tokenizer's, another tokenizer
fits better than its own. Each is found only if it is sure over groups and the base has it not.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from heldout.core.facts import SetupFault
from heldout.core.row import Row
from heldout.core.stats import LEAST_TO_RESAMPLE
from heldout.lm.measuring.setup_faults.doubled_bos import doubled_bos
from heldout.lm.measuring.setup_faults.eos_lost import eos_lost
from heldout.lm.measuring.setup_faults.masking_broken import masking_broken
from heldout.lm.measuring.setup_faults.model_pair import SAMPLE_TOKENS, ModelPair, sampled
from heldout.lm.measuring.setup_faults.tokenizer_mismatch import tokenizer_mismatch
from heldout.lm.measuring.setup_faults.wrong_chat_template import wrong_chat_template
from heldout.lm.special_tokens import content_ids

OF_TRAINING: dict[str, Callable[[ModelPair], SetupFault]] = {
    "masking_broken": masking_broken,
    "eos_lost": eos_lost,
    "doubled_bos": doubled_bos,
    "wrong_chat_template": wrong_chat_template,
}
OF_ANSWERS = ("eos_lost", "wrong_chat_template")  # cannot be told where answers were not learned


def find_setup_faults(
    model: torch.nn.Module,
    base: torch.nn.Module | None,
    tokenizer: Any,
    base_tokenizer: Any | None,
    train: Sequence[Row],
    heldout: Sequence[Row],
    *,
    max_length: int,
    batch_size: int,
    labels_known: bool = False,
    prompts_meant: bool = False,
) -> list[SetupFault]:
    """masking_broken, eos_lost, doubled_bos, wrong_chat_template and tokenizer_mismatch.

    ``status`` is found, absent, or unknown with the reason. Reads ``SAMPLE_ROWS`` rows of each part
    at most, of up to ``SAMPLE_TOKENS`` tokens: on a sound model about five short forward passes by
    the model and three by the base. ``labels_known``: the rows were trained on by heldout itself,
    whose labels are those of ``tokenize_row``. ``prompts_meant``: they were meant to be learned
    with the answers, which is then no fault. Without the base most faults cannot be told from how
    the model was before, and are unknown.
    """
    same_tokens = base_tokenizer is None or _agree(tokenizer, base_tokenizer, train)
    pair = ModelPair(
        model,
        base if same_tokens else None,
        tokenizer,
        sampled(train),
        sampled(heldout),
        min(max_length, SAMPLE_TOKENS),
        batch_size,
        labels_known,
        prompts_meant,
    )
    found = [*_of_training(pair)]
    found.append(tokenizer_mismatch(pair, base_tokenizer if not same_tokens else None))
    return found


def _of_training(pair: ModelPair) -> list[SetupFault]:
    num_groups = len({row.group for row in pair.train})
    if num_groups < LEAST_TO_RESAMPLE:
        reason = f"Needs training rows of {LEAST_TO_RESAMPLE} groups, has {num_groups}."
        return [SetupFault(name, "unknown", reason) for name in OF_TRAINING]
    # Answers that were not learned have no end, and fit one format as badly as another.
    reason = "Cannot be told while it is unclear that answers were learned: mend the mask."
    found: list[SetupFault] = []
    for name, look in OF_TRAINING.items():
        if name in OF_ANSWERS and found[0].status == "found":
            found.append(SetupFault(name, "unknown", reason))
        else:
            found.append(look(pair))
    return found


def _agree(tokenizer: Any, other: Any, rows: Sequence[Row]) -> bool:
    """Whether both turn the rows into the same tokens."""
    texts = [row.text[:2000] for row in sampled(rows)]
    return all(content_ids(tokenizer, text) == content_ids(other, text) for text in texts)
