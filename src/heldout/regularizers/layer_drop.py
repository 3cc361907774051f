"""LayerDrop: whole decoder layers are skipped in training.

At each optimizer step layer l of L is skipped with probability ``share * l / L`` (stochastic depth,
which keeps the low layers that all others build on) or with ``share`` for all (LayerDrop). What a
kept layer adds is divided by its chance to stay, as dropout does, so that the whole model in
evaluation is what training expects; stochastic depth multiplies in evaluation instead, LayerDrop
does neither. Layers whose keys others share (Gemma 3n and 4) are never skipped. Skipped layers cost
no time, and shallower copies of the model work better. Small shares for a loaded model: it was not
trained to miss a layer.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Regularizer
from heldout.lm.layers import decoder_layers, forward_replaced
from heldout.lm.trial import plain_ids, trial_inputs
from heldout.lm.undisturbed import evaluation_mode
from heldout.lm.weights import seed_of

SOURCE = "Huang et al. 2016, arXiv 1603.09382; Fan et al. 2020, arXiv 1909.11556"
COST = "less than none: the skipped layers' time is saved"


def skip_chances(num_layers: int, share: float, rising: bool) -> list[float]:
    """The probability of each layer to be skipped, the lowest layer first."""
    if not rising:
        return [share] * num_layers
    return [share * (index + 1) / num_layers for index in range(num_layers)]


def drawn(chances: Sequence[float], seed: int) -> list[bool]:
    """Which layers are skipped."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.rand(len(chances), generator=generator, dtype=torch.float64)
    return [number < chance for number, chance in zip(numbers.tolist(), chances, strict=True)]


@dataclass(frozen=True)
class LayerDrop(Regularizer):
    """``share`` of layers to skip: of the topmost with ``rising``, else of each.

    ``rescale`` divides what kept layers add. The same layers are skipped in all micro-batches of a
    step and on all processes.
    """

    STRENGTH: ClassVar[str] = "share"

    share: float = 0.1
    rising: bool = True
    rescale: bool = True
    seed: int = 0

    # Index of a layer -> None to skip it, or the divisor of what it adds.
    _divisors: dict[int, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    _needed: set[int] = field(default_factory=set, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("share", 0 <= self.share < 1, "at least 0 and under 1")

    def check(self, model: Any, recipe: Recipe | None) -> None:
        layers = list(decoder_layers(model))
        seen: list[Any] = []
        handle = layers[0].register_forward_hook(lambda *arguments: seen.append(arguments[-1]))
        try:
            _run_trial(model)
        finally:
            handle.remove()
        if not isinstance(seen[0], torch.Tensor):
            raise UserError(
                f"LayerDrop: the layers of {type(model).__name__} return more than hidden states; "
                "use Dropout(hidden=...) instead."
            )
        self._needed.clear()
        self._needed.update(needed_layers(model, layers))
        if len(self._needed) == len(layers):
            raise UserError(
                f"LayerDrop: {type(model).__name__} fails without any single one of its layers; "
                "use Dropout(hidden=...) instead."
            )
        if self._needed:
            logging.getLogger("heldout").info(
                f"LayerDrop never skips layers {sorted(self._needed)}: others read what they keep."
            )

    @contextmanager
    def attached(self, model: Any) -> Iterator[None]:
        self._divisors.clear()
        with ExitStack() as stack:
            for index, layer in enumerate(decoder_layers(model)):
                replaced = partial(self._forward, index, layer, layer.forward)
                stack.enter_context(forward_replaced(layer, replaced))
            yield

    def before_step(self, model: Any, step: int) -> None:
        chances = skip_chances(len(decoder_layers(model)), self.strength, self.rising)
        skipped = drawn(chances, seed_of(self.seed, step))
        self._divisors.clear()
        for index, (is_skipped, chance) in enumerate(zip(skipped, chances, strict=True)):
            if index in self._needed:
                continue
            if is_skipped:
                self._divisors[index] = None
            elif self.rescale and chance:
                self._divisors[index] = 1 - chance

    def _forward(
        self, index: int, layer: nn.Module, forward: Callable, *args: Any, **kwargs: Any
    ) -> Any:
        if not layer.training or index not in self._divisors:
            return forward(*args, **kwargs)
        hidden = args[0] if args else kwargs["hidden_states"]
        divisor = self._divisors[index]
        if divisor is None:
            return hidden + _nothing_of(layer).to(hidden.dtype)
        return hidden + (forward(*args, **kwargs) - hidden) / divisor


def needed_layers(model: Any, layers: Sequence[nn.Module]) -> set[int]:
    """Layers without which the model fails, such as those whose keys other layers share.

    Costs one forward over two tokens for each layer.
    """
    return {index for index, layer in enumerate(layers) if not _runs_without(model, layer)}


def _runs_without(model: Any, layer: nn.Module) -> bool:
    def passed(*args: Any, **kwargs: Any) -> Any:
        return args[0] if args else kwargs["hidden_states"]

    with forward_replaced(layer, passed):
        try:
            _run_trial(model)
        except Exception:  # whatever a model's own code raises
            return False
    return True


def _run_trial(model: Any) -> None:
    ids_BT = torch.tensor([plain_ids(model, 2)])
    with torch.no_grad(), evaluation_mode(model):
        model(**trial_inputs(model, ids_BT), use_cache=False)


def _nothing_of(layer: nn.Module) -> torch.Tensor:
    """Zero, with a gradient of zero for every trained parameter.

    Other processes and the optimizer's moments then see the same as from any dropped value; DDP
    would wait for gradients that never come.
    """
    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    return sum((0.0 * parameter.flatten()[:1].sum() for parameter in trained), torch.zeros(()))
