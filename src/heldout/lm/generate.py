"""Greedy continuations, by nothing but the model's own probabilities."""

# B prompts in a batch, T tokens

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig

from heldout.core.errors import UserError
from heldout.lm.head import unwrapped
from heldout.lm.nll import context_length, evaluating


def continuations(
    model: torch.nn.Module,
    tokenizer: Any,
    prompts_ids: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_size: int = 8,
) -> list[str]:
    """Text that follows each prompt (token ids, one or more), without special tokens.

    Greedy up to the end-of-text token (or any that the model's own settings name as an end) or
    ``max_new_tokens``. What else a model's generation settings say (sampling, penalties, bad
    words, lengths) does not apply. Prompts are padded on the left, under a mask. The model is in
    evaluation mode meanwhile; modes, settings and global random numbers are left as found. Costs a
    forward per prompt and one per new token and batch.

    Raises UserError where prompt and continuation are longer than the model can read.
    """
    _check_lengths(model, prompts_ids, max_new_tokens)
    device = next(model.parameters()).device
    end_ids = _end_ids(model, tokenizer)
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    settings = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        eos_token_id=end_ids or None,
        pad_token_id=pad_id,
    )
    # Like lengths together; the order of the prompts is restored at the end.
    order = sorted(range(len(prompts_ids)), key=lambda index: -len(prompts_ids[index]))
    texts = [""] * len(prompts_ids)
    with evaluating(model), _settings(model, settings):
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            input_ids_BT, mask_BT = _pad_left([prompts_ids[i] for i in part], pad_id)
            output_BT = model.generate(
                input_ids=input_ids_BT.to(device),
                attention_mask=mask_BT.to(device),
                generation_config=settings,
            )
            for index, ids in zip(part, output_BT[:, input_ids_BT.shape[1] :], strict=True):
                texts[index] = tokenizer.decode(
                    _until_end(ids.tolist(), end_ids), skip_special_tokens=True
                )
    return texts
