"""Greedy continuations, by nothing but the model's own probabilities."""

# B prompts in a batch, T tokens

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig

from heldout.core.errors import UserError
from heldout.lm.conversation import template_end_id
from heldout.lm.head import unwrapped
from heldout.lm.nll import context_length, evaluating


def continuations(
    model: torch.nn.Module,
    tokenizer: Any,
    prompts_ids: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_size: int = 8,
) -> list[str]:
    """Text that follows each prompt (token ids), without special tokens.

    Greedy, up to the end-of-text token, the chat template's end of turn, another that the model's
    own settings name as an end, or ``max_new_tokens``. What else those settings say (sampling,
    penalties, bad words, lengths) does not apply. Prompts are padded on the left, under a mask;
    one that leaves the model no room keeps its last tokens. The model is in evaluation mode
    meanwhile; modes, settings and global random numbers are left as found.

    Costs one forward over the prompts of a batch and one per new token. Raises UserError where
    ``max_new_tokens`` is more than the model can read.
    """
    room = _room(model, max_new_tokens)
    start_id = next(
        (i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None), 0
    )
    prompts = [list(ids)[-room:] or [start_id] for ids in prompts_ids]
    end_ids = _end_ids(model, tokenizer)
    settings = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        eos_token_id=end_ids or None,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0,
    )
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        batch_size = 1  # PEFT puts virtual tokens before the padding and drops the positions
    texts = [""] * len(prompts)
    # Like lengths together; each text goes to its prompt's place.
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    with evaluating(model), _only(settings, model):
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            new_ids = _generate(model, [prompts[index] for index in part], settings)
            for index, ids in zip(part, new_ids, strict=True):
                stop = next((i for i, token in enumerate(ids) if token in end_ids), len(ids))
                texts[index] = tokenizer.decode(ids[:stop], skip_special_tokens=True)
    return texts


def _generate(model, prompts: list[list[int]], settings: GenerationConfig) -> list[list[int]]:
    device = next(model.parameters()).device
    longest = max(map(len, prompts))
    shape = (len(prompts), longest)
    input_ids_BT = torch.full(shape, settings.pad_token_id, dtype=torch.long)
    mask_BT = torch.zeros(shape, dtype=torch.long)
    for index, ids in enumerate(prompts):
        input_ids_BT[index, longest - len(ids) :] = torch.tensor(ids)
        mask_BT[index, longest - len(ids) :] = 1
    generator = model if hasattr(model, "generate") else unwrapped(model)
    output_BT = generator.generate(
        input_ids=input_ids_BT.to(device),
        attention_mask=mask_BT.to(device),
        generation_config=settings,
    )
    return output_BT[:, longest:].tolist()


@contextmanager
def _only(settings: GenerationConfig, model) -> Iterator[None]:
    """Put the model's own settings away: generate would fill all that we leave open from them."""
    inner = unwrapped(model)
    own, inner.generation_config = inner.generation_config, settings
    try:
        yield
    finally:
        inner.generation_config = own


def _end_ids(model, tokenizer) -> list[int]:
    own = unwrapped(model).generation_config.eos_token_id
    named = own if isinstance(own, list) else [own]
    ids = {*named, tokenizer.eos_token_id, template_end_id(tokenizer)} - {None}
    return sorted(ids)


def _room(model, max_new_tokens: int) -> int:
    """How many tokens a prompt may have."""
    limit = context_length(model)
    if limit is None:
        return 2**31
    if max_new_tokens >= limit:
        raise UserError(
            f"eval.max_new_tokens must be under {limit}, what this model can read, "
            f"got {max_new_tokens}."
        )
    return limit - max_new_tokens
