import pytest
import torch
from transformers import AutoModelForCausalLM

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.regularizers.free_lb import FreeLB
from heldout.regularizers.small_batch_noise import SmallBatchNoise, micro_batch_weights
from heldout.training.steps import Steps


@pytest.mark.parametrize("counts", [[4, 4, 4, 4], [3, 1, 10, 2], [15, 1]])
@pytest.mark.parametrize("factor", [1.0, 4.0])
def test_the_gradient_has_the_variance_of_a_smaller_batch(counts, factor):
    """Each token's gradient is a normal number of mean 3 and variance 1, drawn anew each time."""
    num_draws = 8000
    torch.manual_seed(0)
    weights = torch.tensor([micro_batch_weights(counts, factor, seed) for seed in range(num_draws)])
    parts = [
        (3 + torch.randn(num_draws, count, dtype=torch.float64)).sum(1) / sum(counts)
        for count in counts
    ]
    gradients = (weights * torch.stack(parts, dim=1)).sum(1)
    variance = 1 / (sum(counts) / factor)  # a mean over a batch that is factor times smaller
    assert gradients.mean() == pytest.approx(3, abs=4 * (variance / num_draws) ** 0.5)
    # With two micro-batches the noise is a product of two normals: wider tails, wider error.
    assert gradients.var() == pytest.approx(variance, rel=0.12)


@pytest.mark.parametrize("counts", [[4, 4, 4, 4], [3, 1, 10, 2], [15, 1], [5, 0, 3]])
def test_what_all_micro_batches_share_is_left_as_it_is(counts):
    for seed in range(20):
        weights = micro_batch_weights(counts, 7.0, seed)
        mean = sum(c * w for c, w in zip(counts, weights, strict=True)) / sum(counts)
        assert mean == pytest.approx(1, abs=1e-12)


def test_the_weights_of_equal_micro_batches_have_the_textbook_covariance():
    """(factor - 1) M / (M - 1) (I - 11^T / M), from sampling without the mean's own error."""
    num, factor = 5, 3.0
    draws = [micro_batch_weights([2] * num, factor, seed) for seed in range(20_000)]
    found = torch.cov(torch.tensor(draws).T)
    expected = (factor - 1) * num / (num - 1) * (torch.eye(num) - 1 / num)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.1)


def test_one_micro_batch_with_all_the_tokens_has_nothing_to_be_weighed_against():
    assert micro_batch_weights([0, 7, 0], 4.0, 0) == [1.0, 1.0, 1.0]


def test_a_window_without_scored_tokens_has_no_noise():
    assert micro_batch_weights([0, 0], 4.0, 0) == [1.0, 1.0]


@pytest.fixture
def model(tiny_model_dir):
    return AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float64)


def batch(start, length):
    ids = torch.arange(start, start + length)[None]
    return {"input_ids": ids, "labels": ids}


def gradients(model, regularizers, window):
    Steps(model, regularizers).gradient(window)
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    return found


def test_the_gradient_is_that_of_the_weighted_micro_batches(model):
    window = [batch(3, 11), batch(50, 6), batch(90, 17)]
    seen = []

    class Watched(SmallBatchNoise):
        def around_gradient(self, model, gradient, step):
            def watched(scales):
                seen.extend(scales)
                return gradient(scales=scales)

            watched.window = gradient.window
            return super().around_gradient(model, watched, step)

    found = gradients(model, [Watched(factor=4)], [dict(b) for b in window])
    assert len({round(weight, 6) for weight in seen}) == 3
    lengths = [10, 5, 16]
    for weight, part, length in zip(seen, window, lengths, strict=True):
        (weight * model(**part).loss * length / sum(lengths)).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-5, atol=1e-6)


def test_equal_micro_batches_have_no_noise(model):
    window = [batch(3, 11)] * 4
    plain = gradients(model, [], [dict(b) for b in window])
    noisy = gradients(model, [SmallBatchNoise(factor=9)], [dict(b) for b in window])
    for name, value in plain.items():
        torch.testing.assert_close(noisy[name], value, rtol=1e-5, atol=1e-6)


def test_a_last_window_of_one_micro_batch_is_plain(model):
    """As at the end of an epoch whose rows do not fill it."""
    steps = Steps(model, [SmallBatchNoise()])
    steps.step = 2
    steps.gradient([batch(3, 11)])
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    plain = gradients(model, [], [batch(3, 11)])
    assert all(torch.equal(value, plain[name]) for name, value in found.items())


def test_free_lb_beside_it_is_refused(model):
    """A negative weight of a micro-batch would let the offsets descend."""
    with pytest.raises(UserError, match=r"do not go together: .* use SMART or VAT"):
        Steps(model, [FreeLB(), SmallBatchNoise()])


def test_one_micro_batch_and_bad_values_are_refused(model):
    with pytest.raises(UserError, match=r"there is one: set train\.micro_batch_size"):
        gradients(model, [SmallBatchNoise()], [batch(3, 11)])
    one = Recipe().replace(train={"batch_size": 8, "micro_batch_size": 8})
    with pytest.raises(UserError, match=r"train\.micro_batch_size under train\.batch_size \(8\)"):
        SmallBatchNoise().check(model, one)
    SmallBatchNoise().check(model, one.replace(train={"micro_batch_size": 2}))
    with pytest.raises(UserError, match=r"SmallBatchNoise\(factor=...\) must be 1 or more"):
        SmallBatchNoise(factor=0.5)
