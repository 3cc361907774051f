"""The embedded model and the embedded data, as package data that a newcomer gets."""

import json
import zlib

import numpy as np
import pytest
import torch

from heldout.core.row import Row
from heldout.data.factbook import question_answer_rows
from heldout.jobs.demo import MODEL, demo
from heldout.lm.generate import continuations
from heldout.lm.load import load_model
from heldout.lm.nll import document_losses

# Written for this test, in the register of the speeches that the model was pretrained on.
SPEECH = (
    "Fellow citizens of the Senate and of the House of Representatives: the condition of our "
    "country is sound, and the people have reason to be grateful. Our commerce with foreign "
    "nations has increased during the past year, the revenues of the Government have been "
    "sufficient for its expenses, and I recommend to the Congress that a part of the surplus be "
    "applied to the reduction of the public debt."
)


@pytest.fixture(scope="module")
def loaded():
    return load_model(MODEL, device="cpu")


def test_the_model_is_small_and_in_float32(loaded):
    assert 2_000_000 <= loaded.parameters <= 3_000_000
    assert next(loaded.model.parameters()).dtype == torch.float32


def test_it_predicts_english_far_better_than_zlib(loaded):
    row = Row(0, ({"role": "text", "content": SPEECH},), "speech")
    losses = document_losses(loaded.model, [row], loaded.tokenizer, max_length=512, batch_size=1)
    zlib_bits_per_byte = 8 * len(zlib.compress(SPEECH.encode(), 9)) / len(SPEECH.encode())
    assert losses.bits_per_byte < 2.0 < zlib_bits_per_byte


def test_it_writes_words(loaded):
    prompt = loaded.tokenizer("The people of the United States").input_ids
    (text,) = continuations(loaded.model, loaded.tokenizer, [prompt], 24)
    assert len(text.split()) >= 8
    assert text.isascii()


@pytest.mark.slow
def test_the_demo_on_a_part_of_its_rows(tmp_path):
    for part, rows in question_answer_rows().items():
        lines = [json.dumps(row) for row in rows[:36]]
        (tmp_path / f"{part}.jsonl").write_text("\n".join(lines))
    result = demo(
        out=tmp_path / "demo",
        settings=(
            f"data.validation={tmp_path}/validation.jsonl",
            f"data.test={tmp_path}/test.jsonl",
            "data.max_rows=64",
            "train.max_epochs=2",
            "control.fixed_epochs=1",
            "eval.max_train_rows=24",
            "eval.num_samples=1",
            "eval.max_new_tokens=8",
        ),
    )
    figures = result.run.read_json("result.json")["figures"]
    assert figures["test_nll_best_minus_base_high"] < 0
    assert 0 <= figures["recital_base"] <= 0.1
    assert np.isfinite(figures["generalization_gap_best"])
    assert len(result.run.test_openings) == 1
