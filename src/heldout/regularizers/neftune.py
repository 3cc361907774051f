"""NEFTune: uniform noise on the embedded tokens while training.

Each number of a sequence's embeddings gains ``alpha / sqrt(L * d) * U(-1, 1)``, with L the true
length of that sequence and d the width. It often makes answers of instruction-tuned chat models
longer and better liked; it does not help on knowledge. L never counts padding, nor the neighbors
in a packed batch, and padding gets no noise.

The noise of a sequence follows from its tokens, the seed and the step: all passes of one step over
it see the same noise, those that other regularizers add included.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from heldout.core.regularizer import Regularizer
from heldout.lm.head import unwrapped
from heldout.lm.sequences import sequence_index, sequence_lengths, sequence_noise
from heldout.lm.weights import seed_of

SOURCE = "Jain et al. 2023, arXiv 2310.05914"
COST = "one random number per embedded value"

_STREAM = 11  # regularizers of one seed draw unrelated numbers


def neftune_noise(
    batch: Mapping[str, Any], width: int, alpha: float, seed: int, step: int
) -> torch.Tensor:
    """(B, T, width) float32: what is added to the embedded tokens of a padded or packed batch."""
    index_BT = sequence_index(batch)
    lengths_BT = sequence_lengths(index_BT)
    noise_BTD = sequence_noise(batch, width, seed, step, normal=False)
    return noise_BTD * (alpha / (lengths_BT * width).sqrt())[..., None]


@dataclass(frozen=True)
class NEFTune(Regularizer):
    """``alpha`` scales the noise; the paper's values are 5, 10 and 15."""

    STRENGTH = "alpha"

    alpha: float = 5.0
    seed: int = 0

    _now: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("alpha", "seed"):
            self.require(name, getattr(self, name) >= 0, "0 or more")

    def before_step(self, model: Any, step: int) -> None:
        self._now["step"] = step

    @contextmanager
    def attached(self, model: Any) -> Iterator[None]:
        # The embedding sees ids alone; masks and positions come with the call of the whole model.
        handles = [
            model.register_forward_pre_hook(self._begin, with_kwargs=True),
            unwrapped(model).get_input_embeddings().register_forward_hook(self._add),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._now.clear()

    def _begin(self, model: Any, arguments: tuple, named: dict[str, Any]) -> None:
        self._now["batch"] = {"input_ids": arguments[0], **named} if arguments else named

    def _add(self, embedding: Any, inputs: tuple, embedded_BTD: torch.Tensor) -> Any:
        if not embedding.training or self.strength == 0:
            return embedded_BTD
        noise_BTD = neftune_noise(
            self._now["batch"],
            embedded_BTD.shape[-1],
            self.strength,
            seed_of(self.seed, _STREAM),
            self._now["step"],
        )
        return embedded_BTD + noise_BTD.to(embedded_BTD.dtype)
