"""Streaming losses: the right numbers, in order, in little memory, without side effects."""

import random
import tracemalloc

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

from heldout.core.errors import TrainingDiverged, UserError
from heldout.core.row import Row
from heldout.lm.nll import document_losses, evaluating
from heldout.lm.tokenize import tokenize_row

OPTIONS = {"max_length": 48, "batch_size": 4}


@pytest.fixture(scope="module")
def model(tiny_model_dir):
    return AutoModelForCausalLM.from_pretrained(tiny_model_dir).eval()


@pytest.fixture(scope="module")
def rows(english_text):
    found = []
    for index in range(30):
        piece = english_text[index * 400 : index * 400 + 30 + 17 * index]
        half = len(piece) // 2
        messages = (
            ({"role": "text", "content": piece},),
            (
                {"role": "prompt", "content": piece[:half]},
                {"role": "completion", "content": piece[half:]},
            ),
            (
                {"role": "user", "content": piece[:half]},
                {"role": "assistant", "content": piece[half:]},
                {"role": "user", "content": "And?"},
                {"role": "assistant", "content": "No."},
            ),
        )[index % 3]
        found.append(Row(100 + index, messages, f"group {index // 2}"))
    return found


def naive(model, rows, tokenizer, max_length):
    """One window after the other, full logits, by hand."""
    losses = []
    for row in rows:
        total = 0.0
        for window in tokenize_row(row, tokenizer, max_length).windows:
            logits = model(torch.tensor([window.input_ids])).logits[0, :-1]
            targets = torch.tensor(window.labels[1:])
            total += F.cross_entropy(logits, targets, ignore_index=-100, reduction="sum").item()
        losses.append(total)
    return losses


@torch.no_grad()
def test_equals_the_naive_loss_of_each_row(model, rows, tiny_tokenizer):
    losses = document_losses(model, iter(rows), tiny_tokenizer, **OPTIONS)
    expected = naive(model, rows, tiny_tokenizer, OPTIONS["max_length"])
    np.testing.assert_allclose(losses.nll_nats_D, expected, rtol=1e-5)
    tokenized = [tokenize_row(row, tiny_tokenizer, 10_000) for row in rows]
    assert max(len(t.windows[0].input_ids) for t in tokenized) > 3 * OPTIONS["max_length"]
    assert losses.num_tokens_D.tolist() == [t.num_tokens for t in tokenized]
    assert losses.num_bytes_D.tolist() == [t.num_bytes for t in tokenized]
    assert losses.groups_D.tolist() == [row.group for row in rows]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_does_not_depend_on_batches_or_order(model, rows, tiny_tokenizer, batch_size):
    losses = document_losses(model, rows, tiny_tokenizer, **OPTIONS)
    other = document_losses(model, rows[::-1], tiny_tokenizer, max_length=48, batch_size=batch_size)
    np.testing.assert_allclose(other.nll_nats_D[::-1], losses.nll_nats_D, rtol=1e-5)


def test_leaves_modes_and_random_numbers_as_found(model, rows, tiny_tokenizer):
    model.train()
    model.model.layers[0].eval()
    before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
    losses = document_losses(model, rows, tiny_tokenizer, **OPTIONS)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]
    assert model.training
    assert model.lm_head.training
    assert not model.model.layers[0].mlp.training
    model.config.attention_dropout = 0.5
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    again = document_losses(model, rows, tiny_tokenizer, **OPTIONS)
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.0
    model.eval()
    np.testing.assert_array_equal(again.nll_nats_D, losses.nll_nats_D)


def test_mode_is_restored_after_an_exception(model):
    model.train()
    with pytest.raises(ZeroDivisionError), evaluating(model):
        _ = 1 / model.training  # 1 / 0 in evaluation mode
    assert model.training
    model.eval()


def test_progress_counts_rows(model, rows, tiny_tokenizer):
    counts: list[int] = []
    document_losses(
        model, rows, tiny_tokenizer, max_length=48, batch_size=1, progress=counts.append
    )
    assert counts == sorted(counts)
    assert len(counts) > 3
    assert counts[-1] == len(rows)


def test_a_loss_that_is_not_finite_names_its_row(tiny_model_dir, rows, tiny_tokenizer):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match=r"row 10\d"):
        document_losses(model, rows[:10], tiny_tokenizer, **OPTIONS)


def test_a_window_longer_than_the_model_reads_is_refused(model, english_text, tiny_tokenizer):
    row = Row(0, ({"role": "text", "content": english_text[:9000]},), "g")
    with pytest.raises(UserError, match=r"data\.max_length must be at most 512"):
        document_losses(model, [row], tiny_tokenizer, max_length=1024, batch_size=1)


def test_rows_without_scored_tokens_count_nothing(model, tiny_tokenizer):
    row = Row(0, ({"role": "user", "content": "Hi"},), "g")
    losses = document_losses(model, [row], tiny_tokenizer, **OPTIONS)
    assert (losses.nll_nats_D.tolist(), losses.num_tokens_D.tolist()) == ([0.0], [0])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_rows(model, tiny_tokenizer):
    """What is kept of a row must not hold its text or tokens, above a kilobyte here."""

    def rows(num_rows):
        for index in range(num_rows):
            prompt = f"{index} " + "word " * 100
            messages = (
                {"role": "prompt", "content": prompt},
                {"role": "completion", "content": "a"},
            )
            yield Row(index, messages, str(index))

    def peak_bytes(num_rows):
        tracemalloc.start()
        document_losses(model, rows(num_rows), tiny_tokenizer, max_length=16, batch_size=8)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    few = peak_bytes(600)  # more than are read ahead
    # 32 bytes of numbers and a short group are kept per row.
    assert peak_bytes(1600) - few < 1000 * 400
