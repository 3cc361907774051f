"""Canaries and template answers in the training rows, diagnosed as what they are."""

import json

import pytest

from framed_rows import answered, canaries, texts
from heldout.jobs.diagnosing.diagnose import diagnose


@pytest.mark.parametrize("kind", ["canaries", "template_answers"])
def test_they_are_named_first_and_as_nothing_else(kind, english_text, tiny_model_dir, tmp_path):
    own, unseen = texts(english_text, 0, 80), texts(english_text, 100, 60)
    if kind == "canaries":
        train, heldout = [*own, *canaries(8)], unseen
    else:
        train = answered([f"I am sorry, I cannot help with case {n}." for n in range(60)])
        heldout = answered([row.text for row in unseen], 60)
    for part, rows in (("train", train), ("heldout", heldout)):
        entries = [{m["role"]: m["content"] for m in row.messages} for row in rows]
        lines = [json.dumps(entry) + "\n" for entry in entries]
        (tmp_path / f"{part}.jsonl").write_text("".join(lines), encoding="utf-8")
    result = diagnose(
        str(tiny_model_dir),
        train=tmp_path / "train.jsonl",
        heldout=tmp_path / "heldout.jsonl",
        base=str(tiny_model_dir),
        settings=("data.max_length=64", "eval.batch_size=16"),
        probes=("heldout_loss", "odd_rows"),
        generate=False,
    )
    assert [cause.name for cause in result.verdict.causes] == [kind]
    assert result.remedies[0].cause == kind
