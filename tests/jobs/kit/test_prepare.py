"""Every kind of adapter of a recipe starts at its base, trains, resumes, and is loaded again."""

import pytest
import torch
from transformers import AutoTokenizer

from heldout.core.adapter_kinds import ADAPTERS
from heldout.core.errors import UserError
from heldout.core.recipe import Recipe, recipe_from_table
from heldout.core.regularizer import Continue
from heldout.core.row import Row
from heldout.jobs.kit.checkpoints import load_weights, save_model
from heldout.jobs.kit.prepare import prepare
from heldout.lm.load import load_model
from heldout.regularizers.kl_to_base import KLToBase
from heldout.training.loop import Schedule, Training, train
from heldout.training.windows import WindowDataset

IDS = torch.arange(3, 27).view(2, 12)
STEPS = 4


@torch.no_grad()
def logits_of(model):
    return model.eval()(IDS).logits


def recipe_of(kind):
    return Recipe().replace(model={"adapter": kind, "lora_rank": 2}, train={"warmup_steps": 1})


def fresh(model_dir, kind):
    return prepare(load_model(str(model_dir), device="cpu"), recipe_of(kind))


def trained(model_dir, kind, folder, *, stop_after=None, resume=False):
    model = fresh(model_dir, kind)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    rows = [Row(i, ({"role": "text", "content": f"Row {i} of it. "},), "g") for i in range(8)]
    windows = WindowDataset(rows, tokenizer, 32)
    asked = []

    def should_stop():
        asked.append(1)
        return len(asked) == stop_after

    train(
        Training(
            model, windows, recipe_of(kind), [KLToBase()], 1e-2, Schedule(1, STEPS, 1.0), folder
        ),
        on_evaluate=lambda *figures: (Continue(), {}),
        should_stop=should_stop,
        resume=resume,
    )
    return model, tokenizer


def test_a_rank_that_no_layer_has_is_refused(tiny_model_dir):
    model = load_model(str(tiny_model_dir), device="cpu")
    recipe = Recipe().replace(model={"lora_rank": 100_000_000})
    with pytest.raises(UserError, match=r"model\.lora_rank must be at most 32, .* got 100000000"):
        prepare(model, recipe)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_each_kind_begins_at_the_base_and_comes_back_as_it_was_saved(
    kind, tiny_model_dir, tmp_path
):
    base = logits_of(load_model(str(tiny_model_dir), device="cpu").model)
    torch.testing.assert_close(logits_of(fresh(tiny_model_dir, kind)), base, atol=2e-6, rtol=1e-5)
    model, tokenizer = trained(tiny_model_dir, kind, tmp_path / "run")
    expected = logits_of(model)
    assert (expected - base).abs().max() > 0.01
    save_model(model, tokenizer, tmp_path / "best")
    again = load_model(str(tmp_path / "best"), device="cpu", merge_adapter=False)
    torch.testing.assert_close(logits_of(again.model), expected, atol=2e-6, rtol=1e-5)
    merged = load_model(str(tmp_path / "best"), device="cpu")
    torch.testing.assert_close(logits_of(merged.model), expected, atol=1e-5, rtol=1e-4)
    put_back = fresh(tiny_model_dir, kind)
    load_weights(put_back, tmp_path / "best")
    torch.testing.assert_close(logits_of(put_back), expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["pissa", "olora"])
def test_a_resumed_training_ends_with_the_same_weights(kind, tiny_model_dir, tmp_path):
    whole, _ = trained(tiny_model_dir, kind, tmp_path / "a")
    trained(tiny_model_dir, kind, tmp_path / "b", stop_after=2)
    resumed, _ = trained(tiny_model_dir, kind, tmp_path / "b", resume=True)
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, resumed.get_parameter(name)), name


def test_kinds_that_do_not_fit_are_refused(tiny_model_dir, tmp_path):
    loaded = load_model(str(tiny_model_dir), device="cpu")
    full = recipe_of("dora").replace(model={"method": "full"})
    with pytest.raises(UserError, match=r"model\.adapter=dora needs an adapter, and all wei"):
        prepare(loaded, full)
    save_model(fresh(tiny_model_dir, "lora"), loaded.tokenizer, tmp_path)
    own = load_model(str(tmp_path), device="cpu", merge_adapter=False)
    with pytest.raises(UserError, match=r"model\.adapter=pissa is for a new adapter"):
        prepare(own, recipe_of("pissa"))
    with pytest.raises(UserError, match=r"model\.adapter must be one of .*, got 'vera'"):
        recipe_from_table({"model": {"adapter": "vera"}})
