"""What the page shows beside measurements: memorized rows, texts side by side, reliability."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from heldout.core.pass_statistics import Generations, PassStatistics
from heldout.core.results.diagnosis import MemorizedRow, SideBySide
from heldout.core.token_size import TokenSize
from heldout.core.verbatim import Corpora
from heldout.jobs.evidence.suffix_texts import kinds_of_personal_data, prefix_and_suffix
from heldout.jobs.evidence.texts import DiagnosedTexts
from heldout.lm.characters import decoded

MOST_MEMORIZED = 200
MOST_SAMPLES = 6
LEAST_COPY = 8  # tokens; what is shorter is said by everyone
RELIABILITY_BINS = 15


def memorized_rows(
    found: PassStatistics, texts: DiagnosedTexts, tokenizer: Any
) -> list[MemorizedRow]:
    """Memorized training rows, by their longest suffix; those most often repeated first."""
    rows = {row.index: row for row in texts.train}
    memorized: dict[int, MemorizedRow] = {}
    for name in ("long", "short"):
        suffixes = found.suffixes[name]
        for place in np.flatnonzero(suffixes.greedy_D & np.isfinite(suffixes.nats_D)):
            index = int(found.row_index_D[place])
            if index in memorized:
                continue
            prefix, suffix = prefix_and_suffix(
                rows[index], tokenizer, suffixes.prefix_tokens, suffixes.suffix_tokens
            )
            memorized[index] = MemorizedRow(
                index,
                f"Training row {index}",
                prefix,
                suffix,
                float(np.exp(-suffixes.nats_D[place])),
                texts.copies.get(index, 1),
                kinds_of_personal_data(suffix),
            )
    order = sorted(memorized.values(), key=lambda row: (-row.copies, -row.probability, row.row))
    return order[:MOST_MEMORIZED]


def samples_of(
    written: Mapping[tuple[str, str], Generations],
    searched: Corpora | None,
    tokenizer: Any,
    size: TokenSize,
) -> list[SideBySide]:
    """Continuations beside base and document; those that copy most of the training text first."""
    best, base = written.get(("best", "test")), written.get(("base", "test"))
    if best is None:
        return []
    copies = [_longest_copy(ids, searched) for ids in best.token_ids]
    order = sorted(range(len(best)), key=lambda place: (-copies[place].length, place))
    shown = []
    for place in order[:MOST_SAMPLES]:
        copy, ids = copies[place], best.token_ids[place].tolist()
        start, stop = (
            len(decoded(tokenizer, ids[:place])) for place in (copy.start, copy.start + copy.length)
        )
        is_long = copy.length >= size.tokens(LEAST_COPY)
        shown.append(
            SideBySide(
                "test",
                best.prompts[place],
                best.references[place],
                best.texts[place],
                base.texts[place] if base is not None else None,
                (start, stop) if is_long else None,
                copy.row if is_long else None,
            )
        )
    return shown


@dataclass(frozen=True)
class _Copy:
    """The longest run of tokens that stands in the training texts as well."""

    start: int = 0
    length: int = 0
    row: int = -1


def _longest_copy(ids: np.ndarray, searched: Corpora | None) -> _Copy:
    if searched is None or not len(ids):
        return _Copy()
    lengths, places = searched.train.matches(ids)
    start = int(np.argmax(lengths))
    document, _ = searched.train.document_of(int(places[start]))
    return _Copy(start, int(lengths[start]), int(searched.train.rows_D[document]))


def reliability(found: PassStatistics) -> list[tuple[float, float, int]]:
    """Mean confidence, share that was right, and tokens, in bins of equal width."""
    fold = (RELIABILITY_BINS, -1)
    tokens, sure, right = (
        each.sum(axis=0).reshape(fold).sum(axis=1)
        for each in (found.bin_tokens_DC, found.bin_confidence_DC, found.bin_correct_DC)
    )
    return [
        (float(s / n), float(r / n), int(n))
        for n, s, r in zip(tokens, sure, right, strict=True)
        if n
    ]
