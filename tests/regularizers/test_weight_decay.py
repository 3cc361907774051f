import pytest
import torch
from transformers import AutoModelForCausalLM

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.regularizers.weight_decay import WeightDecay
from heldout.training.steps import Steps


@pytest.fixture
def model(tiny_model_dir):
    return AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)


def decayed(model, **parameters):
    """Names of the parameters that decay."""
    names = {id(p): name for name, p in model.named_parameters()}
    groups = Steps(model, [WeightDecay(rate=0.3, **parameters)]).parameter_groups(1e-2)
    assert {group["weight_decay"] for group in groups} <= {0.0, 0.3}
    return {names[id(p)] for g in groups if g["weight_decay"] for p in g["params"]}


def test_what_it_reaches(model):
    every = {name for name, _ in model.named_parameters()}
    norms = {name for name in every if "norm" in name}
    embeddings = {name for name in every if "embed" in name}
    assert decayed(model) == every - norms
    assert decayed(model, vectors=True) == every
    assert decayed(model, embeddings=False) == every - norms - embeddings


def test_masks_by_name(model):
    every = {name for name, _ in model.named_parameters()}
    mlp = {name for name in every if ".mlp." in name}
    assert decayed(model, only="mlp") == mlp
    assert decayed(model, only="mlp", never=r"layers\.0\.") == {n for n in mlp if ".1." in n}
    assert decayed(model, never="mlp|embed") == {n for n in every if "_proj" in n} - mlp


def test_a_step_without_gradient_multiplies(model):
    before = model.model.layers[0].mlp.up_proj.weight.detach().clone()
    optimizer = torch.optim.AdamW(Steps(model, [WeightDecay(rate=0.3)]).parameter_groups(1e-2))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    after = model.model.layers[0].mlp.up_proj.weight
    torch.testing.assert_close(after.detach(), before * (1 - 0.3 * 1e-2))


def test_bad_values(model):
    with pytest.raises(UserError, match=r"WeightDecay\(rate=...\) must be 0 or more, got -1"):
        WeightDecay(rate=-1.0)
    with pytest.raises(UserError, match=r"only='\['\) is not a regular expression"):
        WeightDecay(only="[")
    with pytest.raises(UserError, match=r"never='mpl'\) matches none of the 20 trained parameters"):
        WeightDecay(never="mpl").check(model, None)
    with pytest.raises(UserError, match="reaches no trained parameter"):
        WeightDecay(only="norm").check(model, None)
    with pytest.raises(UserError, match=r"times the learning rate 0.1 must be under 1"):
        WeightDecay(rate=10.0).check(model, Recipe().replace(train={"learning_rate": 0.1}))
