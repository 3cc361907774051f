"""Faults of a training set-up that look like overfitting, looked for in the model's losses.

The trainer's own batches are gone, but each fault leaves a trace that is the model's alone: the
end of text did not become likelier, the prompts became as likely as the answers, two start tokens
fit better than one, another chat template fits better than the tokenizer's, another tokenizer
fits better than its own. Each is found only if it is sure over groups and the base has it not.
"""

# D rows of the sample, T tokens of one

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from heldout.core.facts import SetupFault
from heldout.core.row import Row
from heldout.core.stats import LEAST_TO_RESAMPLE, RatioEstimate, ratio_estimate
from heldout.lm.head import scored_nats, unwrapped
from heldout.lm.measuring.prompt_formats import FORMATS, prompt_of
from heldout.lm.nll import evaluating, model_inputs
from heldout.lm.special_tokens import (
    content_ids,
    continuation_ids,
    end_of_turn_ids,
    prompted_ids,
    with_end,
)
from heldout.lm.tokenize import IGNORED, Window, prompt_ids, tokenize_row

SAMPLE_ROWS = 32
SCREENED_ROWS = 8  # by which formats are left out that do not fit at all
OF_ANSWERS = ("eos_lost", "wrong_chat_template")  # cannot be told where answers were not learned
UNCUT = 10**6  # tokens, of a row that is to stay in one window
SAMPLE_TOKENS = 192  # of a row, but for its end
RARE_NATS = 2.0  # an end this much less likely than its share of the tokens was never trained on
LEAST_GAIN = 0.05  # nats/token; less was not learned
LEARNED_SHARE = 0.1  # of the base's loss on the text; with less, ends need not be learned yet
LEARNED_INSTEAD = 1 / 3  # of the loss on prompts, where they were learned in place of answers
LEAST_FORMAT_GAIN = 0.01  # nats/token: a collapsed model reads all formats alike
# What prompts gain, as a share of what answers do: less than the first where prompts are masked,
# for their words come in answers too; more than the second where they are not.
MASKED_SHARE, UNMASKED_SHARE = 0.5, 0.75


@dataclass(frozen=True)
class _Judged:
    """Two models on samples of rows; the base is None where its tokens would be others."""

    model: torch.nn.Module
    base: torch.nn.Module | None
    tokenizer: Any
    train: list[Row]
    heldout: list[Row]
    max_length: int
    batch_size: int

    def nats(self, model: torch.nn.Module, windows: Sequence[Window]) -> list[np.ndarray]:
        """Loss of every scored token, window by window."""
        return token_nats(model, windows, self.tokenizer, self.batch_size)

    def gain(self, windows: Sequence[Window]) -> list[np.ndarray] | None:
        """Base minus tuned loss of every scored token: what training taught of it."""
        if self.base is None:
            return None
        pairs = zip(self.nats(self.base, windows), self.nats(self.model, windows), strict=True)
        return [base_T - tuned_T for base_T, tuned_T in pairs]


def setup_faults(
    model: torch.nn.Module,
    base: torch.nn.Module | None,
    tokenizer: Any,
    base_tokenizer: Any | None,
    train: Sequence[Row],
    heldout: Sequence[Row],
    *,
    max_length: int,
    batch_size: int,
) -> list[SetupFault]:
    """masking_broken, eos_lost, doubled_bos, wrong_chat_template and tokenizer_mismatch.

    ``status`` is found, absent, or unknown with the reason. Reads ``SAMPLE_ROWS`` rows of each part
    at most, of up to ``SAMPLE_TOKENS`` tokens: on a sound model about five short forward passes by
    the model and three by the base. Without the base most faults cannot be told from how the model
    was before, and are unknown.
    """
    same_tokens = base_tokenizer is None or _agree(tokenizer, base_tokenizer, train)
    judged = _Judged(
        model,
        base if same_tokens else None,
        tokenizer,
        _sample(train),
        _sample(heldout),
        min(max_length, SAMPLE_TOKENS),
        batch_size,
    )
    checks: list[tuple[str, Callable[[_Judged], SetupFault]]] = [
        ("masking_broken", _masking_broken),
        ("eos_lost", _eos_lost),
        ("doubled_bos", _doubled_bos),
        ("wrong_chat_template", _wrong_chat_template),
    ]
    found: list[SetupFault] = []
    for name, check in checks:
        num_groups = len({row.group for row in judged.train})
        if num_groups < LEAST_TO_RESAMPLE:
            reason = f"Needs training rows of {LEAST_TO_RESAMPLE} groups, has {num_groups}."
            found.append(SetupFault(name, "unknown", reason))
        elif name in OF_ANSWERS and _is_found(found, "masking_broken"):
            # Answers that were not learned have no end, and fit one format as badly as another.
            reason = "Cannot be told while it is unclear that answers were learned: mend the mask."
            found.append(SetupFault(name, "unknown", reason))
        else:
            found.append(check(judged))
    found.append(_tokenizer_mismatch(judged, base_tokenizer if not same_tokens else None))
    return found


def _is_found(checks: list[SetupFault], name: str) -> bool:
    return any(check.name == name and check.status == "found" for check in checks)


# The end of text


def _eos_lost(judged: _Judged) -> SetupFault:
    """Whether training texts end in a token that was not trained on, or trained away."""
    name = "eos_lost"
    remedy = (
        "Put the end-of-text token behind every training text, do not cut it off, and mask padding "
        "by the attention mask: where padding is the same token, masking by its id hides every end."
    )
    if judged.tokenizer.eos_token_id is None and not judged.tokenizer.chat_template:
        return SetupFault(name, "found", "The tokenizer names no end-of-text token.", remedy)
    ends = {judged.tokenizer.eos_token_id} | end_of_turn_ids(judged.tokenizer)
    rows, windows = [], []
    for row in judged.train:
        cut = tokenize_row(row, judged.tokenizer, judged.max_length).windows
        if cut and cut[-1].labels[-1] in ends and cut[-1].num_scored > 1:
            rows.append(row)
            windows.append(cut[-1])
    if len({row.group for row in rows}) < LEAST_TO_RESAMPLE:
        return SetupFault(name, "unknown", "Too few training rows end with an end-of-text token.")
    tuned = judged.nats(judged.model, windows)
    probability = float(np.mean([np.exp(-nats_T[-1]) for nats_T in tuned]))
    gains = judged.gain(windows)
    if gains is None:
        told = f"P(end) at the ends of training texts is {probability:.2g} on average"
        if probability > 0.5:
            return SetupFault(name, "absent", f"{told}.")
        return SetupFault(name, "unknown", f"{told}; without the base it is unknown what it was.")
    end_gain = _mean(rows, [gain_T[-1:] for gain_T in gains])
    text_gain = _mean(rows, [gain_T[:-1] for gain_T in gains])
    evidence = (
        f"At the ends of {len(rows)} training texts the loss of the end token "
        f"{_changed(end_gain)} while that of the text {_changed(text_gain)} nats/token; "
        f"P(end) is {probability:.2g} on average."
    )
    learned = text_gain.interval.low > 0
    unlearned = learned and end_gain.interval.high < 0 and probability < 0.5
    # Even a model that knows no context learns how often a token stands in its training texts.
    end_nats = float(np.mean([nats_T[-1] for nats_T in tuned]))
    share_nats = float(np.log(np.mean([window.num_scored for window in windows])))
    text_nats = float(np.mean(np.concatenate([nats_T[:-1] for nats_T in tuned])))
    share_learned = text_gain.value / (text_gain.value + text_nats)
    never_seen = (
        learned
        and share_learned > LEARNED_SHARE
        and end_gain.interval.high < text_gain.interval.low
    )
    if unlearned or (never_seen and end_nats > share_nats + RARE_NATS):
        return SetupFault(name, "found", evidence, remedy)
    if probability > 0.5 or end_gain.interval.low > 0:
        return SetupFault(name, "absent", evidence)
    return SetupFault(name, "unknown", evidence)


# Response masking


def _masking_broken(judged: _Judged) -> SetupFault:
    """Whether prompts were learned about as well as answers, or answers not at all."""
    name = "masking_broken"
    remedy = (
        "Score the answer's tokens only: completion_only_loss or assistant_only_loss in TRL, "
        "train_on_inputs: false in axolotl, and look at the labels of one batch."
    )
    rows, windows, masks = [], [], []
    for row in judged.train:
        cut = tokenize_row(row, judged.tokenizer, judged.max_length).windows
        if row.kind == "text" or not cut:
            continue
        ids = cut[0].input_ids
        rows.append(row)
        windows.append(Window(ids, [IGNORED, *ids[1:]]))
        masks.append(np.array(cut[0].labels[1:]) == IGNORED)
    if not rows:
        return SetupFault(name, "absent", "The rows are plain texts, which have no prompt to mask.")
    if judged.base is None:
        return SetupFault(name, "unknown", "Needs the base model's loss on the same tokens.")
    before, after = (judged.nats(model, windows) for model in (judged.base, judged.model))
    gains = [before_T - after_T for before_T, after_T in zip(before, after, strict=True)]
    prompt = [gain_T[mask_T] for gain_T, mask_T in zip(gains, masks, strict=True)]
    answer = [gain_T[~mask_T] for gain_T, mask_T in zip(gains, masks, strict=True)]
    if not sum(map(len, prompt)) or not sum(map(len, answer)):
        return SetupFault(name, "unknown", "The rows have no prompt or no answer to compare.")
    prompt_gain, answer_gain = _mean(rows, prompt), _mean(rows, answer)

    def beyond(share: float) -> RatioEstimate:
        """How much more prompts gained than a share of what answers did."""
        return _mean(rows, [gain_T - share * answer_gain.value for gain_T in prompt])

    evidence = (
        f"On {len(rows)} training rows the loss of prompts {_changed(prompt_gain)} and that of "
        f"answers {_changed(answer_gain)} nats/token."
    )
    prompts_learned = prompt_gain.interval.low > LEAST_GAIN
    # A model that collapsed gains a little on prompts, which are alike, and nothing on answers.
    before_prompt = _mean(rows, [b_T[mask_T] for b_T, mask_T in zip(before, masks, strict=True)])
    instead = prompt_gain.value > LEARNED_INSTEAD * before_prompt.value
    as_well = prompts_learned and beyond(UNMASKED_SHARE).interval.low > 0
    if as_well and (instead or answer_gain.interval.low > LEAST_GAIN):
        return SetupFault(name, "found", evidence, remedy)
    if not prompts_learned or beyond(MASKED_SHARE).interval.high < 0:
        return SetupFault(name, "absent", evidence)
    return SetupFault(name, "unknown", evidence)


# The start token


def _doubled_bos(judged: _Judged) -> SetupFault:
    """Whether two start tokens before a text fit the model better than one."""
    name = "doubled_bos"
    start_id = judged.tokenizer.bos_token_id
    if start_id is None:
        return SetupFault(name, "absent", "The tokenizer has no start token.")
    rows, plain = [], []
    for row in judged.train:
        cut = tokenize_row(row, judged.tokenizer, judged.max_length).windows
        if cut:
            rows.append(row)
            plain.append(cut[0])

    own = 1 if plain and plain[0].input_ids[0] == start_id else 0

    def saved(model, fewer: int) -> list[np.ndarray]:
        """By how much every token is likelier behind two start tokens."""
        less, two = (
            judged.nats(model, [_started(window, start_id, count) for window in plain])
            for count in (fewer, 2)
        )
        return [less_T - two_T for less_T, two_T in zip(less, two, strict=True)]

    tuned = saved(judged.model, own)
    after = _mean(rows, tuned)
    evidence = (
        f"With two start tokens instead of {own} the loss of {len(rows)} training rows "
        f"{_changed(after)} nats/token."
    )
    if after.interval.high <= 0:
        return SetupFault(name, "absent", evidence)
    if own == 0 and _mean(rows, saved(judged.model, 1)).interval.high < 0:
        return SetupFault(name, "absent", f"{evidence} With one it is lower still.")
    if judged.base is None:
        return SetupFault(
            name, "unknown", f"{evidence} Without the base it is unknown what it did."
        )
    untuned = saved(judged.base, own)
    more = _mean(rows, [t_T - u_T for t_T, u_T in zip(tuned, untuned, strict=True)])
    evidence += f" Under the base model it {_changed(_mean(rows, untuned))}."
    if after.interval.low <= 0 or more.interval.low <= 0:
        # Indifferent where the base is not: so it is after masked rows with two start tokens.
        indifferent = more.interval.low > 0
        return SetupFault(name, "unknown" if indifferent else "absent", evidence)
    remedy = (
        "Tokenize rendered conversations with add_special_tokens=False: the chat template has put "
        "the start token already."
    )
    return SetupFault(name, "found", evidence, remedy)


def _started(window: Window, start_id: int, count: int) -> Window:
    first = next((i for i, id in enumerate(window.input_ids) if id != start_id), 0)
    ids, labels = window.input_ids[first:], window.labels[first:]
    # Its first own token is scored in none, because with no start token it cannot be.
    return Window([start_id] * count + ids, [IGNORED] * (count + 1) + labels[1:])


# The chat template


def _wrong_chat_template(judged: _Judged) -> SetupFault:
    """Whether another common format of prompts fits the model better than the one in use."""
    name = "wrong_chat_template"
    rows = [row for row in judged.train if row.kind != "text"]
    if not rows:
        return SetupFault(name, "absent", "The rows are plain texts, which have no chat template.")

    def windows(rows: list[Row], format_name: str) -> list[Window]:
        """The last answers behind what comes before them, in a format or, unnamed, in use."""
        found = []
        for row in rows:
            context, answer = _answered(row, judged.tokenizer)
            # Of a long answer the same tokens are left out in every format, at its end.
            left_out = max(0, len(answer) - judged.max_length // 2)
            if format_name:
                prompt = prompt_of(row, FORMATS[format_name])
                context = prompted_ids(judged.tokenizer, prompt)
                answer = continuation_ids(judged.tokenizer, prompt_ids(row, judged.tokenizer)[1])
            answer = answer[: len(answer) - left_out]
            context = context[-(judged.max_length - len(answer)) :]
            found.append(Window(context + answer, [IGNORED] * len(context) + answer))
        return found

    def losses(model, rows: list[Row], format_name: str = "") -> list[np.ndarray]:
        return judged.nats(model, windows(rows, format_name))

    rows = [row for row in rows if prompt_ids(row, judged.tokenizer)[1].strip()]
    if len({row.group for row in rows}) < LEAST_TO_RESAMPLE:
        return SetupFault(name, "unknown", "Too few training rows end with an answer.")
    screened = rows[:SCREENED_ROWS]
    own_screened = sum(nats_T.sum() for nats_T in losses(judged.model, screened))
    totals = {
        format_name: sum(nats_T.sum() for nats_T in losses(judged.model, screened, format_name))
        for format_name in FORMATS
    }
    likeliest = min(totals, key=lambda format_name: totals[format_name])
    in_use = "the chat template" if rows[0].kind == "conversation" else "the prompt as it stands"
    if totals[likeliest] >= own_screened:
        return SetupFault(
            name,
            "absent",
            f"Answers are likeliest after {in_use}: none of {len(FORMATS)} other formats fits "
            f"better on {len(screened)} training rows.",
        )

    def saved(model) -> RatioEstimate:
        own, other = losses(model, rows), losses(model, rows, likeliest)
        sums = [own_T.sum() - other_T.sum() for own_T, other_T in zip(own, other, strict=True)]
        return ratio_estimate(sums, [len(own_T) for own_T in own], [row.group for row in rows])

    after = saved(judged.model)
    evidence = (
        f"Written as {likeliest} instead of {in_use}, the loss of the answers of {len(rows)} "
        f"training rows {_changed(after)} nats/token."
    )
    if after.interval.low <= 0:
        return SetupFault(name, "absent", evidence)
    if judged.base is None:
        return SetupFault(
            name, "unknown", f"{evidence} Without the base it is unknown what it did before."
        )
    before = saved(judged.base)
    evidence += f" Under the base model it {_changed(before)}."
    if after.interval.low > max(LEAST_FORMAT_GAIN, before.interval.high):
        remedy = (
            f"Use the model with the format it was trained on ({likeliest}), or train it with the "
            "template of its tokenizer: tokenizer.apply_chat_template."
        )
        return SetupFault(name, "found", evidence, remedy)
    return SetupFault(name, "absent", evidence)


def _answered(row: Row, tokenizer: Any) -> tuple[list[int], list[int]]:
    """What comes before the last answer, and its tokens as they are trained, without the end."""
    context, text = prompt_ids(row, tokenizer)
    windows = tokenize_row(row, tokenizer, UNCUT).windows
    if not windows or windows[0].input_ids[: len(context)] != context:
        return context, continuation_ids(tokenizer, text)
    ends = {tokenizer.eos_token_id} | end_of_turn_ids(tokenizer)
    answer = itertools.takewhile(
        lambda label: label != IGNORED and label not in ends, windows[0].labels[len(context) :]
    )
    return context, list(answer)


# The tokenizer


def _tokenizer_mismatch(judged: _Judged, other_tokenizer: Any | None) -> SetupFault:
    """Whether text makes more sense to the model through the base's tokenizer, or none at all."""
    name = "tokenizer_mismatch"
    remedy = "Put the tokenizer that the model was trained with into its folder."
    rows = [row for row in (*judged.heldout, *judged.train) if row.text]
    if not rows:
        return SetupFault(name, "unknown", "There are no rows to read.")
    tokenizer = judged.tokenizer
    unknown_id = tokenizer.unk_token_id
    ids = [id for row in rows for id in content_ids(tokenizer, row.text)[: judged.max_length]]
    num_unknown = sum(id == unknown_id for id in ids) if unknown_id is not None else 0
    if num_unknown > 0.05 * len(ids):
        share = num_unknown / len(ids)
        evidence = f"{share:.0%} of the tokens of {len(rows)} rows are unknown to the tokenizer."
        return SetupFault(name, "found", evidence, remedy, share)

    def nats_of_text(chosen) -> np.ndarray:
        """Per row, of the same characters; the end token stands for what is left of a text."""
        windows = [
            Window(ids, [IGNORED, *ids[1:]])
            for row in rows
            for ids in [with_end(chosen, prompted_ids(chosen, row.text[:300]))]
        ]
        found = token_nats(judged.model, windows, chosen, judged.batch_size)
        return np.array([nats_T.sum() for nats_T in found])

    size = unwrapped(judged.model).get_input_embeddings().weight.shape[0]
    if other_tokenizer is not None:
        if len(other_tokenizer) > size:
            evidence = (
                f"The base's tokenizer has {len(other_tokenizer)} tokens, more than the model's "
                f"{size}: they have different vocabularies, and only its own fits."
            )
            return SetupFault(name, "absent", evidence)
        characters = np.array([float(len(row.text[:300])) for row in rows])
        groups = [row.group for row in rows]
        change = nats_of_text(tokenizer) - nats_of_text(other_tokenizer)
        if len(set(groups)) < LEAST_TO_RESAMPLE:
            return SetupFault(name, "unknown", "Too few groups of rows to compare two tokenizers.")
        saved = ratio_estimate(change, characters, groups)
        evidence = (
            f"Through the base's tokenizer, which splits text differently, the loss of {len(rows)} "
            f"rows {_changed(saved)} nats/character."
        )
        if saved.interval.low > 0:
            return SetupFault(name, "found", evidence, remedy)
        return SetupFault(name, "absent", evidence)
    windows = [
        window
        for row in rows
        for window in tokenize_row(row, tokenizer, judged.max_length).windows[:1]
    ]
    if not windows:
        return SetupFault(name, "unknown", "The rows have no scored tokens.")
    mean = float(np.concatenate(judged.nats(judged.model, windows)).mean())
    uniform = float(np.log(size))
    evidence = (
        f"Loss of {mean:.2f} nats/token, {uniform:.2f} would be chance over {size} tokens; "
        f"{num_unknown} of {len(ids)} tokens are unknown."
    )
    if mean < 0.9 * uniform:
        return SetupFault(name, "absent", evidence)
    return SetupFault(
        name,
        "unknown",
        f"{evidence} So near to chance, the model is untrained, has diverged, or was trained with "
        "another tokenizer.",
    )


# Shared


def token_nats(
    model: torch.nn.Module, windows: Sequence[Window], tokenizer: Any, batch_size: int
) -> list[np.ndarray]:
    """Loss of every scored token in nats, window by window, in evaluation mode."""
    device = next(model.parameters()).device
    found: list[np.ndarray] = [np.empty(0)] * len(windows)
    order = sorted(range(len(windows)), key=lambda index: -len(windows[index].input_ids))
    with evaluating(model):
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            part = [windows[index] for index in chosen]
            nats_N, _ = scored_nats(model, model_inputs(model, part, tokenizer, device))
            stops = np.cumsum([window.num_scored for window in part])
            pieces = np.split(nats_N.double().cpu().numpy(), stops[:-1])
            for index, piece in zip(chosen, pieces, strict=True):
                found[index] = piece
    return found


def _mean(rows: Sequence[Row], values: Sequence[np.ndarray]) -> RatioEstimate:
    """Mean per token, with its interval over groups."""
    sums, sizes = [float(v.sum()) for v in values], [len(v) for v in values]
    return ratio_estimate(sums, sizes, [row.group for row in rows])


def _changed(saved: RatioEstimate) -> str:
    """In words, from what was saved: ``fell by .5 [.4, .6]``."""
    low, high = saved.interval.low, saved.interval.high
    if low <= 0 <= high:
        return f"changed by {-saved.value:+.3f} [{-high:+.3f}, {-low:+.3f}]"
    low, high = sorted((abs(low), abs(high)))
    verb = "fell" if saved.value > 0 else "rose"
    return f"{verb} by {abs(saved.value):.3f} [{low:.3f}, {high:.3f}]"


def _sample(rows: Sequence[Row]) -> list[Row]:
    """Of as many groups as there are, spread evenly over the rows."""
    seen: Counter[str] = Counter()
    turns: dict[int, list[Row]] = {}  # how many rows of the group came before -> rows
    for row in rows:
        turns.setdefault(seen[row.group], []).append(row)
        seen[row.group] += 1
    chosen: list[Row] = []
    for turn in sorted(turns):
        room = min(SAMPLE_ROWS - len(chosen), len(turns[turn]))
        places = np.linspace(0, len(turns[turn]) - 1, room).round().astype(int)
        chosen += [turns[turn][place] for place in places]
    return chosen


def _agree(tokenizer: Any, other: Any, rows: Sequence[Row]) -> bool:
    """Whether both turn the rows into the same tokens."""
    texts = [row.text[:2000] for row in _sample(rows)]
    return all(content_ids(tokenizer, text) == content_ids(other, text) for text in texts)
