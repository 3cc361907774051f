import pytest
from full_logits import (
    assert_same,
    cross_entropy,
    dropping,
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
from heldout.core.recipe import Recipe
from heldout.regularizers.dropout import Dropout
from heldout.regularizers.label_smoothing import LabelSmoothing
from heldout.regularizers.r_drop import RDrop
from heldout.training.steps import Steps


@pytest.fixture
def model(tiny_model_dir):
    return model64(tiny_model_dir)


def slow_twin(model, batches, weight):
    """Mean of both cross-entropies plus the mean of both divergences, from the paper."""
    total = 0.0
    for batch in batches:
        with dropping(batch, seed=3):
            log_p, targets = log_probs(model, batch)
            log_q, _ = log_probs(model, batch)
        total = total + (nll(log_p, targets) + nll(log_q, targets)) / 2
        total = total + weight * (kl(log_p, log_q) + kl(log_q, log_p)) / 2
    return total / num_scored(batches)


def test_loss_and_gradient_are_those_of_the_paper(model):
    batches = window((9, 5), (14,))
    found = ours(model, [Dropout(hidden=0.3), RDrop(weight=2.5)], batches, seed=3)
    with Dropout(hidden=0.3).attached(model.train()):
        assert_same(found, theirs(model, slow_twin(model, batches, 2.5)))


def test_a_weight_of_nothing_is_no_r_drop(model):
    batches = window((9, 5))
    without = ours(model, [Dropout(hidden=0.3)], batches)
    assert_same(ours(model, [Dropout(hidden=0.3), RDrop(weight=0.0)], batches), without, rtol=1e-12)


def test_no_dropout_anywhere_is_refused(model, tiny_model_dir):
    with pytest.raises(UserError, match=r"add Dropout\(hidden=0.1\)"):
        ours(model, [RDrop()], window((9, 5)))
    with pytest.raises(UserError, match=r"add Dropout\(hidden=0.1\)"):
        RDrop().check(model, Recipe(regularizers={"r_drop": {}}))
    # What others put in is not known before they have put it in.
    RDrop().check(model, Recipe(regularizers={"r_drop": {}, "dropout": {"hidden": 0.1}}))
    RDrop().check(model, None)


def test_dropout_that_is_still_to_rise_is_no_error(model):
    batches = window((9, 5))
    steps = Steps(model, [Dropout(hidden=0.3, schedule="rise"), RDrop()], total_steps=4)
    with steps.attached():
        first = steps.gradient(batches)
        steps.step = 2
        assert steps.gradient(batches) != first
    with pytest.raises(UserError, match=r"add Dropout\(hidden=0.1\)"):
        ours(model, [RDrop()], batches)


def test_dropout_of_a_fresh_adapter_does_nothing_yet_and_is_no_error(model):
    lora = LoraConfig(r=2, target_modules="all-linear", lora_dropout=0.2)
    adapted = get_peft_model(model, lora)
    loss, _ = ours(adapted, [RDrop()], window((9, 5)))
    batches = window((9, 5))
    expected = cross_entropy(model, batches[0]).item() / num_scored(batches)
    assert loss == pytest.approx(expected, rel=1e-6)


def test_terms_of_others_act_on_both_passes(model):
    """Smoothing is linear in the logits, so what it adds is the mean of what it adds to each."""
    batches = window((9, 5))
    amount = 0.2
    found = ours(model, [Dropout(hidden=0.3), LabelSmoothing(amount=amount), RDrop()], batches)
    alone = ours(model, [Dropout(hidden=0.3), RDrop()], batches)
    with dropping(batches[0]), Dropout(hidden=0.3).attached(model.train()):
        added = 0.0
        for _ in range(2):
            log_p, targets = log_probs(model, batches[0])
            smoothed = -amount * log_p.mean(-1).sum() - amount * nll(log_p, targets)
            added += smoothed.item() / 2 / num_scored(batches)
    assert found[0] - alone[0] == pytest.approx(added, abs=1e-6)


def test_bad_values():
    with pytest.raises(UserError, match=r"RDrop\(weight=...\) must be 0 or more, got -1."):
        RDrop(weight=-1)
