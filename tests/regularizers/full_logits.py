"""The plain way, in float64: a tiny model, ragged batches, all logits, autograd over everything.

The model's norms round to float32, so a twin must run each pass once, as often as the real thing.
"""

from contextlib import contextmanager

import torch
from transformers import AutoModelForCausalLM

from heldout.lm.layout import padded_layout, set_layout
from heldout.lm.row_noise import dropout_by_row, noise_of_step
from heldout.training.steps import Steps


def model64(folder):
    """The tiny model, with weights large enough to predict something."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def window(*lengths, seed=0):
    """One padded batch for each tuple of lengths; the first half of a row is not scored."""
    generator = torch.Generator().manual_seed(seed)
    return [_batch(rows, generator) for rows in lengths]


def _batch(lengths, generator):
    shape = (len(lengths), max(lengths))
    ids = torch.randint(3, 400, shape, generator=generator)
    mask = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, -100)
    for row, length in enumerate(lengths):
        mask[row, :length] = 1
        labels[row, length // 2 : length] = ids[row, length // 2 : length]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def packed(batch):
    """The rows of a padded batch one after the other in one row, with position_ids."""
    ids, labels, positions = [], [], []
    for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        ids.append(batch["input_ids"][row, :length])
        labels.append(batch["labels"][row, :length])
        positions.append(torch.arange(length))
    return {
        "input_ids": torch.cat(ids)[None],
        "labels": torch.cat(labels)[None],
        "position_ids": torch.cat(positions)[None],
    }


def log_probs(model, batch, offset=0.0):
    """(N, V) of the scored tokens, and their targets; ``offset`` is added to the embeddings."""
    embedded = model.get_input_embeddings()(batch["input_ids"]) + offset
    logits = model(inputs_embeds=embedded, attention_mask=batch["attention_mask"]).logits
    keep = batch["labels"][:, 1:] != -100
    return logits[:, :-1][keep].log_softmax(-1), batch["labels"][:, 1:][keep]


def nll(log_p, targets):
    return -log_p[torch.arange(len(targets)), targets].sum()


def cross_entropy(model, batch, offset=0.0):
    return nll(*log_probs(model, batch, offset))


def kl(log_p, log_q):
    return (log_p.exp() * (log_p - log_q)).sum()


def num_scored(batches):
    return sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in batches)


def gradients(model):
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def ours(model, regularizers, batches, step=0, seed=0):
    """(loss, gradients) of one window, by the engine."""
    steps = Steps(model, regularizers)
    steps.step = step
    torch.manual_seed(seed)
    with steps.attached():
        loss = steps.gradient(batches)
    return loss, gradients(model)


@contextmanager
def dropping(batch, step=0, seed=0):
    """Within this context a pass over the batch loses what it loses by the engine."""
    set_layout(padded_layout(batch))
    with dropout_by_row(), noise_of_step(seed, step, batch):
        yield


def theirs(model, loss):
    """(loss, gradients) of a loss, by plain autograd."""
    loss.backward()
    return loss.item(), gradients(model)


def assert_same(one, other, rtol=1e-9, atol=1e-12):
    # The engine adds up losses in float32.
    assert abs(one[0] - other[0]) < 1e-6 * abs(other[0]), (one[0], other[0])
    assert one[1].keys() == other[1].keys()
    for name, value in other[1].items():
        torch.testing.assert_close(one[1][name], value, rtol=rtol, atol=atol)
