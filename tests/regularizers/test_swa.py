import copy

import pytest
import torch
from training_runs import equal, train, weights
from transformers import AutoModelForCausalLM

from heldout.core.errors import UserError
from heldout.regularizers.swa import SWA
from heldout.training.steps import Steps


@pytest.fixture
def model(tiny_model_dir):
    return AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)


def test_the_mean_of_the_last_steps_and_training_is_untouched(model):
    plain = train(copy.deepcopy(model), [], num_steps=6)[1]
    steps, found = train(model, [SWA(start=0.5)], num_steps=6)
    assert all(equal(a, b) for a, b in zip(plain, found, strict=True))
    with steps.evaluation_weights():
        for name, value in weights(model).items():
            mean = sum(now[name].double() for now in found[3:]) / 3
            torch.testing.assert_close(value.double(), mean, atol=1e-6, rtol=1e-5)
    assert equal(weights(model), found[-1])


@pytest.mark.parametrize("cut", [2, 4])  # before and after the mean starts
def test_the_mean_comes_back_at_a_resume(model, cut):
    first, _ = train(model, [SWA(start=0.5)], num_steps=cut, total=6)
    state = first.state_dict()
    assert bool(state["SWA"]["averages"]) == (cut > 3)
    resumed = SWA(start=0.5)
    resumed.prepare(model)
    resumed.load_state_dict(state["SWA"])
    with resumed.evaluation_weights(model):
        found = weights(model)
    with first.evaluation_weights():
        assert equal(weights(model), found)


def test_before_its_start_the_weights_themselves_are_measured(model):
    steps, found = train(model, [SWA(start=0.9)], num_steps=3)
    with steps.evaluation_weights():
        assert equal(weights(model), found[-1])


def test_bad_values(model):
    with pytest.raises(UserError, match=r"SWA\(start=...\) must be at least 0 and under 1, got 1"):
        SWA(start=1.0)
    steps = Steps(model, [SWA()])
    steps.begin(0)
    with pytest.raises(UserError, match=r"SWA\(start=0.75\) needs Steps\(total_steps=...\)"):
        steps.begin(1)
