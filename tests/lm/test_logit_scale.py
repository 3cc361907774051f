import pytest
import torch
from tiny_architectures import tiny_model

from heldout.core.errors import UserError
from heldout.lm.logit_scale import find_logit_scale

IDS = torch.tensor([[5, 17, 40, 3, 77, 12, 60, 9]])

# The last norm, one with a bias, one that adds 1 to its weight, a head with a bias, and a head that
# stands alone behind a norm without weights.
SCALED = ("llama", "gpt2", "gemma", "gptj", "phi", "olmo", "mamba", "falcon")


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits.double()


@pytest.mark.parametrize("name", SCALED)
def test_all_logits_are_scaled_and_put_back(name):
    model = tiny_model(name)
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases that are not at their start
            parameter.add_(0.05 * torch.randn(parameter.shape))
    before = logits(model)
    scale = find_logit_scale(model)
    assert torch.equal(logits(model), before)
    scale.set(0.7)
    torch.testing.assert_close(logits(model), 0.7 * before, atol=1e-5, rtol=1e-4)
    scale.set(1.3)
    torch.testing.assert_close(logits(model), 1.3 * before, atol=1e-5, rtol=1e-4)
    scale.set(1.0)
    assert torch.equal(logits(model), before)


def test_capped_logits_are_refused():
    with pytest.raises(UserError, match="no weights of Gemma2"):
        find_logit_scale(tiny_model("gemma2", final_logit_softcapping=1.0))


def test_a_norm_without_weights_over_tied_embeddings_is_refused():
    model = tiny_model("olmo", tie_word_embeddings=True)
    before = logits(model)
    with pytest.raises(UserError, match="head is the embedding"):
        find_logit_scale(model)
    assert torch.equal(logits(model), before)
