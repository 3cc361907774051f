"""Continuations of prompts, by nothing but the model's own probabilities and what is asked for."""

# B prompts in a batch, T tokens

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from enum import Enum
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from heldout.core.decoding import GREEDY, Decoding
from heldout.core.errors import UserError
from heldout.core.token_size import TokenSize
from heldout.lm.characters import decoded
from heldout.lm.head import unwrapped, whole_logits
from heldout.lm.logit_path import logit_path
from heldout.lm.nll import context_length, evaluating
from heldout.lm.row_tokens import template_end_id
from heldout.lm.trial import plain_ids, trial_inputs
from heldout.lm.undisturbed import random_state, replayed


class Batching(Enum):
    """Which prompts may be continued together without a change of what is written."""

    PADDED = "any"
    EQUAL_LENGTHS = "prompts of one length: padding on the left changes what this model writes"
    ONE_BY_ONE = "one prompt at a time: beside others this model writes something else"
    RECOMPUTED = "one prompt at a time and without a cache, with which it writes something else"


_batchings: WeakKeyDictionary[nn.Module, Batching] = WeakKeyDictionary()


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
    go together, padded on the left under a mask, unless that changes what the model writes
    (``Batching``, found by a trial): then those of one length do, or none. One that leaves the
    model no room keeps its last tokens. The model is in evaluation mode meanwhile; modes, settings
    and global random numbers are left as found. Sampling repeats with ``seed``, the same prompts
    and the same ``batch_size``; greedy text too may change with ``batch_size``, by rounding.

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
    batching = _batching(model)
    if batching in (Batching.ONE_BY_ONE, Batching.RECOMPUTED):
        batch_size = 1
    continued: list[list[int]] = [[] for _ in prompts]
    ended = [False] * len(prompts)
    # Like lengths together; each text goes to its prompt's place.
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        stack.enter_context(_only(settings, model))
        stack.enter_context(_seeded(model, seed, decoding.samples))
        if batching is Batching.RECOMPUTED:
            model = stack.enter_context(_without_cache(model))
        num_done = 0
        for part in _parts(order, prompts, batch_size, batching):
            new_ids = _generate(model, [prompts[index] for index in part], settings, processors)
            for index, ids in zip(part, new_ids, strict=True):
                stop = next((i for i, token in enumerate(ids) if token in end_ids), None)
                continued[index], ended[index] = ids[:stop], stop is not None
            num_done += len(part)
            if progress:
                progress(num_done)
    return continued, ended


def _parts(
    order: Sequence[int], prompts: Sequence[Sequence[int]], batch_size: int, batching: "Batching"
) -> Iterator[list[int]]:
    """The order cut into batches, of one length each where padding would show."""
    part: list[int] = []
    for index in order:
        unequal = part and len(prompts[part[0]]) != len(prompts[index])
        if len(part) == batch_size or (unequal and batching is Batching.EQUAL_LENGTHS):
            yield part
            part = []
        part.append(index)
    if part:
        yield part


def _batching(model: Any) -> Batching:
    """Found by a trial, once a model: continuations in a batch against those of its rows alone."""
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        return Batching.ONE_BY_ONE  # PEFT puts virtual tokens before the padding
    inner = unwrapped(model)
    if inner not in _batchings:
        logit_path(model)  # refuses what is no causal model
        with evaluating(model), replayed(random_state(next(model.parameters()).device)):
            _batchings[inner] = _tried(model)
        if _batchings[inner] is not Batching.PADDED:
            name = type(inner).__name__
            logging.getLogger("heldout").info(f"{name} continues {_batchings[inner].value}.")
    return _batchings[inner]


def _tried(model: Any) -> Batching:
    ids = plain_ids(model, 24)
    prompts = [ids[:11], ids[11:18], ids[18:24] + ids[:5]]  # two of one length
    plain = [_plain_scores(model, each) for each in prompts]
    is_exact = next(model.parameters()).dtype in (torch.float32, torch.float64)
    tolerance = 1e-3 if is_exact else 5e-2

    def is_like_plain(places: list[int]) -> bool:
        try:
            found = _first_scores(model, [prompts[place] for place in places])
        except Exception:  # a model's own code may fail anywhere on a mask or a cache
            return False
        return all(
            _like(each, plain[place], tolerance) for each, place in zip(found, places, strict=True)
        )

    if is_like_plain([0, 1, 2]):
        return Batching.PADDED
    if not all(is_like_plain([place]) for place in range(3)):
        with _without_cache(model) as inner:
            try:
                _first_scores(inner, prompts[:1])
            except Exception as error:
                what = " ".join(str(error).split())[:160]
                raise UserError(
                    f"{type(inner).__name__} cannot write: generate of transformers fails "
                    f"({what}). Losses can be measured; leave out what needs written text."
                ) from error
        return Batching.RECOMPUTED
    return Batching.EQUAL_LENGTHS if is_like_plain([0, 2]) else Batching.ONE_BY_ONE


def _forced_ids(model: Any) -> list[int]:
    """The tokens that a trial writes."""
    return plain_ids(model, _TRIED_TOKENS + 1)[1:]


def _plain_scores(model: Any, prompt: list[int]) -> torch.Tensor:
    """Scores (T, V) of the first tokens after a prompt, from one call without a cache."""
    ids_BT = torch.tensor([prompt + _forced_ids(model)[:-1]])
    return whole_logits(model, trial_inputs(model, ids_BT))[0, -_TRIED_TOKENS:].float()


_TRIED_TOKENS = 3


def _first_scores(model: Any, prompts: list[list[int]]) -> list[torch.Tensor]:
    """For each prompt the scores (T, V) of its first tokens, always the same ones."""
    forced = _forced_ids(model)
    settings = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=_TRIED_TOKENS,
        pad_token_id=0,
    )
    seen: list[torch.Tensor] = []

    class Force(LogitsProcessor):
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            seen.append(scores.float().clone())
            wanted = torch.full_like(scores, -torch.inf)
            wanted[:, forced[len(seen) - 1]] = 0.0
            return wanted

    with _only(settings, model):
        _generate(model, prompts, settings, [Force()])
    return list(torch.stack(seen, 1))


def _like(first: torch.Tensor, second: torch.Tensor, tolerance: float) -> bool:
    """Equal up to the rounding of a batched product."""
    first, second = first.cpu(), second.cpu()
    finite = first.isfinite() & second.isfinite()
    largest = second[finite].abs().max()
    return bool(((first - second)[finite].abs() <= tolerance * largest).all())


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
def _without_cache(model: Any) -> Iterator[Any]:
    """Within this context the model inside its wrappers reads all tokens anew for each one."""
    inner = unwrapped(model)
    own = inner.__dict__.get("prepare_inputs_for_generation")

    def prepared(input_ids: torch.Tensor, attention_mask: Any = None, **kwargs: Any) -> dict:
        mask_BT = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return {"input_ids": input_ids, "attention_mask": mask_BT, "use_cache": False}

    inner.prepare_inputs_for_generation = prepared
    try:
        yield inner
    finally:
        if own is None:
            del inner.prepare_inputs_for_generation
        else:
            inner.prepare_inputs_for_generation = own


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
