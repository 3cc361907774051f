"""Faults of the setup that were really planted are found, and a sound model has none."""

import copy

import pytest
import torch
from planted_setups import (
    healthy,
    inverted_mask,
    tuned,
    two_starts,
    unmasked,
    without_end,
    written_as,
)
from transformers import AutoTokenizer

from chinese_rows import pairs
from heldout.core.row import Row
from heldout.data.factbook import question_answer_rows
from heldout.jobs.demo import MODEL
from heldout.lm.load import load_model
from heldout.lm.measuring.prompt_formats import FORMATS, prompt_of
from heldout.lm.measuring.setup_faults.find import find_setup_faults
from heldout.lm.tokenize import tokenize_row

NAMES = ["masking_broken", "eos_lost", "doubled_bos", "wrong_chat_template", "tokenizer_mismatch"]
OPTIONS = {"max_length": 256, "batch_size": 16}


@pytest.fixture(scope="module")
def embedded():
    return load_model(MODEL, device="cpu")


@pytest.fixture(scope="module")
def conversations():
    def rows(part, num):
        return [
            Row(
                number,
                (
                    {"role": "user", "content": row["prompt"]},
                    {"role": "assistant", "content": row["completion"]},
                ),
                row["group"],
            )
            for number, row in enumerate(question_answer_rows(rows_per_country=1)[part][:num])
        ]

    return rows("train", 60), rows("test", 16)


@pytest.fixture(scope="module")
def tiny(tiny_model_dir):
    """Not trained at all, and quick."""
    return load_model(str(tiny_model_dir), device="cpu")


@pytest.fixture(scope="module")
def few(english_text):
    """Conversations, enough to tell of and quickly read."""

    def row(number):
        question, answer = (english_text[at : at + 80] for at in (200 * number, 200 * number + 80))
        messages = ({"role": "user", "content": question}, {"role": "assistant", "content": answer})
        return Row(number, messages, str(number))

    return [row(number) for number in range(12)], [row(number) for number in range(20, 26)]


def found_in(embedded, model, rows, base=True):
    train, heldout = rows
    checks = find_setup_faults(
        model,
        embedded.model if base else None,
        embedded.tokenizer,
        embedded.tokenizer if base else None,
        train,
        heldout,
        **OPTIONS,
    )
    assert [check.name for check in checks] == NAMES
    for check in checks:
        assert check.evidence
        assert (check.status == "found") == bool(check.remedy)
    return {check.name for check in checks if check.status == "found"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encode", "expected"),
    [
        (healthy, set()),
        (without_end, {"eos_lost"}),
        (unmasked, {"masking_broken"}),
        (inverted_mask, {"masking_broken"}),
        (written_as("Alpaca"), {"wrong_chat_template"}),
        (written_as("ChatML"), {"wrong_chat_template"}),
    ],
)
def test_planted_faults_of_conversations(embedded, conversations, encode, expected):
    model = tuned(embedded.model, embedded.tokenizer, conversations[0], encode)
    assert found_in(embedded, model, conversations) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encode", "expected"),
    [(healthy, set()), (without_end, {"eos_lost"}), (two_starts, {"doubled_bos"})],
)
def test_planted_faults_of_texts(embedded, english_text, encode, expected):
    texts = [" ".join(p.split()) for p in english_text.split("\n\n") if 100 < len(p) < 400]
    rows = [
        Row(i, ({"role": "text", "content": text},), f"row-{i}") for i, text in enumerate(texts)
    ]
    model = tuned(embedded.model, embedded.tokenizer, rows[:48], encode)
    assert found_in(embedded, model, (rows[:48], rows[100:116])) == expected


@pytest.fixture(scope="module")
def chinese():
    """Rows in a language that the tiny base knows nothing of: training and held-out ones."""
    rows = [
        Row(
            number,
            ({"role": "prompt", "content": question}, {"role": "completion", "content": answer}),
            f"row-{number}",
        )
        for number, (question, answer) in enumerate(pairs(72))
    ]
    return rows[:48], rows[48:]


def mask_of(tiny, model, rows, **options):
    """What is said of the mask."""
    train, heldout = rows
    checks = find_setup_faults(
        model, tiny.model, tiny.tokenizer, tiny.tokenizer, train, heldout, **OPTIONS, **options
    )
    return checks[0]


@pytest.fixture(scope="module")
def learned_masked(tiny, chinese):
    return tuned(tiny.model, tiny.tokenizer, chinese[0], healthy, epochs=6, rate=5e-3)


def test_a_language_that_was_learned_from_answers_is_no_broken_mask(tiny, chinese, learned_masked):
    mask = mask_of(tiny, learned_masked, chinese)
    assert mask.status == "unknown"
    assert "held-out rows that of prompts fell by" in mask.evidence
    assert "a language that is learned from answers" in mask.evidence


def test_few_heldout_rows_cannot_tell_a_language_from_a_broken_mask(tiny, chinese, learned_masked):
    train, heldout = chinese
    for few in ([], heldout[:5]):
        mask = mask_of(tiny, learned_masked, (train, few))
        assert mask.status == "unknown"
        assert f"there are {len(few)}" in mask.evidence


def test_prompts_known_by_heart_are_a_broken_mask_but_for_a_run_of_heldout(tiny, chinese):
    train, heldout = chinese[0][:12], chinese[1]
    model = tuned(tiny.model, tiny.tokenizer, train, unmasked, epochs=50, rate=5e-3)
    assert mask_of(tiny, model, (train, heldout)).status == "found"
    assert "--fact trains_on_prompts=true" in mask_of(tiny, model, (train, heldout)).remedy
    meant = mask_of(tiny, model, (train, heldout), prompts_meant=True)
    assert (meant.status, meant.remedy) == ("absent", "")
    # The labels of the run itself refute what the losses look like.
    mask = mask_of(tiny, model, (train, heldout), labels_known=True)
    scored = [tokenize_row(row, tiny.tokenizer, 192).windows[0] for row in train]
    num_scored = sum(window.num_scored for window in scored)
    assert mask.status == "absent"
    assert f"{num_scored:,} tokens of answers in 12 training rows" in mask.evidence


def test_a_model_that_was_not_trained_has_no_fault(tiny, few):
    assert found_in(tiny, tiny.model, few) == set()


def test_without_the_base_nothing_is_claimed_of_training(tiny, few):
    train, heldout = few
    checks = find_setup_faults(tiny.model, None, tiny.tokenizer, None, train, heldout, **OPTIONS)
    status = {check.name: check.status for check in checks}
    assert status["eos_lost"] == status["masking_broken"] == "unknown"


def test_few_rows_cannot_tell(tiny, few):
    train, heldout = few
    checks = find_setup_faults(
        tiny.model,
        tiny.model,
        tiny.tokenizer,
        tiny.tokenizer,
        train[:3],
        heldout,
        **OPTIONS,
    )
    assert {check.status for check in checks[:4]} == {"unknown"}


@pytest.mark.slow
def test_the_tokenizer_of_another_vocabulary_order(embedded, conversations, tmp_path):
    """The same words under other numbers, as when a tokenizer was trained anew."""
    import json

    embedded.tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    special = {token["content"] for token in content["added_tokens"]}
    words = [word for word in vocabulary if word not in special]
    numbers = [vocabulary[word] for word in words]
    vocabulary.update(zip(words, numbers[7:] + numbers[:7], strict=True))
    path.write_text(json.dumps(content), encoding="utf-8")
    wrong = AutoTokenizer.from_pretrained(tmp_path)
    train, heldout = conversations
    checks = find_setup_faults(
        embedded.model, embedded.model, wrong, embedded.tokenizer, train, heldout, **OPTIONS
    )
    by_name = {check.name: check for check in checks}
    assert by_name["tokenizer_mismatch"].status == "found"
    assert "fell by" in by_name["tokenizer_mismatch"].evidence
    # And the right one beside a base with the wrong one is no fault.
    checks = find_setup_faults(
        embedded.model, embedded.model, embedded.tokenizer, wrong, train, heldout, **OPTIONS
    )
    assert checks[-1].status == "absent"


def test_a_loss_near_chance_is_told(tiny, few):
    model = copy.deepcopy(tiny.model)
    with torch.no_grad():
        model.model.norm.weight.zero_()
    train, heldout = few
    checks = find_setup_faults(model, None, tiny.tokenizer, None, train, heldout, **OPTIONS)
    assert checks[-1].status == "unknown"
    assert "5.99 nats/token, 5.99 would be chance" in checks[-1].evidence


def test_formats_hold_every_message_once_before_the_answer():
    row = Row(
        0,
        (
            {"role": "system", "content": "Be {brief}."},
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": "Yes."},
            {"role": "user", "content": "Two?"},
            {"role": "assistant", "content": "No."},
        ),
        "g",
    )
    for chosen in FORMATS.values():
        text = prompt_of(row, chosen)
        for content in ("Be {brief}.", "One?", "Yes.", "Two?"):
            assert text.count(content) == 1
        assert "No." not in text
        assert text.endswith(chosen.begin)
