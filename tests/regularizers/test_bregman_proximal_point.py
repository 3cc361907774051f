import copy

import pytest
import torch
from full_logits import (
    assert_same,
    gradients,
    kl,
    log_probs,
    model64,
    nll,
    num_scored,
    ours,
    theirs,
    window,
)
from training_runs import equal, train
from transformers import AutoModelForCausalLM

from heldout.core.errors import UserError
from heldout.regularizers.bregman_proximal_point import BregmanProximalPoint
from heldout.regularizers.dropout import Dropout
from heldout.training.steps import Steps


def float_valued(folder):
    """In float64, but with values that the average, in float32, can hold."""
    model = model64(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.float())
    return model


def slow_twin(model, old, batches, weight):
    total = 0.0
    for batch in batches:
        log_p, targets = log_probs(model, batch)
        with torch.no_grad():
            log_old = log_probs(old, batch)[0]
        divergence = kl(log_p, log_old) + kl(log_old, log_p)
        total = total + nll(log_p, targets) + weight * divergence
    return total / num_scored(batches)


def test_three_steps_are_those_of_the_paper(tiny_model_dir):
    """Plain descent on the loss of the paper, with the average as a second model."""
    model = float_valued(tiny_model_dir)
    twin, old = copy.deepcopy(model), copy.deepcopy(model)
    regularizer = BregmanProximalPoint(weight=2.0, momentum=0.8)
    steps = Steps(model, [regularizer])
    optimizer = torch.optim.SGD(steps.parameter_groups(0.3))
    batches = window((9, 5), (14,))
    for step in range(3):
        found = steps.gradient(batches), {n: p.grad.clone() for n, p in model.named_parameters()}
        expected = theirs(twin, slow_twin(twin, old, batches, 2.0))
        assert_same(found, expected, rtol=1e-4, atol=1e-6)
        optimizer.step()
        steps.done(optimizer)
        gradients(model)
        with torch.no_grad():
            for name, parameter in twin.named_parameters():
                parameter -= 0.3 * expected[1][name]
                old.get_parameter(name).mul_(0.8).add_(0.2 * parameter)
        if step == 0:
            continue
        plain = sum(nll(*log_probs(twin, batch)) for batch in batches) / num_scored(batches)
        assert slow_twin(twin, old, batches, 2.0) > plain + 0.001


def test_at_the_start_nothing_is_added_whatever_the_dropout(tiny_model_dir):
    model, batches = float_valued(tiny_model_dir), window((9, 5))
    dropout = Dropout(hidden=0.4)
    without = ours(model, [dropout], batches)
    assert_same(ours(model, [dropout, BregmanProximalPoint()], batches), without)
    assert_same(ours(model, [dropout, BregmanProximalPoint(weight=0.0)], batches), without)


def test_the_average_is_float32_and_survives_a_resume(tiny_model_dir):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.bfloat16)
    regularizer = BregmanProximalPoint(momentum=0.9)
    steps, _ = train(model, [regularizer])
    state = steps.state_dict()["BregmanProximalPoint"]
    assert all(value.dtype == torch.float32 for value in state.values())
    again = BregmanProximalPoint(momentum=0.9)
    again.prepare(model)
    assert not equal(again.state_dict(), state)
    again.load_state_dict(state)
    assert equal(again.state_dict(), state)


def test_bad_values():
    with pytest.raises(UserError, match=r"Point\(weight=...\) must be 0 or more, got -1."):
        BregmanProximalPoint(weight=-1)
    with pytest.raises(UserError, match=r"Point\(momentum=...\) must be at least 0 and under 1"):
        BregmanProximalPoint(momentum=1.0)
