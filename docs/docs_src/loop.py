"""Regularizers in a training loop of your own."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

import heldout


def train(model: PreTrainedModel, windows: Sequence[Sequence[dict]]) -> list[float]:
    """One optimizer step per window, which is a list of micro-batches with labels."""
    steps = heldout.Steps(
        model,
        [
            heldout.SAM(radius=0.05, schedule="rise:0.2"),  # two gradients of each window
            heldout.L2SP(rate=0.01),  # after each step, back toward where the weights began
            heldout.LabelSmoothing(amount=0.1),  # inside the chunked loss
        ],
        total_steps=len(windows),
    )
    optimizer = torch.optim.AdamW(steps.parameter_groups(learning_rate=1e-3))
    losses = []
    with steps.attached():
        for window in windows:
            losses.append(steps.gradient(window))
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            steps.done(optimizer)
            optimizer.zero_grad()
    return losses
