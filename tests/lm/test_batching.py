"""What a model writes does not depend on the prompts beside it, on padding or on a cache."""

import pytest
import torch
from tiny_architectures import tiny_model
from transformers import LlamaForCausalLM

from heldout.core.errors import UserError
from heldout.lm.generate import continued_ids


class Tokenizer:
    """None of its tokens ends a text."""

    bos_token_id = eos_token_id = chat_template = None
    pad_token_id = 0
    all_special_tokens = ()


def scaled(model_type):
    """A model whose continuations differ by prompt."""
    model = tiny_model(model_type)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter *= 4
    model.generation_config.eos_token_id = None
    return model


def prompts():
    generator = torch.Generator().manual_seed(1)
    lengths = (9, 5, 9, 7, 3)
    return [torch.randint(4, 95, (n,), generator=generator).tolist() for n in lengths]


@torch.no_grad()
def by_hand(model, ids, num_new):
    """The most likely token again and again, without padding or cache."""
    ids = list(ids)
    for _ in range(num_new):
        inputs = torch.tensor([ids])
        mask = torch.ones_like(inputs)
        logits = model(input_ids=inputs, attention_mask=mask, use_cache=False).logits
        ids.append(int(logits[0, -1].argmax()))
    return ids[-num_new:]


@pytest.mark.parametrize(
    "model_type", ["bart", "git", "minimax", "reformer", "roberta", "rwkv", "whisper", "xlstm"]
)
def test_a_batch_writes_what_its_rows_write_alone(model_type, caplog):
    model = scaled(model_type)
    caplog.set_level("INFO", "heldout")
    found, _ = continued_ids(model, Tokenizer(), prompts(), 5, batch_size=5)
    assert found == [by_hand(model, ids, 5) for ids in prompts()]
    assert "ForCausalLM continues" in caplog.text or model_type in ("minimax", "reformer")


class Muddled(LlamaForCausalLM):
    """Adds something of the batch to every row."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits + output.logits.roll(1, 0).roll(1, -1) * (
            len(output.logits) > 1
        )
        return output


def test_a_model_that_mixes_rows_writes_them_one_by_one():
    model = scaled("llama")
    model.__class__ = Muddled
    found, _ = continued_ids(model, Tokenizer(), prompts(), 5, batch_size=5)
    assert found == [by_hand(model, ids, 5) for ids in prompts()]


def test_a_model_that_cannot_write_is_told():
    with pytest.raises(UserError, match=r"BltForCausalLM cannot write: generate of transformers"):
        continued_ids(tiny_model("blt"), Tokenizer(), prompts(), 5)
