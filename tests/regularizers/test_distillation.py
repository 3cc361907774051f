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
from peft import LoraConfig, get_peft_model

from heldout.core.errors import UserError
from heldout.core.recipe import recipe_from_table
from heldout.jobs.kit.prepare import regularizers_of
from heldout.regularizers.distillation import (
    Distillation,
    distillation_nats,
    mixture_log_probs,
    teacher_log_probs,
)
from heldout.regularizers.dropout import Dropout
from heldout.regularizers.label_smoothing import LabelSmoothing
from heldout.training.steps import Steps


@pytest.fixture(scope="module")
def teachers(tiny_model_dir, tiny_tokenizer, tmp_path_factory):
    """Three models of the same kind with other weights, in folders."""
    found = []
    for seed in range(3):
        model = model64(tiny_model_dir).float()
        torch.manual_seed(100 + seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        folder = tmp_path_factory.mktemp("teacher")
        model.save_pretrained(folder)
        tiny_tokenizer.save_pretrained(folder)
        found.append((str(folder), model.double().eval()))
    return found


@pytest.fixture
def model(tiny_model_dir):
    return model64(tiny_model_dir)


def names(teachers):
    return [folder for folder, _ in teachers]


def slow_twin(model, teachers, batches, weight, temperature):
    """The formula over whole distributions, the mean taken over probabilities."""
    total = 0.0
    for batch in batches:
        log_p, targets = log_probs(model, batch)
        with torch.no_grad():
            flat = [log_probs(teacher, batch)[0] / temperature for _, teacher in teachers]
            mean = torch.stack([one.softmax(-1) for one in flat]).mean(0)
        divergence = kl(mean.log(), (log_p / temperature).log_softmax(-1))
        total = total + (1 - weight) * nll(log_p, targets) + weight * temperature**2 * divergence
    return total / num_scored(batches)


@pytest.mark.parametrize(("weight", "temperature"), [(0.6, 1.0), (1.0, 1.0), (0.6, 2.5)])
@pytest.mark.parametrize("adapted", [False, True])
def test_loss_and_gradient_are_those_of_the_formula(adapted, weight, temperature, model, teachers):
    if adapted:
        model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    batches = window((9, 5), (14,))
    given = Distillation(names(teachers), weight=weight, temperature=temperature)
    found = ours(model, [given], batches)
    assert_same(found, theirs(model, slow_twin(model, teachers, batches, weight, temperature)))


def test_a_loop_of_ones_own_computes_the_same(model, teachers):
    (batch,) = window((9, 5))
    modules = [module for _, module in teachers]
    found = ours(model, [Distillation(names(teachers), weight=0.6, temperature=2.0)], [batch])
    teacher_log_NV = teacher_log_probs(modules, batch, temperature=2.0)
    keep = batch["labels"][:, 1:] != -100
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    logits_NV = model(**inputs).logits[:, :-1][keep]
    targets_N = batch["labels"][:, 1:][keep]
    nats_N = distillation_nats(logits_NV, teacher_log_NV, targets_N, weight=0.6, temperature=2.0)
    # teacher_log_probs gives float32, as losses are added up in it
    assert_same(found, theirs(model, nats_N.mean()), rtol=1e-4, atol=1e-7)


def test_equal_teachers_count_as_one_and_the_mean_is_a_distribution(model, teachers):
    batches = window((9, 5))
    (folder, _), *_ = teachers
    one = ours(model, [Distillation([folder])], batches)
    assert_same(ours(model, [Distillation([folder] * 3)], batches), one)
    logits = [torch.randn(6, 11, dtype=torch.float64) for _ in range(4)]
    log_NV = mixture_log_probs(logits)
    torch.testing.assert_close(log_NV.exp().sum(-1), torch.ones(6, dtype=torch.float64))
    mean_NV = sum(each.softmax(-1) for each in logits) / 4
    torch.testing.assert_close(log_NV, mean_NV.log())


def test_a_model_that_agrees_with_its_teacher_has_nothing_to_learn(tiny_model_dir, teachers):
    folder, module = teachers[0]
    student = copy.deepcopy(module).train()
    loss, found = ours(student, [Distillation([folder], weight=1.0)], window((9, 5)))
    assert abs(loss) < 1e-6
    assert max(float(gradient.abs().max()) for gradient in found.values()) < 1e-6
    away = ours(student, [Distillation([teachers[1][0]], weight=1.0)], window((9, 5)))
    assert away[0] > 0.01


def test_weight_zero_is_absent_and_terms_of_others_stay_whole(model, teachers):
    batches = window((9, 5), (3,))
    plain = ours(model, [], batches)
    assert_same(ours(model, [Distillation(names(teachers), weight=0.0)], batches), plain)
    smoothed = ours(model, [LabelSmoothing(0.1)], batches)
    only = ours(model, [Distillation(names(teachers), weight=0.4)], batches)
    both = ours(model, [LabelSmoothing(0.1), Distillation(names(teachers), weight=0.4)], batches)
    assert both[0] == pytest.approx(only[0] + smoothed[0] - plain[0], rel=1e-5)


def test_teachers_predict_without_dropout_and_learn_nothing(model, teachers):
    steps = Steps(model, [Dropout(hidden=0.5), Distillation(names(teachers), weight=1.0)])
    (given,) = (each for each in steps.regularizers if isinstance(each, Distillation))
    before = [copy.deepcopy(module.state_dict()) for module in given._loaded]
    assert [module.training for module in given._loaded] == [False] * 3
    with steps.attached():
        steps.gradient(window((9, 5)))
    gradients(model)
    for module, state in zip(given._loaded, before, strict=True):
        assert all(parameter.grad is None for parameter in module.parameters())
        assert all(torch.equal(state[key], value) for key, value in module.state_dict().items())
        assert not any(parameter.requires_grad for parameter in module.parameters())


def test_teachers_come_from_a_recipe_and_go_back_into_one(teachers):
    table = {"regularizers": {"distillation": {"teachers": names(teachers), "weight": 0.3}}}
    recipe = recipe_from_table(table)
    (built,) = regularizers_of(recipe)
    assert built == Distillation(tuple(names(teachers)), weight=0.3)
    assert built.cost.forwards == built.cost.base == 3
    assert str(names(teachers)[0]) in recipe.to_toml()


def test_teachers_of_another_vocabulary_or_tokenizer_are_refused(
    model, teachers, tiny_tokenizer, tmp_path
):
    folder, module = teachers[0]
    larger = copy.deepcopy(module).float()
    larger.resize_token_embeddings(408)
    larger.save_pretrained(tmp_path / "larger")
    tiny_tokenizer.save_pretrained(tmp_path / "larger")
    with pytest.raises(UserError, match="predicts 408 tokens, the model 400"):
        Steps(model, [Distillation([folder, str(tmp_path / "larger")])])
    other = copy.deepcopy(tiny_tokenizer)
    other.add_tokens(["<new>"])
    Distillation([folder]).check_tokenizer(tiny_tokenizer)
    with pytest.raises(UserError, match="has another tokenizer than the model"):
        Distillation([folder]).check_tokenizer(other)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"weight": 1.5}, r"Distillation\(weight=...\) must be 0 to 1, got 1.5."),
        ({"temperature": 0}, r"Distillation\(temperature=...\) must be above 0, got 0."),
        ({"teachers": [3]}, "must be a list of model folders"),
    ],
)
def test_bad_values(values, expected):
    with pytest.raises(UserError, match=expected):
        Distillation(**values)


def test_no_teacher_and_a_missing_one_are_refused(model, tmp_path):
    with pytest.raises(UserError, match="names no model to learn from"):
        Steps(model, [Distillation()])
    with pytest.raises(UserError, match="no such folder"):
        Steps(model, [Distillation(str(tmp_path / "nowhere"))])
