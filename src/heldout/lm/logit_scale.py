"""Where a model's logits can be scaled as a whole by its own weights: found by trying.

In most models it is the weight of the last norm, in others the output head. Caps behind the head
and embeddings tied to it show in the logits, so no list of architectures is kept.
"""

# T tokens, V vocabulary

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from heldout.core.errors import UserError
from heldout.lm.head import output_head, whole_logits
from heldout.lm.trial import plain_ids, trial_inputs
from heldout.lm.undisturbed import evaluation_mode

_TOKENS = 12  # of a trial
_FACTOR = 0.5  # exact in every type


@dataclass(frozen=True)
class LogitScale:
    """Parameters that, moved together, multiply all logits; ``offset`` is added to a weight in use.

    A norm that multiplies by ``1 + weight`` has an offset of 1.
    """

    parameters: tuple[nn.Parameter, ...]
    offsets: tuple[float, ...]
    starts: tuple[torch.Tensor, ...]

    @classmethod
    def of(cls, parameters: list[nn.Parameter], offset: float) -> "LogitScale":
        offsets = (offset, *[0.0] * (len(parameters) - 1))
        starts = tuple(parameter.detach().clone() for parameter in parameters)
        return cls(tuple(parameters), offsets, starts)

    def set(self, factor: float) -> None:
        """Multiply the logits that there were at the start; 1 puts the weights back exactly."""
        with torch.no_grad():
            for parameter, offset, start in zip(
                self.parameters, self.offsets, self.starts, strict=True
            ):
                if factor == 1:
                    parameter.copy_(start)
                else:
                    parameter.copy_((start.float() + offset) * factor - offset)


def find_logit_scale(model: Any) -> LogitScale:
    """Of a whole model, without adapters. Costs up to six forwards over 12 tokens.

    Raises UserError where no weights scale the logits: those after which there is a cap, or a norm
    without weights over tied embeddings.
    """
    inputs = trial_inputs(model, torch.tensor([plain_ids(model, _TOKENS)]))
    with torch.no_grad(), evaluation_mode(model):
        logits_BTV = whole_logits(model, inputs).float()
        for scale in _candidates(model, inputs):
            try:
                scale.set(_FACTOR)
                found_BTV = whole_logits(model, inputs).float()
            finally:
                scale.set(1.0)
            finite_BTV = logits_BTV.isfinite()  # words that are masked have minus infinity
            expected = _FACTOR * logits_BTV[finite_BTV]
            exact = torch.finfo(scale.parameters[0].dtype).eps < 1e-5
            far = (found_BTV[finite_BTV] - expected).abs().max() / expected.abs().max()
            if far <= (1e-5 if exact else 2e-2):
                return scale
    raise UserError(
        f"temperature: no weights of {type(model).__name__} scale its logits as a whole: they are "
        "capped, or its last norm has no weights and its head is the embedding."
    )


def _candidates(model: Any, inputs: dict[str, torch.Tensor]) -> Iterator[LogitScale]:
    """The last norm as a factor and as one more than its weight, then the head itself."""
    head: Any = output_head(model)
    head_bias = [head.bias] if isinstance(getattr(head, "bias", None), nn.Parameter) else []
    for module in _last_modules(model, head, inputs):
        weight, bias = (module._parameters.get(name) for name in ("weight", "bias"))
        if weight is None or weight.dim() != 1:
            continue
        others = [*([] if bias is None else [bias]), *head_bias]
        yield LogitScale.of([weight, *others], 0.0)
        yield LogitScale.of([weight, *others], 1.0)
    yield LogitScale.of([head.weight, *head_bias], 0.0)


def _last_modules(model: Any, head: nn.Module, inputs: dict[str, torch.Tensor]) -> list[nn.Module]:
    """Modules whose output is what the head reads, innermost first."""
    outputs: list[tuple[nn.Module, torch.Tensor]] = []
    read: list[torch.Tensor] = []

    with _hooked(model, head, outputs, read):
        whole_logits(model, inputs)
    return [
        module
        for module, output in outputs
        if module is not head and any(output is one or torch.equal(output, one) for one in read)
    ]


@contextmanager
def _hooked(
    model: Any,
    head: nn.Module,
    outputs: list[tuple[nn.Module, torch.Tensor]],
    read: list[torch.Tensor],
) -> Iterator[None]:
    def keep(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            outputs.append((module, output))

    handles = [
        module.register_forward_hook(keep) for module in model.modules() if module._parameters
    ]
    handles.append(head.register_forward_pre_hook(lambda _, given: read.append(given[0])))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
