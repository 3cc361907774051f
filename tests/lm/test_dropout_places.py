"""Dropout of a model's own is switched off wherever it is; settings that do nothing are told."""

import pytest
import torch
from dropping import call
from tiny_architectures import tiny_model

from heldout.core.errors import UserError
from heldout.lm.dropout_places import UNREAD, turn_off_dropout, unread_settings

SHARES = {
    "gpt2": {"attn_pdrop": 0.4, "resid_pdrop": 0.4},
    "opt": {"dropout": 0.4, "attention_dropout": 0.4},
    "persimmon": {"attention_dropout": 0.4, "hidden_dropout": 0.4},
    "xglm": {"dropout": 0.4, "activation_dropout": 0.4},
    "bloom": {"hidden_dropout": 0.4, "attention_dropout": 0.4},
    "llama": {"attention_dropout": 0.4},
    "xlm": {"dropout": 0.4, "attention_dropout": 0.4},
}


@pytest.mark.parametrize("model_type", SHARES)
def test_nothing_is_dropped_in_training_any_more(model_type):
    model = tiny_model(model_type, **SHARES[model_type]).train()
    assert not torch.equal(call(model), call(model))
    turn_off_dropout(model)
    assert model.training
    assert torch.equal(call(model), call(model))


def test_what_cannot_be_switched_off_is_told():
    model = tiny_model("llama")
    model.model.norm.register_forward_hook(lambda m, _, x: x + torch.rand_like(x) * m.training)
    with pytest.raises(UserError, match=r"drops something in training that cannot be switched off"):
        turn_off_dropout(model)


@pytest.mark.parametrize(
    ("model_type", "name"), [(kind, name) for kind, names in UNREAD.items() for name in names]
)
def test_settings_that_do_nothing_are_told(model_type, name):
    assert unread_settings(tiny_model(model_type)) == {}
    model = tiny_model(model_type, **{name: 0.4}).train()
    assert torch.equal(call(model), call(model)), "it is read after all"
    assert unread_settings(model) == {name: 0.4}
