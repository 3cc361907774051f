"""L2 penalty: the squared size of the weights is added to the loss.

The loss gains ``rate/2 * ||w||^2`` over all trained weights. Under plain SGD this is weight decay.
Under Adam it is not: the penalty's gradient is divided by the same running size as the task's, so
weights with large gradients are hardly decayed; ``weight_decay``, which is decoupled, decays all
alike and is the usual choice. This one is for a loss that is to be what the optimizer minimizes.

On LoRA it acts on the change of the weights, ``rate/2 * ||scale * B A||^2``, not on the factors:
the squared norm is ``scale^2 tr((A A^T)(B^T B))``, so the product is never built, and the pull is
toward the base model.
"""

# D out, E in, R rank of an adapter, L layers of one shape

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import PENALTY, Gradient, Regularizer
from heldout.lm.weights import (
    adapter_products,
    global_norm,
    is_adapted,
    placed_like,
    trained_parameters,
    unsharded,
)

SOURCE = "Krogh and Hertz 1991, NeurIPS 4"
COST = "one pass over the trained weights"

Product = tuple[torch.Tensor, torch.Tensor, float]  # A_RE, B_DR, scale


def squared_norm_of_product(
    a_RE: torch.Tensor, b_DR: torch.Tensor, scale: float = 1.0
) -> torch.Tensor:
    """``||scale * B A||_F^2`` in O(R^2 (D + E)), without B A; differentiable."""
    return scale**2 * ((a_RE @ a_RE.mT) * (b_DR.mT @ b_DR)).sum(dim=(-2, -1))


@torch.no_grad()
def product_gradients(
    products: Sequence[Product],
) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
    """Half the sum of ``||scale * B A||_F^2``, and its gradient for every factor that is trained.

    In closed form: ``scale^2 (B^T B) A`` for A and ``scale^2 B (A A^T)`` for B.
    """
    # Layers of one shape go together: hundreds of small products would wait for their launches.
    groups = defaultdict(list)
    for a, b, scale in products:
        groups[a.shape, b.shape, a.device, a.dtype].append((a, b, scale))
    half, gradients = torch.zeros(()), []
    for group in groups.values():
        a_LRE = torch.stack([unsharded(a) for a, _, _ in group])
        b_LDR = torch.stack([unsharded(b) for _, b, _ in group])
        squares_L11 = a_LRE.new_tensor([scale**2 for _, _, scale in group])[:, None, None]
        with torch.autocast(a_LRE.device.type, enabled=False):
            of_a_LRR = squares_L11 * (a_LRE @ a_LRE.mT)
            of_b_LRR = b_LDR.mT @ b_LDR
            half = half.to(a_LRE) + (of_a_LRR * of_b_LRR).sum() / 2
            for_a_LRE = (squares_L11 * of_b_LRR) @ a_LRE
            for_b_LDR = b_LDR @ of_a_LRR
        for (a, b, _), for_a, for_b in zip(group, for_a_LRE, for_b_LDR, strict=True):
            pairs = [(a, for_a), (b, for_b)]
            gradients += [(p, placed_like(p, value)) for p, value in pairs if p.requires_grad]
    return half, gradients


@torch.no_grad()
def add_l2_penalty(model: nn.Module, rate: float) -> torch.Tensor:
    """Add the penalty's gradient to ``parameter.grad`` of all trained weights; returns the penalty.

    Call it once per optimizer step, whatever the accumulation.
    """
    half, gradients = product_gradients(adapter_products(model))
    add_to_gradients(gradients, rate)
    others = list(not_in_products(model).values())
    if others:
        half = global_norm(others).square() / 2 + half.to(others[0].device)
        add_to_gradients([(p, p) for p in others], rate)
    return rate * half


@torch.no_grad()
def add_to_gradients(terms: Iterable[tuple[torch.Tensor, torch.Tensor]], rate: float) -> None:
    """``parameter.grad += rate * term``, also where there is no gradient yet."""
    gradients, added = [], []
    for parameter, term in terms:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
        added.append(term.detach())
    if added:
        torch._foreach_add_(gradients, added, alpha=rate)


def not_in_products(model: nn.Module) -> dict[str, nn.Parameter]:
    """Trained parameters that are not a factor of a LoRA layer."""
    factors = {id(factor) for a, b, _ in adapter_products(model) for factor in (a, b)}
    return {n: p for n, p in trained_parameters(model).items() if id(p) not in factors}


def refuse_other_adapters(model: nn.Module, name: str) -> None:
    """UserError unless all adapters change a weight by scale * B A."""
    products = adapter_products(model)
    known = products and all(a.ndim == b.ndim == 2 for a, b, _ in products)
    if is_adapted(model) and (not known or any("lora_" in n for n in not_in_products(model))):
        raise UserError(
            f"{name} knows plain LoRA on linear layers alone, not DoRA, embeddings, convolutions "
            "or other adapters: use model.lora_targets = all-linear, or model.method = full."
        )


@dataclass(frozen=True)
class L2Penalty(Regularizer):
    """``rate`` times half the squared norm of the trained weights, or of the LoRA products."""

    STRENGTH = "rate"
    AROUND = PENALTY

    rate: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("rate", self.rate >= 0, "0 or more")

    def check(self, model: Any, recipe: Recipe | None) -> None:
        refuse_other_adapters(model, "L2Penalty")

    def around_gradient(self, model: Any, gradient: Gradient, step: int) -> torch.Tensor:
        loss = gradient()
        if self.strength == 0:
            return loss
        return loss + add_l2_penalty(model, self.strength).to(loss)
