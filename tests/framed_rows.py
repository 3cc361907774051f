"""Rows of text, of planted secrets, and of questions with given answers."""

from heldout.core.row import Row
from heldout.data.canaries import canary_fields, make_canaries


def texts(english_text, first, num):
    """Different paragraphs; those with even numbers are of the same kind as those with odd ones."""
    paragraphs = dict.fromkeys(" ".join(p.split()) for p in english_text.split("\n\n"))
    chosen = [p for p in paragraphs if 200 < len(p) < 400]
    mixed = [*chosen[0:200:2], *chosen[1:200:2]]
    return [text_row(place, mixed[place]) for place in range(first, first + num)]


def text_row(index, text, source=""):
    return Row(index, ({"role": "text", "content": text},), f"row-{index}", source)


def canaries(num, source=""):
    found = [
        canary_fields(canary, "text", {})["text"]
        for canary in make_canaries(num, 0)
        for _ in range(canary.copies)
    ]
    return [text_row(1000 + place, text, source) for place, text in enumerate(found)]


def answered(answers, first=0):
    return [
        Row(
            place,
            (
                {"role": "prompt", "content": f"Question {place} of many?"},
                {"role": "completion", "content": answer},
            ),
            f"row-{place}",
        )
        for place, answer in enumerate(answers, first)
    ]
