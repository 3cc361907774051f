"""FreeLB against a reference implementation in float64, written from the paper's algorithm."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM

from heldout.core.errors import UserError
from heldout.lm.sequences import sequence_noise
from heldout.lm.weights import seed_of
from heldout.regularizers.free_lb import FreeLB, ascended_in_ball
from heldout.training.steps import Steps


@pytest.fixture
def model(tiny_model_dir):
    return AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float64)


def padded():
    ids = torch.randint(3, 300, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    labels = ids.masked_fill(mask == 0, -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def twin(model, batch, rule):
    """K runs, one sequence after the other, full logits, plain autograd."""
    table = model.get_input_embeddings().weight
    rms = table.detach().square().mean().sqrt()
    noise = sequence_noise(batch, table.shape[1], seed_of(rule.seed, 14), 0, normal=True).double()
    rows = batch["input_ids"].shape[0]
    num_tokens = (batch["labels"][:, 1:] != -100).sum()
    for row in range(rows):
        length = int(batch["attention_mask"][row].sum())
        norm = rms * (length * table.shape[1]) ** 0.5
        delta = noise[row, :length]
        delta = delta / delta.norm() * rule.start * norm
        ids = batch["input_ids"][row : row + 1, :length]
        for _ in range(rule.ascents):
            delta = delta.detach().requires_grad_()
            logits = model(inputs_embeds=table[ids] + delta).logits[0, :-1]
            loss = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")
            (loss / num_tokens / rule.ascents).backward()
            delta = delta.detach() + rule.rate * norm * delta.grad / delta.grad.norm()
            if delta.norm() > rule.radius * norm:
                delta = delta / delta.norm() * rule.radius * norm


@pytest.mark.parametrize("radius", [0.04, 0.006])
def test_is_the_papers_algorithm(model, radius):
    rule = FreeLB(radius=radius)
    slow = copy.deepcopy(model)
    twin(slow, padded(), rule)
    Steps(model, [rule]).gradient([padded()])
    for (name, p), q in zip(model.named_parameters(), slow.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, atol=1e-7), name


def test_each_document_of_a_packed_row_has_its_own_ball():
    offset, gradient = torch.zeros(1, 6, 3), torch.randn(1, 6, 3)
    index = torch.tensor([[0, 0, 0, 1, 1, -1]])
    rate = torch.tensor([1.0, 5.0])[index.clamp(min=0)][..., None]
    radius = torch.tensor([9.0, 2.0])[index.clamp(min=0)][..., None]
    moved = ascended_in_ball(offset, gradient, index, rate, radius)
    assert moved[0, :3].norm().item() == pytest.approx(1.0)
    assert moved[0, 3:5].norm().item() == pytest.approx(2.0)  # 5 is projected to 2
    assert moved[0, 5].norm() == 0


def test_a_ball_of_nothing_is_absent(model):
    plain = copy.deepcopy(model)
    Steps(model, [FreeLB(radius=0)]).gradient([padded()])
    Steps(plain, []).gradient([padded()])
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)


def test_offsets_climb(model):
    """The loss at the offsets is higher than without, in spite of equal dropout."""
    with_offsets = Steps(model, [FreeLB(radius=0.5, rate=0.2)]).gradient([padded()])
    assert with_offsets > Steps(model, []).gradient([padded()])


def test_bad_values():
    with pytest.raises(UserError, match=r"FreeLB\(ascents=...\) must be 2 or more, got 1"):
        FreeLB(ascents=1)
    with pytest.raises(UserError, match=r"FreeLB\(rate=...\) must be 0 or more, got -1"):
        FreeLB(rate=-1)
