"""One pass tells what slow, separate computations from the definitions tell."""

import copy
import math
import zlib

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from heldout.core.errors import TrainingDiverged
from heldout.core.pass_statistics import CONFIDENCE_BINS, POSITION_EDGES
from heldout.core.row import Row
from heldout.lm.measuring.pass_statistics import pass_statistics, scored_text, token_statistics
from heldout.lm.nll import document_losses
from heldout.lm.tokenize import collate, tokenize_row
from heldout.probes.confidence import calibration_error, equal_width_bins

OPTIONS = {"max_length": 48, "batch_size": 4}


@pytest.fixture(scope="module")
def rows(english_text):
    found = []
    for index in range(24):
        piece = english_text[index * 400 : index * 400 + 30 + 20 * index]
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


@pytest.fixture(scope="module")
def model(tiny_model_dir, tiny_tokenizer, rows):
    """Trained on the first rows until it knows some by heart, so that no number is trivial."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    windows = [w for row in rows[3:9] for w in tokenize_row(row, tiny_tokenizer, 48).windows]
    batch = collate(windows, 0)
    for _ in range(100):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def slow_twin(model, row, tokenizer, max_length):
    """Per scored token, one by one, in float64 and by the definitions."""
    found = []
    for window in tokenize_row(row, tokenizer, max_length).windows:
        logits = model(torch.tensor([window.input_ids])).logits[0].double().numpy()
        for position, label in enumerate(window.labels):
            if label == -100:
                continue
            x = logits[position - 1]
            log_p = x - x.max() - math.log(np.exp(x - x.max()).sum())
            p = np.exp(log_p)
            mean = (p * log_p).sum()
            deviation = math.sqrt((p * (log_p - mean) ** 2).sum())
            wanted = np.zeros(len(p))
            wanted[label] = 1
            found.append(
                {
                    "nats": -log_p[label],
                    "top": p.max(),
                    "right": float(p.argmax() == label),
                    "entropy": -mean,
                    "brier": ((p - wanted) ** 2).sum(),
                    "surprise": (log_p[label] - mean) / deviation,
                }
            )
    return {name: np.array([token[name] for token in found]) for name in found[0]}


@torch.no_grad()
def test_everything_equals_its_definition(model, rows, tiny_tokenizer):
    found = pass_statistics(model, iter(rows), tiny_tokenizer, **OPTIONS)
    recited = 0
    for d, row in enumerate(rows):
        twin = slow_twin(model, row, tiny_tokenizer, OPTIONS["max_length"])
        nats, num = twin["nats"], len(twin["nats"])
        lowest = max(1, int(0.2 * num))
        close = {"rel": 2e-4, "abs": 2e-4}
        assert found.losses.nll_nats_D[d] == pytest.approx(nats.sum(), **close)
        assert found.entropy_nats_D[d] == pytest.approx(twin["entropy"].sum(), **close)
        assert found.brier_D[d] == pytest.approx(twin["brier"].sum(), **close)
        assert found.min_k_D[d] == pytest.approx(np.sort(-nats)[:lowest].mean(), **close)
        assert found.min_k_plus_D[d] == pytest.approx(
            np.sort(twin["surprise"])[:lowest].mean(), **close
        )
        bins = np.minimum((twin["top"] * CONFIDENCE_BINS).astype(int), CONFIDENCE_BINS - 1)
        for got, weights in (
            (found.bin_tokens_DC, None),
            (found.bin_confidence_DC, twin["top"]),
            (found.bin_correct_DC, twin["right"]),
        ):
            expected = np.bincount(bins, weights, CONFIDENCE_BINS)
            # Rounding may move a token over the edge of a bin.
            np.testing.assert_allclose(np.cumsum(got[d]), np.cumsum(expected), atol=1.01)
            assert got[d].sum() == pytest.approx(expected.sum(), **close)
        for bucket, first in enumerate(POSITION_EDGES):
            last = (*POSITION_EDGES, num)[bucket + 1] if bucket + 1 < len(POSITION_EDGES) else num
            assert found.position_nats_DP[d, bucket] == pytest.approx(
                nats[first:last].sum(), **close
            )
            assert found.position_tokens_DP[d, bucket] == len(nats[first:last])
        for name, (prefix, end) in {"short": (10, 30), "long": (50, 100)}.items():
            suffix = found.suffixes[name]
            assert math.isnan(suffix.nats_D[d]) == (num < end)
            if num >= end:
                assert suffix.nats_D[d] == pytest.approx(nats[prefix:end].sum(), **close)
                assert suffix.greedy_D[d] == twin["right"][prefix:end].all()
                recited += suffix.greedy_D[d]
        assert found.zlib_bytes_D[d] == len(zlib.compress(scored_text(row).encode()))
    assert recited, "no row is known by heart: the test would not see a wrong suffix"
    assert found.row_index_D.tolist() == [row.index for row in rows]


def test_losses_are_those_of_document_losses(model, rows, tiny_tokenizer):
    found = pass_statistics(model, iter(rows), tiny_tokenizer, **OPTIONS).losses
    plain = document_losses(model, rows, tiny_tokenizer, **OPTIONS)
    np.testing.assert_allclose(found.nll_nats_D, plain.nll_nats_D, rtol=1e-4)
    np.testing.assert_array_equal(found.num_tokens_D, plain.num_tokens_D)
    np.testing.assert_array_equal(found.num_bytes_D, plain.num_bytes_D)
    np.testing.assert_array_equal(found.groups_D, plain.groups_D)


@pytest.mark.parametrize("batch_size", [1, 7])
def test_do_not_depend_on_batches(model, rows, tiny_tokenizer, batch_size):
    one = pass_statistics(model, rows, tiny_tokenizer, **OPTIONS)
    other = pass_statistics(model, rows, tiny_tokenizer, max_length=48, batch_size=batch_size)
    np.testing.assert_allclose(one.min_k_plus_D, other.min_k_plus_D, rtol=1e-3)
    for name in one.suffixes:
        np.testing.assert_array_equal(one.suffixes[name].greedy_D, other.suffixes[name].greedy_D)


def test_models_that_change_logits_after_the_head(model, rows, tiny_tokenizer):
    """With a hook on the head, whole logits are taken; the numbers stay."""
    one = pass_statistics(model, rows, tiny_tokenizer, **OPTIONS)
    handle = model.lm_head.register_forward_hook(lambda module, inputs, output: output * 1.0)
    other = pass_statistics(model, rows, tiny_tokenizer, **OPTIONS)
    handle.remove()
    np.testing.assert_allclose(one.losses.nll_nats_D, other.losses.nll_nats_D, rtol=1e-5)
    np.testing.assert_allclose(one.brier_D, other.brier_D, rtol=1e-4)


def test_temperature_changes_confidence_and_not_extraction(model, rows, tiny_tokenizer):
    """A final norm twice as large doubles all logits: the likeliest tokens stay."""
    one = pass_statistics(model, rows, tiny_tokenizer, **OPTIONS)
    sharper = copy.deepcopy(model)
    with torch.no_grad():
        sharper.model.norm.weight.mul_(2)
    other = pass_statistics(sharper, rows, tiny_tokenizer, **OPTIONS)
    for name, suffixes in one.suffixes.items():
        np.testing.assert_array_equal(suffixes.greedy_D, other.suffixes[name].greedy_D)
    assert one.suffixes["short"].greedy_D.any()

    def expected_calibration_error(found):
        bins = equal_width_bins(CONFIDENCE_BINS)
        return calibration_error(found, bins).sum() / found.losses.num_tokens_D.sum()

    assert expected_calibration_error(other) > expected_calibration_error(one) + 0.01
    assert other.entropy_nats_D.sum() < one.entropy_nats_D.sum()


def test_statistics_in_double_precision():
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(7, 33, generator=generator, dtype=torch.float64)
    targets = torch.randint(33, (7,), generator=generator)
    targets[:2] = logits[:2].argmax(1)
    found = token_statistics(logits, targets)
    for n in range(7):
        p = logits[n].softmax(0)
        log_p = p.log()
        mean = (p * log_p).sum()
        expected = [
            -log_p[targets[n]],
            p.max(),
            float(p.argmax() == targets[n]),
            -mean,
            ((p - torch.nn.functional.one_hot(targets[n], 33)) ** 2).sum(),
            (log_p[targets[n]] - mean) / (p * (log_p - mean) ** 2).sum().sqrt(),
        ]
        assert found[n].tolist() == pytest.approx([float(e) for e in expected], rel=1e-10)


def test_known_distributions():
    size = 64
    uniform = torch.zeros(1, size)
    nats, top, right, entropy, brier, surprise = token_statistics(uniform, torch.tensor([3]))[0]
    assert (nats, entropy) == (pytest.approx(math.log(size)), pytest.approx(math.log(size)))
    assert top == pytest.approx(1 / size)
    assert right == 0, "all are equally likely; greedy decoding takes the first"
    assert brier == pytest.approx(1 - 1 / size)
    assert abs(surprise) < 1e-2
    sure = torch.full((2, size), -torch.inf)
    sure[:, 5] = 0.0
    statistics = token_statistics(sure, torch.tensor([5, 5]))
    assert torch.isfinite(statistics).all(), "certainty is a distribution too"
    assert statistics[0].tolist() == [0, 1, 1, 0, 0, 0]


def test_rows_too_short_to_tell_are_told_apart(model, tiny_tokenizer):
    silent = Row(0, ({"role": "user", "content": "Hi"},), "g")
    short = Row(1, ({"role": "text", "content": "A list."},), "h")
    found = pass_statistics(model, [silent, short], tiny_tokenizer, **OPTIONS)
    assert np.isnan(found.min_k_D).tolist() == [True, False]
    assert np.isnan(found.suffixes["short"].nats_D).all()
    assert found.losses.num_tokens_D[0] == 0
    assert len(pass_statistics(model, [], tiny_tokenizer, **OPTIONS)) == 0


def test_a_loss_that_is_not_finite_names_its_row(tiny_model_dir, rows, tiny_tokenizer):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match=r"row 10\d"):
        pass_statistics(model, rows[:10], tiny_tokenizer, **OPTIONS)
