"""Prequential code length of real text by the embedded model, beside zlib, xz and zstd.

    python benchmarks/compress.py

The text is the language reference that comes with Python (``pydoc_data.topics``), a paragraph a
document and a topic a group: 100 kB that the model, pretrained on speeches, has not seen. Another
version of Python has other paragraphs, as the hash tells. Finished blocks are kept in
``.cache/compress`` and not coded again. One thread.
"""

import argparse
import json
import random
import time
from pathlib import Path
from pydoc_data.topics import topics

import torch
from record import write_record

from heldout.core.measurement import Measurement
from heldout.core.progress import Progress
from heldout.jobs.compressing.compress import compress

MODEL = "package:heldout"
FOLDER = Path(".cache/compress")
CHARACTERS = (80, 1200)  # of a paragraph
SETTINGS = (
    "data.group=topic",
    "data.max_length=256",
    "train.max_epochs=4",
    "train.threads=1",
    "eval.per_epoch=1",
)


class Lines(Progress):
    """Nothing but the figures, one line each."""

    def advance(self, num: int = 1, text: str = "") -> None:
        if text:
            print(time.strftime("%H:%M:%S"), text, flush=True)


def paragraphs(num_bytes: int, seed: int = 0) -> list[dict[str, str]]:
    """Whole topics in an order of the seed until there are ``num_bytes``; none twice."""
    names = sorted(topics)
    random.Random(seed).shuffle(names)
    rows: list[dict[str, str]] = []
    seen: set[str] = set()
    size = 0
    for name in names:
        for text in topics[name].split("\n\n"):
            fits = CHARACTERS[0] <= len(text) <= CHARACTERS[1]
            if fits and text not in seen and size < num_bytes:
                seen.add(text)
                size += len(text.encode())
                rows.append({"text": text, "topic": name})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bytes", type=int, default=100_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    data = FOLDER / "python_topics.jsonl"
    lines = (json.dumps(row, ensure_ascii=False) for row in paragraphs(options.bytes))
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    start = time.process_time()
    result = compress(
        str(data),
        model=MODEL,
        recipe="full",
        settings=SETTINGS,
        blocks=6,
        out=FOLDER / "run",
        progress=Lines(),
    )
    figures: dict[str, float] = {}
    for each in result.measurements:
        if isinstance(each, Measurement):
            figures[f"{each.name}_bits_per_byte"] = each.value
            if each.interval:
                figures[f"{each.name}_low"] = each.interval.low
                figures[f"{each.name}_high"] = each.interval.high
            for control, contrast in each.contrasts.items():
                figures[f"{each.name}_minus_{control}"] = contrast.difference
    best = min(result.two_part, key=lambda each: each.bits)
    last = result.blocks[-1]
    figures |= {
        "last_block_bits_per_byte": last.bits_per_byte,
        "last_block_xz_bits_per_byte": last.compressors["xz"] / last.num_bytes,
        "two_part_bits_per_byte": best.bits / result.num_bytes,
        "num_bytes": result.num_bytes,
        "num_tokens": result.num_tokens,
        "cpu_seconds_of_this_call": time.process_time() - start,
    }
    entry = result.to_json()
    path = write_record(
        "compress",
        figures,
        table=[
            *({"text": "as it is", **each} for each in entry["blocks"]),
            *({"text": "words shuffled", **each} for each in entry["shuffled_blocks"]),
            *({"two_part": each} for each in entry["two_part"]),
        ],
        seeds=[0],
        data_sha256=result.sha256,
        command="python benchmarks/compress.py",
        note=f"{result.headline} " + " ".join(result.notes),
    )
    print(json.dumps(figures, indent=1), path)


if __name__ == "__main__":
    main()
