import pytest
import torch
from full_logits import (
    assert_same,
    kl,
    log_probs,
    model64,
    nll,
    num_scored,
    ours,
    packed,
    theirs,
    window,
)

from heldout.core.errors import UserError
from heldout.lm.flat_trial import reason_for_padding
from heldout.lm.logit_path import logit_path
from heldout.lm.passes import Passes, embedding_scale, joint_loss
from heldout.lm.sequences import sequence_index, sequence_noise
from heldout.lm.weights import seed_of
from heldout.regularizers.dropout import Dropout
from heldout.regularizers.smart import _STREAM, SMART, ascended_in_cube


@pytest.fixture
def model(tiny_model_dir):
    return model64(tiny_model_dir)


def slow_twin(model, batches, smart, step):
    """Projected gradient ascent on the symmetric divergence, row by row, from the paper."""
    weight = model.get_input_embeddings().weight.detach()
    epsilon = smart.epsilon * weight.square().mean().sqrt().item()
    total = 0.0
    for batch in batches:
        log_p, targets = log_probs(model, batch)
        normal = sequence_noise(batch, 32, seed_of(smart.seed, _STREAM), step, normal=True)
        offset = smart.noise * epsilon * normal.double()
        for _ in range(smart.ascents):
            offset.requires_grad_()
            log_q = log_probs(model, batch, offset)[0]
            symmetric = kl(log_p.detach(), log_q) + kl(log_q, log_p.detach())
            (gradient,) = torch.autograd.grad(symmetric, offset)
            offset = offset.detach()
            for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
                g = gradient[row, :length]
                moved = offset[row, :length] + smart.rate * epsilon * g / g.abs().max()
                offset[row, :length] = torch.clamp(moved, -epsilon, epsilon)
        log_q = log_probs(model, batch, offset)[0]
        divergence = kl(log_p, log_q) + kl(log_q, log_p)
        total = total + nll(log_p, targets) + smart.weight * divergence
    return total / num_scored(batches)


@pytest.mark.parametrize("ascents", [1, 3])
def test_loss_and_gradient_are_those_of_the_paper(ascents, model):
    batches = window((9, 5), (14,))
    smart = SMART(weight=3.0, epsilon=0.3, ascents=ascents, rate=2.0)
    found = ours(model, [smart], batches, step=4)
    assert_same(found, theirs(model, slow_twin(model, batches, smart, 4)), rtol=1e-4, atol=1e-6)
    plain, _ = ours(model, [], batches)
    assert found[0] > plain + 0.01


def test_the_perturbation_stays_in_its_ball_and_off_the_padding(model):
    """Without the projection one ascent goes a hundred times as far."""
    (batch,) = window((9, 5))
    logit_path(model)  # by trials of their own
    reason_for_padding(model)
    seen = []
    model.model.layers[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    ours(model, [SMART(epsilon=0.02, rate=100.0)], [batch])
    epsilon = 0.02 * embedding_scale(model)
    final = seen[2] - seen[0]
    assert final.abs().max() <= epsilon * (1 + 1e-6)
    assert final.abs().max() > 0.999 * epsilon
    assert final.shape[:2] == (1, 14)  # rows one behind the other, without padding


def test_it_finds_worse_moves_than_random_ones(model):
    model.train()
    (batch,) = window((30, 20))
    found = {}
    task = Passes(model, batch).task.cross_entropy().item()
    for name, rate in (("random", 1e-9), ("sought", 100.0)):
        smart = SMART(rate=rate, noise=10.0)
        smart.before_step(model, 0)
        passes = Passes(model, batch)
        compared = smart.extra_loss(passes, batch)
        found[name] = joint_loss(passes.task, [compared]).item() - task
    assert found["sought"] > 1.5 * found["random"] > 0


def test_packed_sequences_climb_like_padded_ones(model):
    """The largest gradient is sought within each sequence, not within the row."""
    (batch,) = window((9, 5))
    gradient = torch.randn(2, 9, 4)
    gradient[0] *= 50
    moved = ascended_in_cube(torch.zeros(2, 9, 4), gradient, sequence_index(batch), 0.1, 1.0)
    assert moved[1, :5].abs().max() == pytest.approx(0.1)
    together = torch.cat([gradient[0], gradient[1, :5]])[None]
    index = sequence_index(packed(batch))
    again = ascended_in_cube(torch.zeros(1, 14, 4), together, index, 0.1, 1.0)
    assert torch.equal(again[0], torch.cat([moved[0], moved[1, :5]]))


def test_dropout_alone_adds_nothing(model):
    """Same masks in all passes: a perturbation of almost nothing diverges by almost nothing."""
    batches = window((9, 5))
    dropout = Dropout(hidden=0.4)
    without = ours(model, [dropout], batches)
    assert_same(ours(model, [dropout, SMART(epsilon=1e-6)], batches), without, 1e-5, 1e-6)
    assert_same(ours(model, [dropout, SMART(weight=0.0)], batches), without)


def test_packed_training_is_padded_training(model):
    (batch,) = window((9, 5, 12))
    padded = ours(model, [SMART(weight=3.0, epsilon=0.3)], [batch])
    assert_same(
        ours(model, [SMART(weight=3.0, epsilon=0.3)], [packed(batch)]), padded, rtol=1e-4, atol=1e-5
    )


def test_bad_values():
    with pytest.raises(UserError, match=r"SMART\(weight=...\) must be 0 or more, got -1."):
        SMART(weight=-1)
    with pytest.raises(UserError, match=r"SMART\(epsilon=...\) must be above 0, got 0."):
        SMART(epsilon=0)
    with pytest.raises(UserError, match=r"SMART\(ascents=...\) must be 1 or more, got 0."):
        SMART(ascents=0)
