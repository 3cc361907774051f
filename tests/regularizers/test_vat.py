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
from heldout.lm.passes import embedding_scale
from heldout.lm.sequences import sequence_index, sequence_noise
from heldout.lm.weights import seed_of
from heldout.regularizers.dropout import Dropout
from heldout.regularizers.vat import _STREAM, VAT, unit_per_sequence


@pytest.fixture
def model(tiny_model_dir):
    return model64(tiny_model_dir)


def slow_twin(model, batches, vat, step):
    """Power iteration by plain autograd, row by row, from the paper."""
    scale = model.get_input_embeddings().weight.detach().square().mean().sqrt().item()
    total = 0.0
    for batch in batches:
        log_p, targets = log_probs(model, batch)
        fixed = log_p.detach()
        lengths = batch["attention_mask"].sum(1).tolist()
        noise = sequence_noise(batch, 32, seed_of(vat.seed, _STREAM), step, normal=True)
        direction = [noise[row, :n].double() for row, n in enumerate(lengths)]

        def offset(share, direction=direction, lengths=lengths, shape=noise.shape):
            placed = torch.zeros(shape, dtype=torch.float64)
            for row, n in enumerate(lengths):
                length = share * scale * (n * 32) ** 0.5
                placed[row, :n] = length * direction[row] / direction[row].norm()
            return placed

        for _ in range(vat.iterations):
            probe = offset(vat.xi).requires_grad_()
            log_q = log_probs(model, batch, probe)[0]
            (gradient,) = torch.autograd.grad(kl(fixed, log_q), probe)
            for row, n in enumerate(lengths):
                direction[row] = gradient[row, :n]
        log_q = log_probs(model, batch, offset(vat.epsilon))[0]
        total = total + nll(log_p, targets) + vat.weight * kl(fixed, log_q)
    return total / num_scored(batches)


@pytest.mark.parametrize("iterations", [1, 2])
def test_loss_and_gradient_are_those_of_the_paper(iterations, model):
    batches = window((9, 5), (14,))
    vat = VAT(weight=3.0, epsilon=0.2, xi=0.1, iterations=iterations)
    found = ours(model, [vat], batches, step=4)
    assert_same(found, theirs(model, slow_twin(model, batches, vat, 4)), rtol=1e-4, atol=1e-6)
    assert found[0] > ours(model, [], batches)[0] + 0.01


def test_each_sequence_is_moved_by_its_own_radius_and_padding_is_not(model):
    (batch,) = window((9, 5))
    logit_path(model)  # by trials of their own
    reason_for_padding(model)
    seen = []
    model.model.layers[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    ours(model, [VAT(epsilon=0.02)], [batch])
    final = (seen[2] - seen[0])[0]  # rows one behind the other, without padding
    assert len(final) == 14
    for moved, length in zip(final.split((9, 5)), (9, 5), strict=True):
        radius = 0.02 * embedding_scale(model) * (length * 32) ** 0.5
        assert moved.norm().item() == pytest.approx(radius, rel=1e-5)


def test_units_are_taken_per_sequence_packed_or_padded_and_of_tiny_gradients(model):
    (batch,) = window((9, 5))
    values = torch.randn(2, 9, 4)
    values[1] *= 1e-25
    unit = unit_per_sequence(values, sequence_index(batch))
    assert unit[0].norm().item() == pytest.approx(1.0)
    assert unit[1].norm().item() == pytest.approx(1.0)
    together = torch.cat([values[0], values[1, :5]])[None]
    again = unit_per_sequence(together, sequence_index(packed(batch)))
    torch.testing.assert_close(again[0], torch.cat([unit[0], unit[1, :5]]))
    assert not unit_per_sequence(torch.zeros(2, 9, 4), sequence_index(batch)).any()


def test_dropout_alone_adds_nothing(model):
    batches = window((9, 5))
    dropout = Dropout(hidden=0.4)
    without = ours(model, [dropout], batches)
    assert_same(ours(model, [dropout, VAT(epsilon=1e-6)], batches), without, 1e-5, 1e-5)
    assert_same(ours(model, [dropout, VAT(weight=0.0)], batches), without)


def test_packed_training_is_padded_training(model):
    (batch,) = window((9, 5, 12))
    padded = ours(model, [VAT(weight=3.0, epsilon=0.2)], [batch])
    assert_same(
        ours(model, [VAT(weight=3.0, epsilon=0.2)], [packed(batch)]), padded, rtol=1e-4, atol=1e-5
    )


def test_bad_values():
    with pytest.raises(UserError, match=r"VAT\(weight=...\) must be 0 or more, got -1."):
        VAT(weight=-1)
    with pytest.raises(UserError, match=r"VAT\(xi=...\) must be above 0, got 0."):
        VAT(xi=0)
    with pytest.raises(UserError, match=r"VAT\(iterations=...\) must be 1 or more, got 0."):
        VAT(iterations=0)
