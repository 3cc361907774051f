"""Greedy continuations do not depend on padding, batches or the model's generation settings."""

import copy
import random

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM, GenerationConfig, LogitsProcessor

from heldout.core.errors import UserError
from heldout.lm.generate import continuations, continued_ids

NUM_NEW = 12


@pytest.fixture
def model(tiny_model_dir):
    """Weights scaled up, so that the random model's continuations differ by prompt."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter *= 8
    return model


@pytest.fixture(scope="module")
def prompts(tiny_tokenizer):
    texts = ["The", "An object's type is", "for x in range", "a", "Changed in version", "class C"]
    return [tiny_tokenizer(text)["input_ids"] for text in texts]


@torch.no_grad()
def by_hand(model, tokenizer, ids, num_new):
    """The most likely token again and again, without padding or cache, to a whole character."""
    ids, num_prompt = list(ids), len(ids)
    for _ in range(num_new):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    return tokenizer.decode(ids[num_prompt:], skip_special_tokens=True).rstrip("\ufffd")


@pytest.mark.parametrize("batch_size", [1, 4, 8])
def test_equals_greedy_by_hand(model, prompts, tiny_tokenizer, batch_size):
    expected = [by_hand(model, tiny_tokenizer, ids, NUM_NEW) for ids in prompts]
    assert len(set(expected)) > 3
    assert continuations(model, tiny_tokenizer, prompts, NUM_NEW, batch_size) == expected


def test_settings_of_the_model_do_not_apply(model, prompts, tiny_tokenizer):
    expected = continuations(model, tiny_tokenizer, prompts, NUM_NEW)
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=5.0,
        top_k=3,
        repetition_penalty=3.0,
        no_repeat_ngram_size=1,
        min_new_tokens=5,
        max_length=3,
        suppress_tokens=[40, 50, 60],
    )
    own = copy.deepcopy(model.generation_config)
    assert continuations(model, tiny_tokenizer, prompts, NUM_NEW) == expected
    assert model.generation_config == own


def test_everything_is_left_as_found(model, prompts, tiny_tokenizer):
    expected = continuations(model, tiny_tokenizer, prompts, NUM_NEW)
    model.train()
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.9
    own = model.generation_config
    before = (torch.get_rng_state(), random.getstate(), tiny_tokenizer.padding_side)
    assert continuations(model, tiny_tokenizer, prompts, NUM_NEW) == expected
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), tiny_tokenizer.padding_side) == before[1:]
    assert model.training
    assert model.generation_config is own


@pytest.mark.parametrize("end", ["tokenizer", "template", "model"])
def test_stops_at_every_kind_of_end(model, tiny_tokenizer, prompts, end):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    written = [tokenizer(by_hand(model, tokenizer, each, NUM_NEW))["input_ids"] for each in prompts]
    number = next(n for n, ids in enumerate(written) if len(set(ids[2:])) > 1 and n)
    ids = written[number]
    stop = next(i for i in ids[2:] if i != ids[0])
    before = tokenizer.decode(ids[: ids.index(stop)])
    if end == "model":
        model.generation_config.eos_token_id = [999, stop]
    elif end == "tokenizer":
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(stop)
    else:
        token = tokenizer.convert_ids_to_tokens(stop)
        tokenizer.add_special_tokens({"additional_special_tokens": [token]})
        tokenizer.chat_template = (
            "{% for m in messages %}{{ m['content'] }}" + token + "{% endfor %}"
        )
    assert continuations(model, tokenizer, [prompts[number], prompts[0]], NUM_NEW)[0] == before


@pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning")  # of PEFT
def test_under_peft_and_with_virtual_tokens(model, prompts, tiny_tokenizer):
    expected = continuations(model, tiny_tokenizer, prompts, NUM_NEW)
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    assert continuations(adapted, tiny_tokenizer, prompts, NUM_NEW) == expected
    prompted = get_peft_model(
        adapted.unload(), PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    )
    together = continuations(prompted, tiny_tokenizer, prompts, NUM_NEW)
    alone = [continuations(prompted, tiny_tokenizer, [ids], NUM_NEW)[0] for ids in prompts]
    assert together == alone


def test_long_and_empty_prompts(model, tiny_tokenizer):
    long = random.Random(0).choices(range(3, 400), k=900)
    assert by_hand(model, tiny_tokenizer, long[-500:], NUM_NEW) != by_hand(
        model, tiny_tokenizer, long, NUM_NEW
    )
    texts = continuations(model, tiny_tokenizer, [long, []], NUM_NEW)
    assert texts[0] == by_hand(model, tiny_tokenizer, long[-500:], NUM_NEW)
    assert texts[1] == by_hand(model, tiny_tokenizer, [tiny_tokenizer.eos_token_id], NUM_NEW)
    assert continuations(model, tiny_tokenizer, [], NUM_NEW) == []
    with pytest.raises(UserError, match=r"eval\.max_new_tokens must be under 512"):
        continuations(model, tiny_tokenizer, [[5]], 512)


def test_a_processor_of_the_caller_is_asked(model, prompts, tiny_tokenizer):
    plain, _ = continued_ids(model, tiny_tokenizer, prompts, NUM_NEW)
    used = sorted({token for ids in plain for token in ids})[:3]

    class Without(LogitsProcessor):
        def __call__(self, input_ids, scores):
            return scores.index_fill(1, torch.tensor(used), -torch.inf)

    found, _ = continued_ids(model, tiny_tokenizer, prompts, NUM_NEW, processors=[Without()])
    assert not {token for ids in found for token in ids} & set(used)
