"""Short trainings by hand, for tests of what happens around optimizer steps."""

import torch

from heldout.training.steps import Steps


def batches(num, vocabulary=400):
    """Batches of two rows of random tokens, all scored."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(num):
        ids = torch.randint(3, vocabulary, (2, 12), generator=generator)
        found.append({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids})
    return found


def weights(model):
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def train(
    model,
    regularizers,
    *,
    num_steps=4,
    start=0,
    total=None,
    states=None,
    optimizer=None,
    recipe=None,
):
    """Trains in place with AdamW; returns (steps, weights after each step)."""
    total = num_steps if total is None else total
    steps = Steps(model, regularizers, total_steps=total, evaluates=True, recipe=recipe)
    torch.manual_seed(0)
    found = []
    with steps.attached():
        if states:
            steps.load_state_dict(states)
        optimizer = optimizer or torch.optim.AdamW(steps.parameter_groups(1e-2, 0.1))
        steps.step = start
        for batch in batches(start + num_steps)[start:]:
            steps.gradient([batch])
            optimizer.step()
            steps.done(optimizer)
            optimizer.zero_grad()
            found.append(weights(model))
    return steps, found


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items())
