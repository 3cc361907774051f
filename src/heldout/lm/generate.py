"""Continuations of prompts, by nothing but the model's own probabilities and what is asked for."""

# B prompts in a batch, T tokens

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from heldout.core.decoding import GREEDY, Decoding
from heldout.core.errors import UserError
from heldout.core.token_size import TokenSize
from heldout.lm.characters import decoded
from heldout.lm.conversation import template_end_id
from heldout.lm.head import unwrapped
from heldout.lm.nll import context_length, evaluating
from heldout.lm.undisturbed import random_state, replayed


def continuations(
    model: torch.nn.Module,
    tokenizer: Any,
    prompts_ids: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_size: int = 8,
) -> list[str]:
    """Text that greedy decoding puts after each prompt (token ids), without special tokens.

    It ends with a whole character. See ``continued_ids``.
    """
    continued, _ = continued_ids(model, tokenizer, prompts_ids, max_new_tokens, batch_size)
    return [decoded(tokenizer, ids) for ids in continued]


def new_tokens(model: torch.nn.Module, meant: int, size: TokenSize) -> int:
    """How many tokens to generate where ``meant`` tokens of English are: as many as hold as much.

    More than ``meant`` only within half of what the model can read.
    """
    limit = context_length(model)
    scaled = size.tokens(meant)
    return scaled if limit is None else min(scaled, max(meant, limit // 2))


def continued_ids(
    model: torch.nn.Module,
    tokenizer: Any,
    prompts_ids: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_size: int = 8,
    *,
    decoding: Decoding = GREEDY,
    processors: Sequence[LogitsProcessor] = (),
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[list[int]], list[bool]]:
    """Token ids that follow each prompt, and whether the model ended there by itself.

    Up to the end-of-text token, the chat template's end of turn, another that the model's own
    settings name as an end (the end is left out), or ``max_new_tokens``. What else those settings
    say (sampling, penalties, bad words, lengths) does not apply: only ``decoding`` and
    ``processors`` do, which see prompt and continuation, padded on the left. Prompts of like length
    go together; those of a batch are padded on the left, under a mask; one that leaves the model no
    room keeps its last tokens. The model is in evaluation mode meanwhile; modes, settings and
    global random numbers are left as found. Sampling repeats with ``seed``, the same prompts and
    the same ``batch_size``; greedy text too may change with ``batch_size``, by rounding.

    Costs one forward over the prompts of a batch and one per new token. ``progress`` is called
    with the number of prompts continued so far. Raises UserError where ``max_new_tokens`` is more
    than the model can read.
    """
    room = _room(model, max_new_tokens)
    start_id = next(
        (i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None), 0
    )
    prompts = [list(ids)[-room:] or [start_id] for ids in prompts_ids]
    end_ids = _end_ids(model, tokenizer)
    settings = _settings(decoding, max_new_tokens, end_ids, tokenizer)
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        batch_size = 1  # PEFT puts virtual tokens before the padding and drops the positions
    continued: list[list[int]] = [[] for _ in prompts]
    ended = [False] * len(prompts)
    # Like lengths together; each text goes to its prompt's place.
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    with evaluating(model), _only(settings, model), _seeded(model, seed, decoding.samples):
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            new_ids = _generate(model, [prompts[index] for index in part], settings, processors)
            for index, ids in zip(part, new_ids, strict=True):
                stop = next((i for i, token in enumerate(ids) if token in end_ids), None)
                continued[index], ended[index] = ids[:stop], stop is not None
            if progress:
                progress(start + len(part))
    return continued, ended


def _settings(
    decoding: Decoding, max_new_tokens: int, end_ids: list[int], tokenizer: Any
) -> GenerationConfig:
    drawn: dict[str, Any] = {}
    if decoding.samples:
        drawn = {
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "top_k": decoding.top_k,
            "min_p": decoding.min_p or None,
        }
    return GenerationConfig(
        do_sample=decoding.samples,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        eos_token_id=end_ids or None,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0,
        repetition_penalty=decoding.repetition_penalty,
        no_repeat_ngram_size=decoding.no_repeat_ngram_size,
        **drawn,
    )


def _generate(
    model: Any,
    prompts: list[list[int]],
    settings: GenerationConfig,
    processors: Sequence[LogitsProcessor],
) -> list[list[int]]:
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
        logits_processor=LogitsProcessorList(processors),
    )
    return output_BT[:, longest:].tolist()


@contextmanager
def _only(settings: GenerationConfig, model: torch.nn.Module) -> Iterator[None]:
    """Put the model's own settings away: generate would fill all that we leave open from them."""
    inner = unwrapped(model)
    own, inner.generation_config = inner.generation_config, settings
    try:
        yield
    finally:
        inner.generation_config = own


@contextmanager
def _seeded(model: torch.nn.Module, seed: int, samples: bool) -> Iterator[None]:
    """Random numbers from ``seed`` on within this context, where any are drawn."""
    if not samples:
        yield
        return
    with replayed(random_state(next(model.parameters()).device)):
        torch.manual_seed(seed)
        yield


def _end_ids(model: torch.nn.Module, tokenizer: Any) -> list[int]:
    own = unwrapped(model).generation_config.eos_token_id
    named = own if isinstance(own, list) else [own]
    ids = {*named, tokenizer.eos_token_id, template_end_id(tokenizer)} - {None}
    return sorted(ids)


def _room(model: torch.nn.Module, max_new_tokens: int) -> int:
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
