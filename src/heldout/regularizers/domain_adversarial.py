"""Domain-adversarial training: a discriminator must not tell from which source a text comes.

A small network learns to name the source of each sequence from the mean of its last hidden states;
its gradient reaches the model reversed, times ``weight * (2 / (1 + exp(-gamma * progress)) - 1)``,
so that the model learns features that all sources share. It helps to carry a skill over from a
large source to a small one; it hurts where the source itself says what to answer.

Sources come from the data's ``source`` column: a second domain is a data mix with two or more
values in it, as ``heldout.fit`` reads it (``data.columns.source``). The mean is over the scored
positions, whose states are at hand, and a sequence weighs as many tokens as it has of them, like
in the task loss. The discriminator is kept here, with an AdamW of its own; it is no part of the
model.
"""

# B batch, T tokens, N scored tokens, D width, C domains

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import PENALTY, Gradient, Regularizer, TokenSum
from heldout.lm.head import output_head
from heldout.lm.logit_path import LogitPath, logit_path
from heldout.lm.passes import Passes
from heldout.lm.tokenize import IGNORED
from heldout.lm.weights import seed_of, whole

SOURCE = "Ganin et al. 2016, arXiv 1505.07818"
COST = "a network of two small layers, once per sequence"

_STREAM = 15  # regularizers of one seed draw unrelated numbers


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.factor = factor
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return -ctx.factor * gradient, None


def gradient_reversed(values: torch.Tensor, factor: float) -> torch.Tensor:
    """The values as they are; their gradient times ``-factor``."""
    return _Reversal.apply(values, factor)


def reversal_strength(progress: float, gamma: float) -> float:
    """2 / (1 + exp(-gamma * progress)) - 1, from 0 to nearly 1 as ``progress`` goes to 1."""
    return math.tanh(gamma * progress / 2)


def pooled(hidden_ND: torch.Tensor, labels_BT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean hidden state (B, D) over the scored positions of each row, and their number (B,)."""
    rows_N = (labels_BT[:, 1:] != IGNORED).nonzero()[:, 0]
    counts_B = torch.bincount(rows_N, minlength=len(labels_BT))
    exact_ND = hidden_ND.to(torch.promote_types(hidden_ND.dtype, torch.float32))
    sums_BD = exact_ND.new_zeros(len(labels_BT), hidden_ND.shape[1]).index_add(0, rows_N, exact_ND)
    return sums_BD / counts_B.clamp(min=1)[:, None], counts_B


@dataclass(frozen=True)
class DomainAdversarial(Regularizer):
    """``weight`` of the reversed gradient; ``hidden`` and ``rate`` are of the discriminator."""

    STRENGTH = "weight"
    AROUND = PENALTY

    weight: float = 0.1
    domains: int = 2
    gamma: float = 10.0
    hidden: int = 64
    rate: float = 1e-3
    seed: int = 0

    _own: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("weight", 0), ("seed", 0), ("domains", 2), ("hidden", 1)):
            self.require(name, getattr(self, name) >= least, f"{least} or more")
        for name in ("gamma", "rate"):
            self.require(name, getattr(self, name) > 0, "above 0")

    def check(self, model: Any, recipe: Recipe | None) -> None:
        if logit_path(model) is LogitPath.WHOLE:
            raise UserError(
                f"DomainAdversarial reads the hidden states that enter the output layer, which "
                f"{type(model).__name__} does not show token by token: leave it out."
            )

    def prepare(self, model: Any) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.seed, _STREAM))
            head: Any = output_head(model)
            width = head.weight.shape[1]
            discriminator = nn.Sequential(
                nn.Linear(width, self.hidden), nn.ReLU(), nn.Linear(self.hidden, self.domains)
            )
        optimizer = torch.optim.AdamW(discriminator.parameters(), lr=self.rate)
        self._own.update(discriminator=discriminator, optimizer=optimizer)

    def before_step(self, model: Any, step: int) -> None:
        if step > 0 and self._progress == 0:
            raise UserError(
                "DomainAdversarial grows with the share of steps done: say Steps(total_steps=...)."
            )
        discriminator, optimizer = self._own["discriminator"], self._own["optimizer"]
        device = next(model.parameters()).device
        if next(discriminator.parameters()).device != device:
            discriminator.to(device)
            optimizer.load_state_dict(optimizer.state_dict())  # moves the moments

    def around_gradient(self, model: Any, gradient: Gradient, step: int) -> torch.Tensor:
        # Of several, as under SAM, the last is the step's: the discriminator's too.
        for parameter in self._own["discriminator"].parameters():
            parameter.grad = torch.zeros_like(parameter)
        return gradient()

    def extra_loss(self, passes: Passes, batch: Mapping[str, Any]) -> TokenSum:
        domains_B = batch.get("source_index")
        if domains_B is None:
            raise UserError(
                "DomainAdversarial needs rows of two or more sources: give the data a source "
                "column with at least two values (data.columns.source) and train with heldout.fit."
            )
        if (largest := int(domains_B.max())) >= self.domains:
            raise UserError(
                f"DomainAdversarial(domains={self.domains}): the data has {largest + 1} or more "
                "sources; set domains to their number, or merge some in the source column."
            )
        discriminator = self._own["discriminator"]
        assert passes.task.hidden_ND is not None, "checked"
        mean_BD, counts_B = pooled(passes.task.hidden_ND, batch["labels"])
        factor = self.strength * reversal_strength(self._progress, self.gamma)
        with torch.autocast(mean_BD.device.type, enabled=False):
            scores_BC = discriminator(gradient_reversed(mean_BD, factor).float())
            nats_B = F.cross_entropy(scores_BC, domains_B, reduction="none")
        return TokenSum((nats_B * counts_B).sum())

    def after_step(self, model: Any, step: int, rates: dict[str, float]) -> None:
        parameters = list(self._own["discriminator"].parameters())
        if dist.is_available() and dist.is_initialized():
            for parameter in parameters:
                dist.all_reduce(parameter.grad)
                parameter.grad /= dist.get_world_size()
        self._own["optimizer"].step()

    def state_dict(self) -> dict[str, Any]:
        moments = self._own["optimizer"].state_dict()["state"]
        return {
            "discriminator": whole(self._own["discriminator"].state_dict()),
            "moments": {index: whole(values) for index, values in moments.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._own["discriminator"].load_state_dict(state["discriminator"])
        groups = self._own["optimizer"].state_dict()["param_groups"]
        moments = {"state": state["moments"], "param_groups": groups}
        self._own["optimizer"].load_state_dict(moments)
