"""What is dropped from a row follows from the row, the seed and the step, and nothing else."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from heldout.regularizers.dropout import Dropout
from heldout.regularizers.free_lb import FreeLB
from heldout.regularizers.neftune import NEFTune
from heldout.regularizers.r_drop import RDrop
from heldout.regularizers.vat import VAT
from heldout.training.steps import Steps

LENGTHS = (9, 5, 14, 3, 9, 11, 4, 6)


def batch_of(rows, width=0):
    """Rows by their numbers, padded to the longest or to ``width``."""
    width = max(width, *(LENGTHS[row] for row in rows))
    ids = torch.full((len(rows), width), 2)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for place, row in enumerate(rows):
        own = torch.randint(3, 60, (LENGTHS[row],), generator=torch.Generator().manual_seed(row))
        ids[place, : len(own)] = labels[place, : len(own)] = own
        mask[place, : len(own)] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def packed(rows):
    batch = batch_of(rows)
    kept, labels = batch["attention_mask"].bool(), batch["labels"]
    labels[:, 0] = -100
    positions = kept.long().cumsum(1) - 1
    named = {"input_ids": batch["input_ids"], "labels": labels, "position_ids": positions}
    return {name: value[kept][None] for name, value in named.items()}


def step_of(steps, *window, step=3, seed=1):
    """Loss and gradient of a step over these batches, summed over scored tokens."""
    torch.manual_seed(seed)
    steps.step = step
    with steps.attached():
        loss = steps.gradient(list(window))
    num = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in window)
    parts = [p.grad.flatten() * num for p in steps.model.parameters() if p.grad is not None]
    steps.model.zero_grad()
    return torch.cat([torch.tensor([loss * num]), *parts])


def assert_close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-5)


def llama(folder, **options):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)


def assert_rows_keep_to_themselves(steps, rows=(2, 0, 1, 3)):
    alone = {row: step_of(steps, batch_of([row])) for row in rows}
    assert_close(step_of(steps, batch_of(rows)), sum(alone.values()))
    assert_close(step_of(steps, batch_of(rows[1:3]), batch_of(rows[3:], 20)),
                 sum(alone[row] for row in rows[1:]))  # fmt: skip
    assert_close(step_of(steps, packed(rows)), sum(alone.values()))
    for options in ({"step": 4}, {"seed": 2}):
        drawn_anew = step_of(steps, batch_of(rows[:1]), **options)
        # Far above rounding: the loss of one row may by chance hardly move, its gradient does.
        assert abs(drawn_anew - alone[rows[0]]).max() > 0.01


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("place", ["hidden", "attention", "embedding", "heads"])
def test_of_every_place(place, attention, tiny_model_dir):
    model = llama(tiny_model_dir, attn_implementation=attention)
    if place == "attention":  # a hundredth of a nat in a model that has learned nothing
        for layer in model.model.layers:
            layer.self_attn.v_proj.weight.data.mul_(30)
    assert_rows_keep_to_themselves(Steps(model, [Dropout(**{place: 0.3})]))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_of_the_model_itself(attention):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4)
    config._attn_implementation = attention
    assert_rows_keep_to_themselves(Steps(GPT2LMHeadModel(config), []))


def test_of_an_adapter_in_one_step_of_eight_rows_however_it_is_cut(tiny_model_dir):
    model = get_peft_model(
        llama(tiny_model_dir), LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.3)
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    steps = Steps(model, [Dropout(hidden=0.2)])
    whole = step_of(steps, batch_of(range(8)))
    for size in (1, 4):
        cut = [batch_of(range(start, start + size)) for start in range(0, 8, size)]
        assert_close(step_of(steps, *cut), whole)
    assert_rows_keep_to_themselves(steps)


@pytest.mark.parametrize("other", [RDrop(), NEFTune(alpha=30.0), VAT(), FreeLB()])
def test_of_several_passes_and_of_embeddings(other, tiny_model_dir):
    assert_rows_keep_to_themselves(Steps(llama(tiny_model_dir), [Dropout(hidden=0.2), other]))


@pytest.mark.parametrize("regularizer", [Dropout(hidden=0.3), NEFTune(alpha=50.0)])
def test_of_equal_rows_told_apart_by_where_they_come_from(regularizer, tiny_model_dir):
    steps = Steps(llama(tiny_model_dir), [regularizer])
    first, second = (
        step_of(steps, {**batch_of([0]), "row_index": torch.tensor([index])}) for index in (5, 6)
    )
    assert abs(first - second)[0] > 1e-3
    both = {**batch_of([2, 0, 0]), "row_index": torch.tensor([1, 6, 5])}
    other = step_of(steps, {**batch_of([2]), "row_index": torch.tensor([1])})
    assert_close(step_of(steps, both), first + second + other)
    unknown = step_of(steps, batch_of([0, 0]))
    assert abs(unknown - 2 * step_of(steps, batch_of([0])))[0] > 1e-3


def test_the_rest_of_the_program_draws_as_if_nothing_were_dropped(tiny_model_dir):
    """So the order of the data depends neither on dropout nor on how batches lie."""
    steps = Steps(llama(tiny_model_dir), [Dropout(hidden=0.3)])
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with steps.attached():
        steps.gradient([batch_of([0, 1])])
    assert torch.equal(torch.rand(3), expected)
