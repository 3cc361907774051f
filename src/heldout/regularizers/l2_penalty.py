"""L2 penalty: the squared size of the weights is added to the loss.

The loss gains ``rate/2 * ||w||^2`` over all trained weights. Under plain SGD this is weight decay.
Under Adam it is not: the penalty's gradient is divided by the same running size as the task's, so
weights with large gradients are hardly decayed; ``weight_decay``, which is decoupled, decays all
alike and is the usual choice. This one is for a loss that is to be what the optimizer minimizes.

On LoRA it acts on the change of the weights, ``rate/2 * ||scale * B A||^2``, not on the factors:
the squared norm is ``scale^2 tr((A A^T)(B^T B))``, so the product is never built, and the pull is
toward the base model. Each expert has a product of its own. PiSSA, OLoRA and their like begin at a
product of B0 A0, and the change is what the product has gained since.
"""

# D out, E in, R rank of an adapter, L layers of one shape, X experts

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import PENALTY, Gradient, Regularizer
from heldout.lm.adapters import (
    AdapterProduct,
    adapter_products,
    adapter_start,
    is_adapted,
    not_in_products,
)
from heldout.lm.weights import global_norm

SOURCE = "Krogh and Hertz 1991, NeurIPS 4"
COST = "one pass over the trained weights"


def squared_norm_of_product(
    a_RE: torch.Tensor, b_DR: torch.Tensor, scale: float = 1.0
) -> torch.Tensor:
    """``||scale * B A||_F^2`` in O(R^2 (D + E)), without B A; differentiable."""
    return scale**2 * ((a_RE @ a_RE.mT) * (b_DR.mT @ b_DR)).sum(dim=(-2, -1))


@torch.no_grad()
def product_gradients(
    products: Sequence[AdapterProduct],
) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
    """Half the sum of all squared changes, and its gradient for every factor that is trained.

    In closed form, with the change ``C = scale * B A``: ``scale * B^T C`` for A, ``scale * C A^T``
    for B. C itself is kept as two thin factors.
    """
    # Layers of one shape go together: hundreds of small products would wait for their launches.
    groups = defaultdict(list)
    for each in products:
        kind = (each.a.shape, each.b.shape, each.num_experts, each.start is None)
        groups[kind, each.a.device, each.a.dtype].append(each)
    half = torch.zeros(())
    gradients: list[tuple[torch.Tensor, torch.Tensor]] = []
    for group in groups.values():
        a_LXRE = torch.stack([each.a_XRE() for each in group])
        b_LXDR = torch.stack([each.b_XDR() for each in group])
        changes = [each.change() for each in group]
        thin_a_LXRE = torch.stack([a for a, _ in changes])
        thin_b_LXDR = torch.stack([b for _, b in changes])
        squares_L111 = a_LXRE.new_tensor([each.scale**2 for each in group])[:, None, None, None]
        with torch.autocast(a_LXRE.device.type, enabled=False):
            grams = (thin_a_LXRE @ thin_a_LXRE.mT) * (thin_b_LXDR.mT @ thin_b_LXDR)
            half = half.to(a_LXRE) + (squares_L111 * grams).sum() / 2
            for_a_LXRE = (squares_L111 * (b_LXDR.mT @ thin_b_LXDR)) @ thin_a_LXRE
            for_b_LXDR = thin_b_LXDR @ (squares_L111 * (thin_a_LXRE @ a_LXRE.mT))
        for each, for_a, for_b in zip(group, for_a_LXRE, for_b_LXDR, strict=True):
            if each.a.requires_grad:
                gradients.append((each.a, each.as_a(for_a)))
            if each.b.requires_grad:
                gradients.append((each.b, each.as_b(for_b)))
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


def refuse_other_adapters(model: nn.Module, name: str) -> None:
    """UserError unless all adapters change a weight by scale * B A."""
    products = adapter_products(model)
    known = products and all(each.a.ndim == each.b.ndim == 2 for each in products)
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

    def prepare(self, model: Any) -> None:
        adapter_start(model)  # from which the change is counted

    def around_gradient(self, model: Any, gradient: Gradient, step: int) -> torch.Tensor:
        loss = gradient()
        if self.strength == 0:
            return loss
        return loss + add_l2_penalty(model, self.strength).to(loss)
