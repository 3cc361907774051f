"""Generations: what the model decides and nothing else, beside the documents' own continuation."""

import itertools

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from heldout.core.decoding import GREEDY, Decoding
from heldout.core.errors import UserError
from heldout.core.row import Row
from heldout.lm.generate import continuations
from heldout.lm.measuring.generations import continuation_nats, generations, with_nats
from heldout.lm.nll import context_length

OPTIONS = {"num_prompts": 6, "prompt_tokens": 12, "new_tokens": 20, "batch_size": 4}
DRAWN = Decoding(temperature=1.0, top_p=0.9)


@pytest.fixture(scope="module")
def model(tiny_model_dir):
    """Weights scaled up, so that the random model's continuations differ by prompt."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter *= 6
    return model


@pytest.fixture(scope="module")
def rows(english_text):
    texts = [text for text in english_text.split("\n\n") if len(text) > 20][:12]
    return [
        Row(7 * i, ({"role": "text", "content": text},), f"g{i}") for i, text in enumerate(texts)
    ]


def ids_of(generated):
    return [ids.tolist() for ids in generated.token_ids]


def test_greedy_text_beside_what_the_document_goes_on_with(model, tiny_tokenizer, rows):
    found = generations(model, tiny_tokenizer, rows, **OPTIONS)
    assert len(found) == 6
    assert found.decoding == GREEDY.name == "greedy"
    texts = {row.index: row.text for row in rows}
    for place, index in enumerate(found.row_index):
        ids = tiny_tokenizer(texts[index])["input_ids"]
        cut = len(found.prompt_ids[place])
        assert found.prompt_ids[place].tolist() == ids[:cut]
        assert found.reference_ids[place].tolist() == ids[cut : cut + 20]
        assert found.groups[place] == f"g{index // 7}"
        assert len(found.token_ids[place]) == 20 or found.ended[place]
    prompts = [ids.tolist() for ids in found.prompt_ids]
    assert found.texts == continuations(model, tiny_tokenizer, prompts, 20, 4)
    assert len(set(found.texts)) > 3


def test_long_rows_go_first(model, tiny_tokenizer, rows):
    short = [Row(900 + i, ({"role": "text", "content": "a b c d e f g"},), "s") for i in range(40)]
    found = generations(model, tiny_tokenizer, [*short, *rows], **OPTIONS)
    assert max(found.row_index) < 900
    assert {len(ids) for ids in found.prompt_ids} == {12}
    assert {len(ids) for ids in found.reference_ids} == {20}


def test_sampling_repeats_with_its_seed_and_leaves_random_numbers_alone(
    model, tiny_tokenizer, rows
):
    six = rows[:6]  # all of them, so that the seed decides nothing but what is drawn
    before = torch.get_rng_state()
    first = generations(model, tiny_tokenizer, six, **OPTIONS, decoding=DRAWN)
    torch.rand(3)
    again = generations(model, tiny_tokenizer, six, **OPTIONS, decoding=DRAWN)
    other = generations(model, tiny_tokenizer, six, **OPTIONS, decoding=DRAWN, seed=1)
    assert ids_of(first) == ids_of(again)
    assert first.prompts == other.prompts
    assert ids_of(first) != ids_of(other)
    torch.set_rng_state(before)
    generations(model, tiny_tokenizer, six, **OPTIONS, decoding=DRAWN)
    assert torch.equal(before, torch.get_rng_state())
    assert first.decoding == "temperature 1, top_p 0.9"


def test_drawing_from_one_token_is_greedy(model, tiny_tokenizer, rows):
    greedy = generations(model, tiny_tokenizer, rows, **OPTIONS)
    for decoding in (Decoding(temperature=2.0, top_k=1), Decoding(temperature=1.0, min_p=1.0)):
        assert ids_of(generations(model, tiny_tokenizer, rows, **OPTIONS, decoding=decoding)) == (
            ids_of(greedy)
        )


def test_no_ngram_comes_twice_where_that_is_forbidden(model, tiny_tokenizer, rows):
    def repeated(decoding):
        found = generations(model, tiny_tokenizer, rows, **OPTIONS, decoding=decoding)
        pairs = [list(itertools.pairwise(ids)) for ids in ids_of(found)]
        return sum(len(p) - len(set(p)) for p in pairs)

    assert repeated(GREEDY) > 0
    assert repeated(Decoding(no_repeat_ngram_size=2)) == 0


def test_answers_of_prompts_and_conversations(model, tiny_tokenizer):
    asked = ({"role": "prompt", "content": "Q: 1?"}, {"role": "completion", "content": " One."})
    chat = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."})
    found = generations(model, tiny_tokenizer, [Row(0, asked, "a"), Row(1, chat, "b")], **OPTIONS)
    assert found.references == [" One.", "Hello."]
    assert found.prompts[0] == "Q: 1?"
    assert found.prompts[1].endswith("assistant\n")


def test_loss_of_the_text_under_the_base_model(model, tiny_tokenizer, rows):
    written = generations(model, tiny_tokenizer, rows, **OPTIONS)
    found, again = with_nats([written, written], model, tiny_tokenizer, batch_size=3)
    assert again.own_nats is not None
    assert all(map(np.array_equal, found.own_nats, again.own_nats))
    assert all(map(np.array_equal, found.reference_nats, again.reference_nats))
    for place in range(len(found)):
        for ids, nats in (
            (found.token_ids[place], found.own_nats[place]),
            (found.reference_ids[place], found.reference_nats[place]),
        ):
            whole = torch.tensor([[*found.prompt_ids[place].tolist(), *ids.tolist()]])
            with torch.no_grad():
                logs = model(whole).logits[0].double().log_softmax(1)
            cut = len(found.prompt_ids[place])
            expected = [-logs[at - 1, whole[0, at]].item() for at in range(cut, whole.shape[1])]
            np.testing.assert_allclose(nats, expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("beyond", [-1, 0, 1, 7])
def test_a_continuation_as_long_as_the_context_keeps_one_token_of_its_prompt(
    model, tiny_tokenizer, beyond
):
    limit = context_length(model)
    prompt, ids = np.arange(5, 45), np.arange(limit + beyond) % 50 + 5
    (nats,) = continuation_nats(model, tiny_tokenizer, [prompt], [ids], 1)
    window = torch.tensor([[prompt[-1], *ids[: limit - 1]]])
    with torch.no_grad():
        logs = model(window).logits[0].double().log_softmax(1)
    expected = [-logs[at, window[0, at + 1]].item() for at in range(limit - 1)]
    np.testing.assert_allclose(nats, expected, rtol=2e-4, atol=2e-4)


def test_nothing_to_continue_is_empty(model, tiny_tokenizer):
    one_token = Row(0, ({"role": "text", "content": "a"},), "a")
    assert len(generations(model, tiny_tokenizer, [one_token], **OPTIONS)) == 0


def test_refusals_in_one_line():
    with pytest.raises(UserError, match="set temperature=1"):
        Decoding(top_p=0.5)
    with pytest.raises(UserError, match="top_p must be above 0"):
        Decoding(temperature=1.0, top_p=0.0)
