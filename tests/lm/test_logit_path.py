"""How logits come from hidden states is found by trying: on models that no list could name."""

import copy

import pytest
import torch
import torch.nn.functional as F
from tiny_architectures import VOCABULARY, tiny_model
from transformers import LlamaForCausalLM

from heldout.core.errors import UserError
from heldout.lm.logit_path import LogitPath, logit_path
from heldout.lm.passes import Passes
from heldout.lm.scored_loss import scored_loss, scored_nats
from heldout.training.steps import Steps


class Changed(LlamaForCausalLM):
    """Does something to its logits that no setting tells."""

    change = staticmethod(lambda logits_BTV: logits_BTV)

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = self.change(output.logits)
        return output


def changed(change):
    model = tiny_model("llama")
    model.__class__ = type("Changed", (Changed,), {"change": staticmethod(change)})
    return model


def by_position(logits_BTV):
    return logits_BTV * torch.linspace(0.5, 2, logits_BTV.shape[1])[:, None]


CHANGES = {
    "nothing": (lambda logits: logits, LogitPath.FUSED),
    "one number for all words": (lambda logits: logits + 3, LogitPath.SCORED),
    "scale": (lambda logits: logits * 0.9, LogitPath.SCORED),
    "cap that shows on large logits alone": (
        lambda logits: 30 * torch.tanh(logits / 30),
        LogitPath.SCORED,
    ),
    "masked words": (lambda logits: logits.index_fill(-1, torch.arange(5), -1e9), LogitPath.SCORED),
    "no gradient": (lambda logits: logits.detach() + 0 * logits, LogitPath.SCORED),
    "fewer words": (lambda logits: logits[..., :-2], LogitPath.SCORED),
    "by position": (by_position, LogitPath.WHOLE),
    "the whole row": (lambda logits: logits - logits[:, :1].softmax(-1), LogitPath.WHOLE),
}


def batch(num_rows=3):
    generator = torch.Generator().manual_seed(3)
    input_ids = torch.randint(5, VOCABULARY - 2, (num_rows, 9), generator=generator)
    attention_mask = torch.ones_like(input_ids)
    labels = input_ids.clone()
    labels[0, :4] = -100
    attention_mask[1, 6:] = 0
    labels[1, 6:] = -100
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def plain(model, inputs):
    """From all logits: summed loss, gradients, and the nats of each token."""
    arguments = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    logits_BTV = model(**arguments, use_cache=False).logits
    keep_BT = inputs["labels"][:, 1:] != -100
    logits_NV, targets_N = logits_BTV[:, :-1][keep_BT].float(), inputs["labels"][:, 1:][keep_BT]
    nats_N = F.cross_entropy(logits_NV, targets_N, reduction="none")
    return nats_N.sum(), gradients(model, nats_N.sum()), nats_N.detach()


def gradients(model, loss):
    trained = dict(model.named_parameters())
    found = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    return {n: g for n, g in zip(trained, found, strict=True) if g is not None}


def equal_plain(model):
    loss, wanted, nats_N = plain(model, batch())
    found, num_tokens = scored_loss(model, batch())
    torch.testing.assert_close(found, loss, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients(model, found), wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scored_nats(model, batch())[0], nats_N)
    passed = Passes(model, batch()).task.cross_entropy()
    torch.testing.assert_close(passed, loss, rtol=1e-5, atol=1e-5)
    steps = Steps(model, [])
    with steps.attached():
        mean = steps.gradient([batch()])
    assert mean == pytest.approx(loss.item() / num_tokens, rel=1e-5)


@pytest.mark.parametrize("name", CHANGES)
def test_whatever_a_model_does_after_its_head_is_in_the_loss(name):
    change, path = CHANGES[name]
    model = changed(change)
    with torch.no_grad():
        model.lm_head.weight *= 20  # logits to be changed
    assert logit_path(model) is path
    equal_plain(model)


@pytest.mark.parametrize(
    ("model_type", "path"),
    [
        ("xlstm", LogitPath.SCORED),  # caps its logits
        ("recurrent_gemma", LogitPath.SCORED),
        ("prophetnet", LogitPath.WHOLE),  # its head sees several streams
        ("mamba", LogitPath.FUSED),
    ],
)
def test_architectures_that_no_list_held(model_type, path):
    model = tiny_model(model_type)
    assert logit_path(model) is path
    equal_plain(model)


@pytest.mark.parametrize(
    ("model_type", "changes"), [("xlnet", {}), ("bert", {"is_decoder": False}), ("cpmant", {})]
)
def test_a_model_that_sees_what_it_predicts_is_refused(model_type, changes):
    with pytest.raises(UserError, match=r"sees the tokens that it is to predict: what it says"):
        scored_nats(tiny_model(model_type, **changes), batch())


def test_the_trial_leaves_modes_and_random_numbers_as_found():
    model = tiny_model("gpt2", attn_pdrop=0.5).train()
    model.transformer.h[0].eval()
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    assert logit_path(model) is LogitPath.FUSED
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_half_precision_and_a_copy_are_tried_by_themselves():
    model = changed(lambda logits: 30 * torch.tanh(logits / 30)).bfloat16()
    assert logit_path(model) is LogitPath.SCORED
    assert logit_path(copy.deepcopy(model)) is LogitPath.SCORED
    assert logit_path(tiny_model("llama").bfloat16()) is LogitPath.FUSED


def test_weights_that_are_no_numbers_say_nothing_of_the_model():
    model = tiny_model("llama")
    norm = model.model.norm.weight
    norm.data.fill_(torch.nan)
    assert logit_path(model) is LogitPath.WHOLE
    norm.data.fill_(1)
    assert logit_path(model) is LogitPath.FUSED
