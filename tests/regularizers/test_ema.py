import pytest
import torch
from training_runs import equal, train, weights
from transformers import AutoModelForCausalLM

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.regularizers.ema import EMA, ema_decay
from heldout.regularizers.swa import SWA
from heldout.training.steps import Steps


@pytest.fixture
def model_of(tiny_model_dir):
    return lambda dtype=torch.float32: AutoModelForCausalLM.from_pretrained(
        tiny_model_dir, dtype=dtype
    )


def test_the_average_is_the_recursion_and_training_is_untouched(model_of):
    plain = train(model_of(), [])[1]
    model = model_of()
    average = {name: value.double() for name, value in weights(model).items()}
    steps, found = train(model, [EMA(decay=0.3)])
    assert all(equal(a, b) for a, b in zip(plain, found, strict=True))
    for t, now in enumerate(found):
        d = min(0.3, (1 + t) / (10 + t))
        average = {name: d * average[name] + (1 - d) * now[name].double() for name in average}
    with steps.evaluation_weights():
        for name, value in weights(model).items():
            torch.testing.assert_close(value.double(), average[name], atol=1e-6, rtol=1e-5)
            assert not torch.equal(value, found[-1][name])
    assert equal(weights(model), found[-1])


def test_averages_are_float32_under_bfloat16_weights(model_of):
    model = model_of(torch.bfloat16)
    regularizer = EMA(decay=0.999)
    steps = Steps(model, [regularizer])
    optimizer = torch.optim.SGD(steps.parameter_groups(0.1))
    start = steps.state_dict()["EMA"]["model.norm.weight"].clone()
    assert start.dtype == torch.float32
    with torch.no_grad():
        model.model.norm.weight.add_(1.0)
    steps.step = 100_000  # the decay is at its limit, and bfloat16 would round the change away
    steps.done(optimizer)
    moved = steps.state_dict()["EMA"]["model.norm.weight"]
    torch.testing.assert_close(moved, start + 0.001)
    with steps.evaluation_weights():
        assert model.model.norm.weight.dtype == torch.bfloat16


def test_decay_rises_to_its_value():
    assert [ema_decay(0.5, t) for t in (0, 2, 8, 100)] == [0.1, 0.25, 0.5, 0.5]


def test_with_a_horizon_it_is_the_mean_so_far_and_then_looks_back_so_many_epochs(model_of):
    model = model_of()
    recipe = Recipe().replace(train={"max_epochs": 5.0})  # of 2 steps each
    regularizer = EMA(horizon=1.5)
    steps, found = train(model, [regularizer], num_steps=10, recipe=recipe)
    average = found[0]
    for t, now in enumerate(found[1:], 1):
        share = max(1 / (t + 1), 1 / 3)
        average = {n: average[n].double() * (1 - share) + share * now[n].double() for n in average}
    with steps.evaluation_weights():
        for name, value in weights(model).items():
            torch.testing.assert_close(value.double(), average[name], atol=1e-6, rtol=1e-5)


def test_a_horizon_needs_to_know_epochs(model_of):
    with pytest.raises(UserError, match="counts in epochs"):
        train(model_of(), [EMA(horizon=1.0)])
    recipe = Recipe()
    with pytest.raises(UserError, match="total_steps"):
        train(model_of(), [EMA(horizon=1.0)], total=0, recipe=recipe)
    with pytest.raises(UserError, match="horizon"):
        EMA(horizon=-1.0)


def test_measured_before_training_it_is_the_model_itself(model_of):
    model = model_of()
    before = weights(model)
    with EMA().evaluation_weights(model):
        assert equal(weights(model), before)


def test_bad_values(model_of):
    with pytest.raises(UserError, match=r"EMA\(decay=...\) must be at least 0 and under 1, got 1"):
        EMA(decay=1.0)
    with pytest.raises(UserError, match=r"EMA and SWA do not go together"):
        Steps(model_of(), [EMA(), SWA()])
