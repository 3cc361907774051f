"""A model that has learned rows by heart, and one that has not."""

import numpy as np
import pytest
import scipy.stats
import torch
from transformers import AutoModelForCausalLM

from heldout.core.measurement import Interval
from heldout.core.probe import Evidence, VerbatimMemorization
from heldout.core.recipe import DataSection
from heldout.core.row import Row
from heldout.core.shares import difference_of_shares
from heldout.data.split import split_rows
from heldout.diagnosis.verdicts import verdicts_of
from heldout.lm.generate import continuations
from heldout.lm.measuring.memorization_prompt import memorization_prompt
from heldout.lm.measuring.pass_statistics import pass_statistics
from heldout.probes.memorization import Memorization


def rows(english_text, first, num):
    paragraphs = [" ".join(p.split())[:150] for p in english_text.split("\n\n") if len(p) > 200]
    return [
        Row(i, ({"role": "text", "content": text},), f"row-{i}")
        for i, text in enumerate(paragraphs[first : first + num])
    ]


@pytest.fixture(scope="module")
def memorizer(tiny_model_dir, tiny_tokenizer, english_text):
    """Trained on four rows until it knows them."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    ids = [torch.tensor([tiny_tokenizer(r.text).input_ids]) for r in rows(english_text, 0, 4)]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        for text in ids:
            loss = model(input_ids=text, labels=text).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return model


def test_memorized_is_what_greedy_decoding_returns(memorizer, tiny_tokenizer, english_text):
    known, unknown = rows(english_text, 0, 4), rows(english_text, 20, 12)
    read = pass_statistics(memorizer, known + unknown, tiny_tokenizer, max_length=96, batch_size=5)
    found = VerbatimMemorization.of(read)
    assert found.row_index_D.tolist() == [row.index for row in known + unknown]
    assert found.memorized_D.tolist()[:4] == [True] * 4
    assert not found.memorized_D[4:].any()
    for row, memorized in zip(known + unknown, found.memorized_D, strict=True):
        prompt, rest = memorization_prompt(row, tiny_tokenizer, 96)
        suffix = tiny_tokenizer.decode(tiny_tokenizer(row.text).input_ids[11:31])
        assert rest.startswith(suffix)
        (text,) = continuations(memorizer, tiny_tokenizer, [prompt], 20)
        assert (text == suffix) == memorized


def test_short_rows_cannot_tell(memorizer, tiny_tokenizer):
    short = [Row(0, ({"role": "text", "content": "A list."},), "a")]
    assert (
        len(
            VerbatimMemorization.of(
                pass_statistics(memorizer, short, tiny_tokenizer, max_length=96, batch_size=4)
            )
        )
        == 0
    )


def made(share, num=80):
    memorized = np.arange(num) < share * num
    return VerbatimMemorization(memorized, np.arange(num).astype(str), np.arange(num))


def color(best_train, best_test, base_train=0.0, base_test=0.0):
    evidence = Evidence(
        {},
        memorization={
            ("base", "train"): made(base_train),
            ("base", "test"): made(base_test),
            ("best", "train"): made(best_train),
            ("best", "test"): made(best_test),
        },
    )
    return (
        verdicts_of(Memorization().measure(evidence), min_effect=0.01)
        .verdicts["memorization"]
        .color
    )


def test_the_verdict_needs_both_controls():
    assert color(0.5, 0.0) == "red"
    assert color(0.0, 0.0) == "green"
    assert color(0.5, 0.5) == "yellow", "boilerplate: held-out rows are memorized as often"
    assert color(0.5, 0.0, base_train=0.5) == "yellow", "the base model knew them before"


def test_groups_of_the_default_split_are_enough_to_rule_reciting_out():
    def of_nothing_recited(num_train, num_test):
        parts = {"train": made(0.0, num_train), "test": made(0.0, num_test)}
        both = {(model, part): parts[part] for model in ("base", "best") for part in parts}
        measured = Memorization().measure(Evidence({}, memorization=both))
        return verdicts_of(measured, min_effect=0.01).verdicts["memorization"]

    units = split_rows(
        [Row(n, ({"role": "text", "content": f"{n} " * 9},), str(n)) for n in range(140)],
        DataSection(),
    ).units
    assert of_nothing_recited(units["train"], units["test"]).color == "green"
    with_thirty = of_nothing_recited(80, 30)
    assert with_thirty.color == "yellow"
    assert "Too few groups to rule out 10%: more held-out rows would tell" in with_thirty.sentence


def test_rows_too_short_for_reciting_are_counted():
    short = {
        (model, part): VerbatimMemorization(*(np.zeros(0, dtype=t) for t in (bool, str, int)))
        for model in ("base", "best")
        for part in ("train", "test")
    }
    (measured,) = Memorization().measure(Evidence({}, memorization=short))
    assert "20 held-out rows of 30 scored tokens or more to see reciting, has 0 and 0" in (
        verdicts_of([measured], min_effect=0.01).verdicts["memorization"].sentence
    )


def test_newcombes_published_examples():
    """Newcombe 1998, table II, method 10: 56/70 - 48/80 and 10/10 - 0/20."""

    def share(hits, num):
        found = scipy.stats.binomtest(hits, num).proportion_ci(method="wilson")
        return hits / num, Interval(found.low, found.high)

    first = difference_of_shares(share(56, 70), share(48, 80)).interval
    assert (first.low, first.high) == pytest.approx((0.0524, 0.3339), abs=2e-4)
    second = difference_of_shares(share(10, 10), share(0, 20)).interval
    assert (second.low, second.high) == pytest.approx((0.6791, 1.0), abs=2e-4)
