"""Training answers that lie at other rows' prompts are named as that."""

import json
import random

import pytest

from english import articles
from heldout.jobs.diagnosing.diagnose import diagnose

MODEL = "package:heldout"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def halves():
    """The two halves of paragraphs: the second is an answer that goes on from its prompt."""
    paragraphs = dict.fromkeys(
        " ".join(p.split()) for text in articles() for p in text.split("\n\n")
    )
    chosen = [text.split() for text in paragraphs if 160 < len(text) < 300]
    random.Random(0).shuffle(chosen)
    return [(" ".join(w[: len(w) // 2]), " ".join(w[len(w) // 2 :])) for w in chosen[:160]]


@pytest.mark.parametrize("kind", ["swapped", "true"])
def test_swapped_answers_are_named_and_true_ones_are_not(kind, halves, tmp_path):
    train, heldout = halves[:80], halves[80:]
    if kind == "swapped":  # each has the next one's
        answers = [answer for _, answer in train]
        train = [(q, answers[(n + 1) % len(train)]) for n, (q, _) in enumerate(train)]
    for part, rows in (("train", train), ("heldout", heldout)):
        lines = [json.dumps({"prompt": q, "completion": f" {a}"}) + "\n" for q, a in rows]
        (tmp_path / f"{part}.jsonl").write_text("".join(lines), encoding="utf-8")
    result = diagnose(
        MODEL,
        train=tmp_path / "train.jsonl",
        heldout=tmp_path / "heldout.jsonl",
        base=MODEL,
        settings=("data.max_length=128", "eval.batch_size=16"),
        probes=("heldout_loss", "swapped_answers"),
        generate=False,
    )
    named = [cause.name for cause in result.verdict.causes]
    assert named == (["swapped_answers"] if kind == "swapped" else [])
