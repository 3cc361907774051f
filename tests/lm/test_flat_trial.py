"""Rows laid one behind the other have the nats and gradients that padding gives, or stay padded."""

import pytest
import torch
import transformers
from packaging.version import Version
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from tiny_architectures import tiny_model
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from heldout.core.errors import UserError
from heldout.lm import flat_trial
from heldout.lm.flat_trial import EXACT, NOT_EXACT, VIRTUAL_TOKENS, padding, reason_for_padding
from heldout.lm.layout import current_layout
from heldout.lm.scored_loss import scored_loss, scored_nats

LENGTHS = (40, 17, 33, 33, 2, 16, 15)  # beyond the windows and chunks of 16
TURNS_FLAT = ("gptj",)  # in transformers 5.24
IS_FLAT = Version(transformers.__version__) >= Version("5.24")
LAID_FLAT = (
    *("llama", "mistral", "gemma3_text", "llama4_text", "gpt2", "mixtral", "deepseek_v3"),
    *(TURNS_FLAT if IS_FLAT else ()),
)
KEPT_PADDED = (
    *("qwen3_next", "falcon_h1", "lfm2", "bloom", "doge"),
    *(() if IS_FLAT else TURNS_FLAT),
)


def padded_batch(lengths=LENGTHS):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 99, (len(lengths), max(lengths)), generator=generator)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.where(mask == 1, -100)}


def nats_and_gradients(model, batch, mode):
    with padding(mode):
        model.zero_grad()
        loss, _ = scored_loss(model, batch)
        loss.backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        return scored_nats(model, batch)[0], gradients


def assert_alike(model, batch):
    model.eval()
    padded_N, expected = nats_and_gradients(model, batch, "on")
    flat_N, found = nats_and_gradients(model, batch, "off")
    assert current_layout().flat
    torch.testing.assert_close(flat_N, padded_N, rtol=1e-5, atol=2e-5)
    assert found.keys() == expected.keys()
    largest = max(each.norm() for each in expected.values())
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-3 * gradient.norm() + 1e-6 * largest, name


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", LAID_FLAT)
def test_rows_longer_than_windows_and_chunks_have_the_nats_of_padded_ones(name, attention):
    model = tiny_model(name)
    model.set_attn_implementation(attention)
    assert reason_for_padding(model) == EXACT
    assert_alike(model, padded_batch())


@pytest.mark.parametrize("name", KEPT_PADDED)
def test_what_is_not_exact_stays_padded_and_is_refused_without_padding(name):
    model, batch = tiny_model(name), padded_batch()
    assert reason_for_padding(model) == NOT_EXACT
    scored_nats(model, batch)
    assert not current_layout().flat
    with padding("off"), pytest.raises(UserError, match="is not exact for"):
        scored_nats(model, batch)


def test_a_change_in_one_row_leaves_the_nats_of_the_others():
    model, batch = tiny_model("llama").eval(), padded_batch()
    before_N, rows_N = scored_nats(model, batch)
    batch["input_ids"][2] = batch["input_ids"][2].roll(1)
    after_N, _ = scored_nats(model, batch)
    assert torch.equal(before_N[rows_N != 2], after_N[rows_N != 2])
    assert not torch.equal(before_N[rows_N == 2], after_N[rows_N == 2])


@pytest.mark.parametrize("reentrant", [False, True])
def test_layers_computed_again_in_the_backward_see_the_rows(reentrant):
    model, batch = tiny_model("gemma3_text"), padded_batch()
    with padding("off"):
        _, expected = nats_and_gradients(model, batch, "off")
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model.enable_input_require_grads()
        model.train().zero_grad()
        scored_loss(model, batch)[0].backward()
    for name, gradient in expected.items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient)


def test_an_adapter_is_tried_with_its_model_and_virtual_tokens_keep_padding():
    model = get_peft_model(tiny_model("llama"), LoraConfig(r=2, target_modules="all-linear"))
    assert_alike(model, padded_batch())
    model = get_peft_model(
        tiny_model("llama"), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    )
    assert reason_for_padding(model) == VIRTUAL_TOKENS


def test_more_tokens_than_the_table_of_positions_has_are_tried_before_they_lie_flat(monkeypatch):
    model, batch = tiny_model("gpt2"), padded_batch((40, 39, 38, 37))
    assert batch["attention_mask"].sum() > model.config.n_positions
    assert_alike(model, batch)
    monkeypatch.setattr(flat_trial, "_reaches", lambda model, limit: False)
    flat_trial._beyond.clear()
    scored_nats(model, batch)
    assert not current_layout().flat
    scored_nats(model, padded_batch((40, 39)))
    assert current_layout().flat


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_model_and_another_attention_keep_padding():
    assert reason_for_padding(torch.compile(tiny_model("llama"))) == flat_trial.COMPILED
    model = tiny_model("llama")
    model.config._attn_implementation = "flex_attention"
    assert reason_for_padding(model) == flat_trial.OTHER_ATTENTION


def test_positions_of_a_user_and_rows_without_padding_are_left_as_they_are():
    model, batch = tiny_model("llama"), padded_batch()
    batch["position_ids"] = torch.arange(40).expand(len(LENGTHS), 40)
    scored_nats(model, batch)
    assert not current_layout().flat
    scored_nats(model, padded_batch((9, 9)))
    assert not current_layout().flat


def test_the_model_and_its_attention_are_left_as_they_were():
    model = tiny_model("llama")
    model.set_attn_implementation("sdpa")
    before = model(**padded_batch()).logits
    modes = [module.training for module in model.modules()]
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    scored_nats(model, padded_batch())
    assert torch.rand(1) == expected
    assert model.config._attn_implementation == "sdpa"
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(model(**padded_batch()).logits, before)
    assert ALL_ATTENTION_FUNCTIONS["sdpa"].__name__ == "sdpa_attention_forward"
