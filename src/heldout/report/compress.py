"""The page of a compression: bits per byte of each block, beside what general compressors need."""

from collections.abc import Sequence
from pathlib import Path

from heldout.core.files import write_text
from heldout.core.measurement import Measurement
from heldout.core.results.compression import Block, CompressResult
from heldout.report import words
from heldout.report.chart import Axis, Chart, Figure, Key, Mark, Table, band
from heldout.report.page import render_page

STARTS = {"base": "Base model, untrained", "uniform": "Uniform code"}
NAMES = {
    "prequential": "Prequential code",
    "base": "Base model, untrained",
    "uniform": "Uniform code",
    "structure": "Structure: saved on unseen documents",
    "rote": "Rote: saved on seen documents beyond that",
    "word_order": "Word order: shuffled words are longer by",
}


def write_compress(result: CompressResult, path: Path) -> Path:
    """Write one self-contained HTML file; whole or not at all."""
    return write_text(path, render_compress(result))


def render_compress(result: CompressResult) -> str:
    """The page as text."""
    code = next(each for each in result.measurements if each.name == "prequential")
    assert isinstance(code, Measurement)
    return render_page(
        "compress.html.j2",
        [learning(result)],
        title=f"Compression of {words.last_name(result.data)}",
        result=result,
        code=code,
        names=NAMES,
        start=STARTS[result.start_code],
        measured=[each for each in result.measurements if isinstance(each, Measurement)],
        missing=[each for each in result.measurements if not isinstance(each, Measurement)],
        compressors=list(result.blocks[0].compressors),
        before=_before(result.blocks),
    )


def learning(result: CompressResult) -> Chart:
    """Bits per byte of each block over the tokens that its model had been trained on."""
    blocks = result.blocks
    before = _before(blocks)
    xs = list(range(len(blocks)))
    sure = [
        (x, each.interval)
        for x, each in zip(xs, blocks, strict=True)
        if each.interval and not each.interval.is_withheld
    ]
    series = [
        (STARTS[result.start_code], "base", "dot", [_start(each) for each in blocks]),
        *(
            (name, token, dash, [each.compressors[name] / each.num_bytes for each in blocks])
            for (token, dash), name in zip(
                (("run2", "dash"), ("run6", "dashdot"), ("run5", "longdash")),
                blocks[0].compressors,
                strict=False,
            )
        ),
        (
            "Words shuffled",
            "train",
            "dash",
            [each.bits_per_byte for each in result.shuffled_blocks],
        ),
        ("Prequential code", "heldout", "solid", [each.bits_per_byte for each in blocks]),
    ]
    marks = [
        Mark(
            xs,
            ys,
            token,
            name=name,
            hover="%{y} bits per byte",
            dash=dash,
            symbol="circle",
            size=7,
        )
        for name, token, dash, ys in series
    ]
    if len(sure) > 1:
        places = [x for x, _ in sure]
        lows, highs = [b.low for _, b in sure], [b.high for _, b in sure]
        marks.insert(0, band(places, lows, highs, "heldout_band"))
    legend = [Key(name, token, dash) for name, token, dash, _ in reversed(series)]
    if len(sure) > 1:
        legend.insert(1, Key("95 % interval", "heldout_band", "band"))
    return Chart(
        "learning",
        "Bits per byte, block by block",
        Figure(
            Axis(
                "tokens seen before the block",
                low=-0.2,
                high=len(blocks) - 0.8,
                ticks=list(zip(xs, map(words.thousands, before), strict=True)),
            ),
            Axis(low=0),
            marks,
        ),
        "Code length of unseen documents, in bits per byte",
        "Line chart of bits per byte over the tokens seen before: "
        + ", ".join(words.number(each.bits_per_byte, 2) for each in blocks)
        + ".",
        "Every block is coded before the model is trained on it, so a fall is structure that the "
        "documents share, not rote. Where the line still falls at the right, more data of this "
        "kind would help. The words in random order are the control.",
        Table(
            ("Tokens seen before", *(name for name, *_ in reversed(series))),
            [
                (words.integer(seen), *(words.number(ys[x]) for *_, ys in reversed(series)))
                for x, seen in zip(xs, before, strict=True)
            ],
        ),
        400,
        tuple(legend),
    )


def _start(block: Block) -> float:
    return block.start_bits / block.num_bytes


def _before(blocks: Sequence[Block]) -> list[int]:
    """Tokens of all earlier blocks."""
    seen = [0]
    for block in blocks[:-1]:
        seen.append(seen[-1] + block.num_tokens)
    return seen
