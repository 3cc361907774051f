"""From the code lengths of two orders of words to figures: structure, rote, word order."""

# D documents, K blocks

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from heldout.core.measurement import Contrast, Interval, Measurement, NotMeasured
from heldout.core.results.compression import Block, CompressResult, TwoPart
from heldout.core.stats import difference_of_ratios, paired_difference, ratio_estimate
from heldout.jobs.compressing.compressors import General
from heldout.jobs.compressing.prequential import Coded, Coder, Documents


def result_of(
    real: Documents,
    shuffled: Documents,
    coded: Coded,
    control: Coded,
    two_part: list[TwoPart],
    general: list[General],
    coder: Coder,
    about: Mapping[str, Any],
) -> CompressResult:
    """All figures of the documents ``real``, with ``shuffled``, coded as ``control``, beside them.

    ``about`` is what the coding depends on, by the names of the result's fields.
    """
    num_bytes = int(real.num_bytes_D.sum())
    start_code = "uniform" if coder.is_scratch else "base"
    blocks = _blocks(real, coded, {each.name: each.block_bits for each in general})
    measurements: list[Measurement | NotMeasured] = [
        _prequential(real, coded, control, start_code, general),
        _bits_per_byte(start_code, coded.start_D, real, note="nothing learned from the data"),
        _structure(real, coded, control),
        _rote(real, coded, control),
        _order(real, coded, control),
        *(_general(each, real, num_bytes) for each in general),
    ]
    by_name = {each.name: each for each in measurements}
    notes = [
        f"Intervals are over {_resampled_unit(real)}s, given this order of the documents and this "
        "seed: another order gives other blocks.",
        "Near duplicates in different blocks count as structure: `heldout check` finds them.",
    ]
    if start_code == "base":
        notes.append("The bits of the base model's own weights are not counted: it is given.")
    best = min(two_part, key=lambda each: each.bits)
    if best.bits > coded.bits_D.sum():
        notes.append(
            f"The shortest two-part code ({best.prior}) is {best.bits / coded.bits_D.sum():.1f} "
            "times as long as the prequential one: the weights cost more than they save."
        )
    return CompressResult(
        data=about["data"],
        sha256=about["sha256"],
        model=about["model"] if not coder.is_scratch else "from scratch",
        start_code=start_code,
        num_documents=len(real.rows),
        num_groups=len(np.unique(real.groups_D)),
        num_tokens=int(real.num_tokens_D.sum()),
        num_bytes=num_bytes,
        trained_parameters=coder.num_trained,
        blocks=blocks,
        shuffled_blocks=_blocks(shuffled, control, {}),
        two_part=two_part,
        measurements=measurements,
        headline=_in_words(by_name, start_code),
        notes=notes,
        settings={**about, "learning_rate": coder.rate},
    )


def _in_words(found: Mapping[str, Measurement | NotMeasured], start_code: str) -> str:
    code = found["prequential"]
    assert isinstance(code, Measurement)
    others = [each for each in found.values() if each.name in ("zlib", "xz", "zstd")]
    best = min((e for e in others if isinstance(e, Measurement)), key=lambda each: each.value)
    start = found[start_code]
    assert isinstance(start, Measurement)
    own, other, first = (f"{each.value:.3f}" for each in (code, best, start))
    words = f"{own} bits per byte, {best.name} needs {other} and the base model {first}."
    if start_code == "uniform":
        words = f"{own} bits per byte, {best.name} needs {other} and a uniform code {first}."
    structure, rote = found["structure"], found["rote"]
    if isinstance(structure, Measurement):
        words += _structure_in_words(structure)
        if isinstance(rote, Measurement):
            words += (
                f" Text that was seen is shorter by {rote.value:.3f} more "
                f"({_shown(rote.interval)}), which is rote."
            )
    return words


def _structure_in_words(structure: Measurement) -> str:
    """What training saved on new text, and what of it the order of words has to do with."""
    saved = f"{structure.value:.3f} bits per byte of new text ({_shown(structure.interval)})"
    beyond = structure.contrasts["shuffled"]
    same = structure.value - beyond.difference
    if beyond.interval.low > 0:
        return (
            f" What documents share saves {saved}; with the words of each shuffled {same:.3f} are "
            f"saved, {beyond.difference:.3f} less ({_shown(beyond.interval)})."
        )
    return (
        f" Training saves {saved}, and with the words of each document shuffled {same:.3f}: that "
        "is which words or characters are common, and nothing else that documents share is told."
    )


def _shown(bounds: Interval | None) -> str:
    return bounds.words() if bounds else "no interval"


def _blocks(documents: Documents, coded: Coded, compressors: dict[str, list[float]]) -> list[Block]:
    blocks = []
    for number in range(len(documents.ends)):
        span = documents.span(number)
        groups = documents.groups_D[span]
        bounds = None
        if len(np.unique(groups)) >= 2:
            num_bytes_D = documents.num_bytes_D[span]
            bounds = ratio_estimate(coded.bits_D[span], num_bytes_D, groups).interval
        blocks.append(
            Block(
                span.stop - span.start,
                int(documents.num_tokens_D[span].sum()),
                int(documents.num_bytes_D[span].sum()),
                float(coded.bits_D[span].sum()),
                float(coded.start_D[span].sum()),
                coded.checkpoints[number],
                coded.epochs[number],
                coded.name_bits[number],
                {name: bits[number] for name, bits in compressors.items()},
                bounds,
            )
        )
    return blocks


def _resampled_unit(documents: Documents) -> str:
    return "document" if len(np.unique(documents.groups_D)) == len(documents.rows) else "group"


def _bits_per_byte(
    name: str,
    bits_D: np.ndarray,
    documents: Documents,
    *,
    contrasts: dict[str, Contrast] | None = None,
    note: str = "",
    signed: bool = False,
) -> Measurement:
    found = ratio_estimate(bits_D, documents.num_bytes_D, documents.groups_D, signed=signed)
    return Measurement(
        name,
        found.value,
        "bits per byte",
        found.num_groups,
        _resampled_unit(documents),
        found.interval,
        contrasts or {},
        note,
    )


def _paired(values_D: np.ndarray, control_D: np.ndarray, documents: Documents) -> Contrast:
    return paired_difference(
        values_D, control_D, documents.num_bytes_D, documents.groups_D
    ).as_contrast()


def _prequential(
    real: Documents, coded: Coded, control: Coded, start_code: str, general: list[General]
) -> Measurement:
    contrasts = {
        start_code: _paired(coded.bits_D, coded.start_D, real),
        "shuffled": _paired(coded.bits_D, control.bits_D, real),
    }
    for each in general:
        if each.document_bits_D is not None:
            contrasts[each.name] = _paired(coded.bits_D, each.document_bits_D, real)
    return _bits_per_byte("prequential", coded.bits_D, real, contrasts=contrasts)


def _structure(real: Documents, coded: Coded, control: Coded) -> Measurement | NotMeasured:
    """What training on other documents saves on one that was not seen."""
    span = slice(real.ends[0], None)
    part = _part(real, span)
    if len(np.unique(part.groups_D)) < 2:
        return NotMeasured("structure", "only one group comes after the first block")
    saved_D = (coded.start_D - coded.bits_D)[span]
    same_D = (control.start_D - control.bits_D)[span]
    return _bits_per_byte(
        "structure",
        saved_D,
        part,
        contrasts={"shuffled": _paired(saved_D, same_D, part)},
        note="saved on unseen documents, of all blocks after the first",
        signed=True,
    )


def _rote(real: Documents, coded: Coded, control: Coded) -> Measurement | NotMeasured:
    """What training saves on documents that were seen, beyond what it saves on unseen ones."""
    number = len(real.ends) - 1
    seen, unseen = real.span(number - 1), real.span(number)
    sides = [_part(real, span) for span in (seen, unseen)]
    fewest = min(len(np.unique(each.groups_D)) for each in sides)
    if fewest < 2:
        return NotMeasured("rote", "each of the last two blocks needs two groups or more")

    def saved(part: Coded) -> tuple[np.ndarray, np.ndarray]:
        return part.start_D[seen] - part.seen_D, part.start_D[unseen] - part.bits_D[unseen]

    def gap(values: Sequence[np.ndarray]) -> tuple[float, Interval]:
        first, second = (
            (value_D, side.num_bytes_D, side.groups_D)
            for value_D, side in zip(values, sides, strict=True)
        )
        return difference_of_ratios(first, second)

    value, bounds = gap(saved(coded))
    pairs = zip(saved(coded), saved(control), strict=True)
    difference, around = gap([own - other for own, other in pairs])
    return Measurement(
        "rote",
        value,
        "bits per byte",
        fewest,
        _resampled_unit(real),
        bounds,
        {"shuffled": Contrast(difference, around)},
        "saved on the last block that was trained on, minus saved on the last block, which was not",
    )


def _order(real: Documents, coded: Coded, control: Coded) -> Measurement:
    found = _paired(control.bits_D, coded.bits_D, real)
    return Measurement(
        "word_order",
        found.difference,
        "bits per byte",
        len(np.unique(real.groups_D)),
        _resampled_unit(real),
        found.interval,
        note="by which the words of a document in random order are longer",
    )


def _general(each: General, documents: Documents, num_bytes: int) -> Measurement:
    if each.document_bits_D is not None:
        return _bits_per_byte(each.name, each.document_bits_D, documents, note=each.settings)
    return Measurement(
        each.name,
        each.bits / num_bytes,
        "bits per byte",
        len(np.unique(documents.groups_D)),
        "data set",
        note=f"{each.settings}; one stream, so there is no interval over documents",
    )


def _part(documents: Documents, span: slice) -> Documents:
    return Documents(
        documents.rows[span],
        documents.num_tokens_D[span],
        documents.unscored_D[span],
        documents.num_bytes_D[span],
        documents.groups_D[span],
        [],
    )
