import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.regularizers.child_tuning import ChildTuning, child_of, mask_gradients
from heldout.training.steps import Steps


@pytest.fixture
def model(tiny_model_dir):
    return AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)


def batch(step):
    ids = (torch.arange(20)[None] * (step + 1)) % 390 + 3
    return {"input_ids": ids, "labels": ids}


def trained(model, regularizers, first=0, last=5, state=None, optimizer_state=None, **plan):
    """AdamW with momentum and much weight decay; returns the weights after each step."""
    steps = Steps(model, regularizers, **plan)
    steps.step = first
    if state:
        steps.load_state_dict(state)
    optimizer = torch.optim.AdamW(steps.parameter_groups(1e-2, weight_decay=0.5))
    if optimizer_state:
        optimizer.load_state_dict(optimizer_state)
    history = []
    for step in range(first, last):
        steps.gradient([batch(step)])
        optimizer.step()
        steps.done(optimizer)
        optimizer.zero_grad()
        history.append({n: p.detach().clone() for n, p in model.named_parameters()})
    return history, steps.state_dict(), optimizer.state_dict()


def test_only_the_child_of_the_task_moves_under_momentum_and_decay(model):
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    fisher = {n: torch.zeros_like(p) for n, p in start.items()}
    for step in range(2):
        model(**batch(step)).loss.backward()
        for name, parameter in model.named_parameters():
            fisher[name] += parameter.grad**2
        model.zero_grad()
    everything = torch.cat([scores.flatten() for scores in fisher.values()])
    num = int(0.2 * len(everything))
    threshold = everything.sort(descending=True).values[num]
    history, _, _ = trained(model, [ChildTuning(share=0.2, mode="task", fisher_steps=2)])
    for step in range(2):
        assert all(torch.equal(start[n], value) for n, value in history[step].items())
    num_moved = 0
    for name, value in history[-1].items():
        outside = fisher[name] < threshold * 0.999
        assert torch.equal(value[outside], start[name][outside]), name
        inside = fisher[name] > threshold * 1.001
        assert (value[inside] != start[name][inside]).float().mean() > 0.99 or not inside.any()
        num_moved += int((value != start[name]).sum())
    assert num_moved == pytest.approx(num, rel=0.01)


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        ({}, 8),
        ({"total_steps": 200}, 8),
        ({"total_steps": 30}, 3),
        ({"total_steps": 6}, 1),
        # A search of the learning rate trains for 100 steps at most, as asked for one of the 20
        # epochs: 40 steps, then 5.
        ({"total_steps": 800, "recipe": Recipe()}, 8),
        ({"total_steps": 60, "recipe": Recipe()}, 6),
        ({"total_steps": 800, "recipe": Recipe().replace(search={"epochs": 1})}, 4),
        ({"total_steps": 100, "recipe": Recipe().replace(search={"epochs": 1})}, 1),
        ({"total_steps": 2000, "recipe": Recipe().replace(search={"max_steps": 20})}, 2),
    ],
)
def test_measuring_takes_at_most_a_tenth_of_the_shortest_training(plan, expected, model):
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    regularizers = [ChildTuning(mode="task")]
    history, _, _ = trained(model, regularizers, last=expected + 1, **plan)
    for step, weights in enumerate(history):
        moved = any(not torch.equal(start[name], value) for name, value in weights.items())
        assert moved == (step >= expected), step


@pytest.mark.parametrize("cut", [1, 3])
def test_a_resumed_run_has_the_same_child(model, cut):
    """Cut while the information is gathered, and after the child was chosen."""

    def make():
        return [ChildTuning(share=0.2, mode="task", fisher_steps=2)]

    expected = trained(copy.deepcopy(model), make())[0][-1]
    first = copy.deepcopy(model)
    _, state, optimizer_state = trained(first, make(), last=cut)
    assert set(state["ChildTuning"]) == {"fisher" if cut == 1 else "child"}
    again, _, _ = trained(first, make(), cut, 5, state, optimizer_state)
    assert all(torch.equal(value, again[-1][name]) for name, value in expected.items())


def test_the_child_is_the_top_share_of_all_tensors_together():
    torch.manual_seed(0)
    fisher = {"a": torch.rand(30, 7) ** 8, "b": 1e-20 * torch.rand(50), "c": torch.zeros(40)}
    for share in (0.01, 0.3, 0.7, 0.8, 1.0):
        child = child_of(fisher, share)
        ranked = sorted(torch.cat([f.flatten() for f in fisher.values()]).tolist(), reverse=True)
        num = min(int(share * 300), 260)  # those without information stay outside
        chosen = torch.cat([f[child[name]] for name, f in fisher.items()])
        assert sorted(chosen.tolist(), reverse=True) == ranked[:num]


def test_free_keeps_the_mean_of_the_gradient():
    parameter = nn.Parameter(torch.zeros(300, 300))
    parameter.grad = torch.full_like(parameter, 6.0)
    mask_gradients({"weight": parameter}, 0.3, seed=0, step=0)
    assert set(parameter.grad.unique().tolist()) == {0.0, 20.0}
    assert (parameter.grad != 0).float().mean() == pytest.approx(0.3, abs=0.01)


def test_a_weight_has_its_own_mask_whatever_else_is_trained():
    parameters = {name: nn.Parameter(torch.zeros(30, 30)) for name in "abc"}

    def mask_of_c(names):
        for parameter in parameters.values():
            parameter.grad = torch.ones_like(parameter)
        mask_gradients({name: parameters[name] for name in names}, 0.3, seed=0, step=0)
        return parameters["c"].grad

    assert torch.equal(mask_of_c("abc"), mask_of_c("c"))


def test_free_masks_follow_from_seed_and_step_and_decay_reaches_all(model):
    start = {n: p.detach().clone() for n, p in model.named_parameters()}

    def gradients(seed, step):
        steps = Steps(model, [ChildTuning(seed=seed)])
        steps.step = step
        steps.gradient([batch(0)])
        found = model.model.layers[0].mlp.up_proj.weight.grad != 0
        model.zero_grad()
        return found

    first = gradients(0, 1)
    torch.manual_seed(5)
    assert torch.equal(gradients(0, 1), first)
    for other in (gradients(1, 1), gradients(0, 2)):
        assert (first & other).float().mean() == pytest.approx(0.09, abs=0.03)
    history, _, _ = trained(model, [ChildTuning(share=0.1)], last=1)
    name = "model.layers.0.mlp.up_proj.weight"
    assert (history[0][name] != start[name]).all()


def test_the_whole_network_is_no_child(model):
    plain = trained(copy.deepcopy(model), [])[0][-1]
    for mode in ("free", "task"):
        all_of_it = trained(copy.deepcopy(model), [ChildTuning(share=1, mode=mode)])[0][-1]
        assert all(torch.equal(value, all_of_it[name]) for name, value in plain.items())


def test_adapters_in_task_mode_and_bad_values_are_refused(model):
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    ChildTuning().check(adapted, None)
    with pytest.raises(UserError, match="would freeze every LoRA A"):
        ChildTuning(mode="task").check(adapted, None)
    with pytest.raises(UserError, match=r"ChildTuning\(share=...\) must be above 0 and at most 1"):
        ChildTuning(share=0)
    with pytest.raises(UserError, match=r"ChildTuning\(mode=...\) must be free or task, got 'D'"):
        ChildTuning(mode="D")
    with pytest.raises(UserError, match=r"ChildTuning\(fisher_steps=...\) must be 1 or more"):
        ChildTuning(fisher_steps=0)
