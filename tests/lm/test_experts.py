"""A mixture of experts trains with the loss that balances it, as the model itself weighs it."""

import pytest
import torch
from tiny_architectures import tiny_model

from heldout.lm.experts import balancing_weight
from heldout.training.steps import Steps


def batch():
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(5, 90, (2, 9), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


@pytest.mark.parametrize("model_type", ["mixtral", "jetmoe", "gpt_oss", "dbrx"])
@pytest.mark.parametrize("num_micro_batches", [1, 2])
def test_the_loss_is_that_of_the_model_itself(model_type, num_micro_batches):
    model = tiny_model(model_type, output_router_logits=True)
    assert balancing_weight(model)
    plain = model(**batch(), output_router_logits=True)
    steps = Steps(model, [])
    with steps.attached():
        loss = steps.gradient([batch()] * num_micro_batches)
    assert loss == pytest.approx(plain.loss.item(), rel=1e-5)
    unbalanced = plain.loss - balancing_weight(model) * plain.aux_loss
    assert abs(loss - unbalanced.item()) > 1e-4


def test_without_a_coefficient_or_without_the_wish_there_is_none():
    assert balancing_weight(tiny_model("mixtral")) == 0
    assert balancing_weight(tiny_model("llama", output_router_logits=True)) == 0
    model = tiny_model("deepseek_v3", output_router_logits=True)
    assert balancing_weight(model) == 0
    steps = Steps(model, [])
    with steps.attached():
        assert steps.gradient([batch()]) > 0
