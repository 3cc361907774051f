import pytest
import torch
from full_logits import (
    assert_same,
    cross_entropy,
    model64,
    num_scored,
    ours,
    packed,
    theirs,
    window,
)
from peft import LoraConfig, get_peft_model

from heldout.core.errors import UserError
from heldout.regularizers.neftune import NEFTune, neftune_noise


@pytest.fixture
def model(tiny_model_dir):
    return model64(tiny_model_dir)


def test_the_noise_is_uniform_within_the_bound_of_the_true_length():
    (batch,) = window((400, 100))
    noise = neftune_noise(batch, 64, 5.0, seed=0, step=0)
    for row, length in enumerate((400, 100)):
        bound = 5 / (length * 64) ** 0.5
        own = noise[row, :length]
        assert own.abs().max() <= bound
        assert own.abs().max() > 0.999 * bound
        assert own.mean().abs() < 0.02 * bound
        assert own.var().item() == pytest.approx(bound**2 / 3, rel=0.02)
    assert not noise[1, 100:].any()


def test_packed_and_left_padded_sequences_get_the_noise_of_padded_ones():
    (batch,) = window((9, 5, 7))
    noise = neftune_noise(batch, 8, 5.0, seed=0, step=3)
    rows = torch.cat([noise[0], noise[1, :5], noise[2, :7]])
    assert torch.equal(neftune_noise(packed(batch), 8, 5.0, seed=0, step=3)[0], rows)
    left = {key: batch[key].flip(1) for key in ("input_ids", "attention_mask")}
    left["input_ids"][1, 4:] = batch["input_ids"][1, :5]
    assert torch.equal(neftune_noise(left, 8, 5.0, seed=0, step=3)[1, 4:], noise[1, :5])


def test_steps_and_seeds_draw_anew():
    (batch,) = window((9, 5))
    found = [neftune_noise(batch, 8, 5.0, *draw) for draw in ((0, 0), (0, 1), (1, 0))]
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def noise_seen(regularizer, model, batch, step):
    """What reaches the first layer beyond the embedded tokens."""
    first = next(m for m in model.modules() if type(m).__name__ == "LlamaDecoderLayer")
    seen = []
    handle = first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with regularizer.attached(model), torch.no_grad():
        regularizer.before_step(model, step)
        model(**batch)
        handle.remove()
        embedded = model.get_input_embeddings().weight[batch["input_ids"]]
    return seen[0] - embedded


@pytest.mark.parametrize("adapted", [False, True])
def test_it_is_in_force_in_training_only(adapted, model):
    if adapted:
        model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    regularizer = NEFTune(alpha=5.0)
    (batch,) = window((9, 5))
    noise = noise_seen(regularizer, model.train(), batch, step=2)
    bound_BT = torch.tensor([9.0, 5.0])[:, None].mul(32).sqrt().reciprocal() * 5
    assert noise.any()
    assert (noise.abs() <= bound_BT[..., None] + 1e-9).all()
    assert not noise[1, 5:].any()
    assert not noise_seen(regularizer, model.eval(), batch, step=2).any()


def test_loss_and_gradient_are_those_with_noise_on_the_embeddings(model):
    batches = window((9, 5), (14,))
    regularizer = NEFTune(alpha=20.0)
    found = ours(model, [regularizer], batches, step=4)
    total = 0.0
    for batch in batches:
        total = total + cross_entropy(model, batch, noise_seen(regularizer, model, batch, 4))
    assert_same(found, theirs(model, total / num_scored(batches)))
    assert found[0] != ours(model, [], batches)[0]


def test_packed_training_is_padded_training(model):
    (batch,) = window((9, 5, 12))
    padded = ours(model, [NEFTune(alpha=20.0)], [batch])
    assert_same(ours(model, [NEFTune(alpha=20.0)], [packed(batch)]), padded, rtol=1e-4, atol=1e-5)


def test_bad_values():
    with pytest.raises(UserError, match=r"NEFTune\(alpha=...\) must be 0 or more, got -1."):
        NEFTune(alpha=-1)
