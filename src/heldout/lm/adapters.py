"""Adapters on a frozen base: what they change, and the base that lies below them."""

# X experts, D out, E in, R rank of an adapter

import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from heldout.core.errors import UserError
from heldout.lm.accelerator import in_float64
from heldout.lm.weights import copies, placed_like, trained_parameters, unsharded, weights_replaced

# Ways to begin that take a part of the base weights into the factors, by PEFT's names; the rest of
# the base is what lies below the adapter from then on.
_TAKING = ("pissa", "olora", "corda", "loftq", "lora_ga")
_START = "_heldout_adapter_start"  # lies on the PEFT model, so that copies of that have it too


@dataclass(frozen=True)
class AdapterProduct:
    """Factors of one LoRA layer, which changes a weight by ``scale * (B A - B0 A0)``.

    Of experts (``target_parameters``) there is one product each, all in the same two parameters.
    """

    a: nn.Parameter
    b: nn.Parameter
    scale: float
    num_experts: int = 1
    start: tuple[torch.Tensor, torch.Tensor] | None = None  # A0, B0; None where their product is 0

    def a_XRE(self, a: torch.Tensor | None = None) -> torch.Tensor:
        """A, or what lies like it, by experts; unsharded."""
        whole = unsharded(self.a if a is None else a)
        return whole.reshape(self.num_experts, -1, whole.shape[-1])

    def b_XDR(self, b: torch.Tensor | None = None) -> torch.Tensor:
        """B, or what lies like it, by experts, which lie innermost in PEFT's layout; unsharded."""
        whole = unsharded(self.b if b is None else b)
        return whole.reshape(whole.shape[0], -1, self.num_experts).permute(2, 0, 1)

    def as_a(self, a_XRE: torch.Tensor) -> torch.Tensor:
        """Laid out and sharded like A."""
        return placed_like(self.a, a_XRE.reshape(self.a.shape))

    def as_b(self, b_XDR: torch.Tensor) -> torch.Tensor:
        """Laid out and sharded like B."""
        return placed_like(self.b, b_XDR.permute(1, 2, 0).reshape(self.b.shape))

    def change(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Two factors (X, R', E), (X, D, R') whose product, times ``scale``, is the change.

        With A0 and B0 it is ``B (A - A0) + (B - B0) A0``: exactly 0 where nothing has moved.
        """
        a_XRE, b_XDR = self.a_XRE(), self.b_XDR()
        if self.start is None:
            return a_XRE, b_XDR
        a0_XRE, b0_XDR = self.a_XRE(self.start[0]).to(a_XRE), self.b_XDR(self.start[1]).to(b_XDR)
        return torch.cat([a_XRE - a0_XRE, a0_XRE], 1), torch.cat([b_XDR, b_XDR - b0_XDR], 2)


def is_adapted(model: Any) -> bool:
    """Whether only adapters on a frozen base are trained, as with LoRA."""
    return _adapted(model) is not None


def adapter_products(model: nn.Module) -> list[AdapterProduct]:
    """The product of every LoRA layer that is trained."""
    start = kept_start(model)
    names = {id(p): n for n, p in trained_parameters(model).items()} if start else {}
    found = []
    layer: Any
    for layer in model.modules():
        if not isinstance(getattr(layer, "lora_A", None), nn.ModuleDict):
            continue
        for name in layer.lora_A:
            a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
            if a.requires_grad or b.requires_grad:
                first = tuple(start.get(names.get(id(p), ""), p.detach()) for p in (a, b))
                found.append(
                    AdapterProduct(
                        a,
                        b,
                        float(layer.scaling[name]),
                        getattr(layer, "num_experts", 1),
                        (first[0], first[1]) if start else None,
                    )
                )
    return found


def not_in_products(model: nn.Module) -> dict[str, nn.Parameter]:
    """Trained parameters that are not a factor of a LoRA layer."""
    factors = {id(factor) for each in adapter_products(model) for factor in (each.a, each.b)}
    return {n: p for n, p in trained_parameters(model).items() if id(p) not in factors}


def adapter_start(model: nn.Module) -> dict[str, torch.Tensor]:
    """The trained LoRA factors as they were initialized, by name, if they took from the base.

    Empty where the adapter began at a change of 0, so that the base is the model without it. Kept
    with the model from the first call on; keeps one copy of the factors.

    Raises UserError where the adapter was trained before, so that its start is lost.
    """
    adapted = _adapted(model)
    if adapted is None or not any(map(takes_from_base, adapted.peft_config.values())):
        return {}
    if not hasattr(adapted, _START):
        factors = {n: p for n, p in trained_parameters(adapted).items() if "lora_" in n}
        if not all(_columns_are_orthogonal(p) for n, p in factors.items() if "lora_B." in n):
            kind = next(filter(takes_from_base, adapted.peft_config.values())).init_lora_weights
            raise UserError(
                f"The adapter began as {kind}, which takes a part of the base weights, and was "
                "trained since, so that its base is lost: start a new adapter, or train on with "
                "its weights merged into the model."
            )
        setattr(adapted, _START, copies(factors))
    return kept_start(model)


def kept_start(model: nn.Module) -> dict[str, torch.Tensor]:
    """``adapter_start`` if that was asked for before, else empty."""
    return getattr(_adapted(model), _START, {})


def put_back_start(model: nn.Module, start: Mapping[str, torch.Tensor]) -> None:
    """What an earlier part of the same training had as ``adapter_start``."""
    kept = adapter_start(model)
    for name, value in start.items():
        kept[name].copy_(value)


def takes_from_base(config: Any) -> bool:
    """Whether a PEFT configuration begins with a part of the base weights in the factors."""
    return str(getattr(config, "init_lora_weights", "")).lower().startswith(_TAKING)


def base_anchors(model: nn.Module) -> dict[str, torch.Tensor]:
    """What ``base_weights`` needs, taken before training: weights that an adapter is not.

    Raises UserError as ``adapter_start`` does.
    """
    return {**copies(not_in_products(model)), **adapter_start(model)}


@contextmanager
def base_weights(model: nn.Module, anchors: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Within this context ``model`` is the base: adapters off, or as they were initialized.

    ``anchors`` are ``base_anchors``, which are put in.
    """
    with ExitStack() as stack:
        stack.enter_context(weights_replaced(model, anchors))
        if not kept_start(model):
            stack.enter_context(_adapter_off(model))
        yield


@contextmanager
def _adapter_off(model: nn.Module) -> Iterator[None]:
    adapted = _adapted(model)
    if adapted is None:
        yield
        return
    # PEFT marks all adapters as trained when it turns them on again.
    trained = [(p, p.requires_grad) for p in model.parameters()]
    try:
        with ExitStack() as stack:
            with warnings.catch_warnings():
                # It warns of trained biases, which the anchors put back.
                warnings.filterwarnings("ignore", ".*disabling adapter layers with bias")
                stack.enter_context(adapted.disable_adapter())
            yield
    finally:
        for parameter, required in trained:
            parameter.requires_grad_(required)


def _columns_are_orthogonal(b_DR: torch.Tensor) -> bool:
    """As every way to begin with a part of the weights leaves B, and no step of training does."""
    exact_DR = in_float64(unsharded(b_DR).detach())
    gram_RR = (exact_DR.mT @ exact_DR).abs()
    largest = float(gram_RR.diagonal().max())
    off = float((gram_RR - gram_RR.diagonal().diag_embed()).max())
    return off <= 100 * torch.finfo(b_DR.dtype).eps * largest


def _adapted(model: Any) -> Any:
    """The PEFT model inside DDP and compile wrappers, if there is one."""
    # Read from _modules: a compiled model forwards attributes to the one inside.
    while inner := model._modules.get("_orig_mod") or model._modules.get("module"):
        model = inner
    return model if hasattr(model, "disable_adapter") else None
