"""Rewordings that mean nothing, facts that are changed, and divergences equal to their formula."""

import copy
import random
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from heldout.core.measurement import NotMeasured
from heldout.core.probe import Evidence
from heldout.core.row import Row
from heldout.lm.generate import continued_ids
from heldout.lm.measuring.prompt_pairs import harmless_rewordings, key_fact_changed, prompt_pairs
from heldout.probes.prompt_sensitivity import PromptSensitivity

OPTIONS = {"num_prompts": 5, "answer_tokens": 6, "batch_size": 16}


@pytest.fixture(scope="module")
def model(tiny_model_dir):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter *= 6
    return model


def asked(question, number):
    messages = ({"role": "prompt", "content": question}, {"role": "completion", "content": " x"})
    return Row(number, messages, f"g{number}")


@pytest.fixture(scope="module")
def rows():
    return [asked(f"In {1900 + 7 * n} the king said: how many ships?", n) for n in range(20)]


def test_rewordings_mean_nothing():
    text = "he said 'no' to Bob."
    reworded = harmless_rewordings(text)
    assert reworded["case of the first letter"] == "He said 'no' to Bob."
    assert reworded["straight or curly quotes"] == "he said ’no’ to Bob."
    assert reworded["end punctuation"] == text[:-1]
    for changed in reworded.values():
        assert changed != text
    # A text that goes on keeps its end.
    assert all(v.endswith("to Bob.") for v in harmless_rewordings(text, whole=False).values())
    chinese = harmless_rewordings("你好，几点了？")
    assert chinese["width of punctuation"] == "你好,几点了?"
    assert harmless_rewordings("你好,几点了?")["width of punctuation"] == "你好，几点了？"
    assert chinese["a polite word"].startswith("请回答：")
    assert "width of punctuation" not in reworded


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("It was built in 1987 by them.", r"It was built in [1-9]\d{3} by them\."),
        ("It opens on Monday at noon.", r"It opens on \w+day at noon\."),
        ("In town lived Martha with a dog.", r"In town lived (?!Martha)[A-Z]\w+ with a dog\."),
        ("他在三月出生。", r"他在[一二四五六七八九]月出生。"),
        ("昨天，王明说他很累。", r"昨天，(?!王明)..说他很累。"),
        ("公元1987年建成。", r"公元[1-9]\d{3}年建成。"),
    ],
)
def test_one_key_fact_changes(text, pattern):
    for seed in range(10):
        changed = key_fact_changed(text, random.Random(seed))
        assert changed != text
        assert re.fullmatch(pattern, changed), changed
        assert changed == key_fact_changed(text, random.Random(seed))


def test_no_key_fact_no_change():
    for text in ("The ship sails.", "我们统一了一些看法。", "version v2x of it", ""):
        assert key_fact_changed(text, random.Random(0)) == ""


@torch.no_grad()
def test_divergences_equal_the_formula(model, tiny_tokenizer, rows):
    found = prompt_pairs(model, tiny_tokenizer, rows, **OPTIONS)
    assert len(found) == 5
    assert all(found.changed)

    def answer(text):
        ids = tiny_tokenizer(text)["input_ids"]
        return continued_ids(model, tiny_tokenizer, [ids], OPTIONS["answer_tokens"])[0][0]

    def mean_log(answer, text):
        ids = tiny_tokenizer(text)["input_ids"]
        logs = model(torch.tensor([ids + answer])).logits[0].double().log_softmax(1)
        places = range(len(ids) - 1, len(ids) + len(answer) - 1)
        return np.mean([logs[at, token].item() for at, token in zip(places, answer, strict=True)])

    def moved(x, y):
        """|log P(answer of y | x) - log P(answer of y | y)| a token."""
        own = answer(y)
        return abs(mean_log(own, x) - mean_log(own, y))

    for place in range(2):
        text = found.prompts[place]
        wordings = [text, *found.rewordings[place].values()]
        posix = [moved(x, y) for x in wordings for y in wordings if x != y]
        harmless = [moved(text, w) + moved(w, text) for w in wordings[1:]]
        key = moved(text, found.changed[place]) + moved(found.changed[place], text)
        assert found.posix_P[place] == pytest.approx(np.mean(posix), rel=1e-3, abs=1e-4)
        assert found.harmless_P[place] == pytest.approx(np.mean(harmless) / 2, rel=1e-3, abs=1e-4)
        assert found.key_P[place] == pytest.approx(key / 2, rel=1e-3, abs=1e-4)


def evidence_of(pairs):
    evidence = Evidence({})
    for key, found in pairs.items():
        evidence = evidence.adding(found, *key)
    return evidence


def test_a_model_that_does_not_look_back_is_moved_by_nothing(model, tiny_tokenizer, rows):
    blind = copy.deepcopy(model)
    with torch.no_grad():
        for layer in blind.model.layers:
            layer.self_attn.o_proj.weight.zero_()
    # Texts, so that no rewording touches the last token, which is all that this model sees.
    texts = [
        Row(row.index, ({"role": "text", "content": row.text * 3},), row.group) for row in rows
    ]
    options = {**OPTIONS, "num_prompts": 16, "prompt_tokens": 24}
    found = prompt_pairs(blind, tiny_tokenizer, texts, **options)
    looking = prompt_pairs(model, tiny_tokenizer, texts, **options)
    assert np.abs(found.posix_P).max() < 1e-4 < looking.posix_P.min()
    assert np.nanmax(np.abs(found.key_P)) < 1e-4 < np.nanmin(looking.key_P)
    assert found.prompts == looking.prompts
    pairs = {("best", "test"): found, ("base", "test"): looking}
    measured = {m.name: m for m in PromptSensitivity().measure(evidence_of(pairs))}
    assert measured["prompt_sensitivity_best"].value < 1e-4
    assert measured["prompt_sensitivity_best"].contrasts["base"].interval.high < 0
    itself = {("best", "test"): looking, ("base", "test"): looking}
    measured = {m.name: m for m in PromptSensitivity().measure(evidence_of(itself))}
    for name in ("prompt_sensitivity_best", "key_fact_sensitivity_best"):
        assert measured[name].contrasts["base"].difference == 0
    others = {**itself, ("base", "test"): replace(looking, prompts=looking.prompts[::-1])}
    for measurement in PromptSensitivity().measure(evidence_of(others)):
        assert measurement.contrasts == {}
    ratio = looking.key_P.sum() / looking.harmless_P.sum()
    assert measured["key_fact_sensitivity_best"].value == pytest.approx(ratio)


def test_pairs_of_the_user_and_conversations(model, tiny_tokenizer):
    chat = (
        {"role": "user", "content": "How tall is Mount Elgon, at 4321 m?"},
        {"role": "assistant", "content": "Tall."},
    )
    found = prompt_pairs(
        model,
        tiny_tokenizer,
        [Row(3, chat, "c")],
        **OPTIONS,
        pairs=[("Is it red?", "Is it green?")],
    )
    assert found.prompts == ["Is it red?", chat[0]["content"]]
    assert found.changed[0] == "Is it green?"
    assert np.isfinite(found.key_P[0])


def test_too_few_prompts_are_not_measured(model, tiny_tokenizer, rows):
    few = prompt_pairs(model, tiny_tokenizer, rows, **OPTIONS)
    for pairs in ({}, {("best", "test"): few}):
        found = PromptSensitivity().measure(evidence_of(pairs))
        assert [type(m) for m in found] == [NotMeasured, NotMeasured]
