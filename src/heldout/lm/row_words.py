"""The words of a batch's rows, by which ``noise_words`` drops: for tensors of any layout."""

# B rows, T tokens of the longest, N tokens of all rows, H heads, X things that have a word

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from heldout.lm.layout import RowLayout
from heldout.lm.noise_words import digest, place_words

_WHOLE_ROW = -1  # the place of what belongs to no token


def words_of(keys: list[int], places: list[int], device: torch.device) -> torch.Tensor:
    return place_words(torch.tensor(keys), torch.tensor(places)).to(device)


@dataclass
class RowWords:
    """The words of one layout's rows and tokens, each made once."""

    layout: RowLayout
    _held: dict[tuple[Any, ...], Any] = field(default_factory=dict)

    def of(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """(X,) for what ``tensor`` is if seen as (X, ...); None where that is not known."""
        shape, rows, longest = tensor.shape, len(self.layout.lengths), max(self.layout.lengths)
        if tensor.ndim < 2:
            return None
        if self.is_by_token(tensor) and not self._is_square(tensor, 4):
            return self._once(self._of_tokens, shape[1], tensor.device)
        if self.layout.flat:
            is_of_tokens = shape[0] == sum(self.layout.lengths)
            return self._once(self._of_tokens, shape[0], tensor.device) if is_of_tokens else None
        if self._is_square(tensor, 4) and shape[0] == rows:
            return self._once(self._of_heads, shape[1], shape[2], tensor.device)
        if self._is_square(tensor, 3) and shape[0] % rows == 0:
            return self._once(self._of_heads, shape[0] // rows, shape[1], tensor.device)
        if shape[0] % rows == 0 and shape[0] // rows >= longest:
            return self._once(self._of_tokens, shape[0] // rows, tensor.device)
        return None

    def is_by_token(self, tensor: torch.Tensor) -> bool:
        """Whether it is (B, T, ...), or (1, N, ...) where the rows are flat."""
        lengths = self.layout.lengths
        if tensor.ndim < 3:
            return False
        if self.layout.flat:
            return tensor.shape[:2] == (1, sum(lengths))
        return self.is_padded(*tensor.shape[:2])

    def is_padded(self, num_rows: int, num_tokens: int) -> bool:
        """Whether (B, T) are these sizes."""
        lengths = self.layout.lengths
        return not self.layout.flat and num_rows == len(lengths) and num_tokens >= max(lengths)

    def is_packed_attention(self, tensor: torch.Tensor) -> bool:
        """Whether it is (1, H, N, N) of rows that are flat."""
        num = sum(self.layout.lengths)
        return self.layout.flat and tensor.ndim == 4 and tensor.shape[2:] == (num, num)

    @staticmethod
    def of_nothing(device: torch.device) -> torch.Tensor:
        """(1,) where no rows are known."""
        return words_of([0], [_WHOLE_ROW], device)

    def of_batch(self, device: torch.device) -> torch.Tensor:
        """(1,) of all rows together."""
        return self._once(self._of_batch, device)

    def of_rows(self, device: torch.device) -> torch.Tensor:
        """(B,) of each row as a whole."""
        return self._once(self._of_rows, device)

    def _is_square(self, tensor: torch.Tensor, ndim: int) -> bool:
        """Whether it may be attention weights of the rows, as they lie padded."""
        is_square = tensor.ndim == ndim and tensor.shape[-1] == tensor.shape[-2]
        return is_square and not self.layout.flat and tensor.shape[-1] >= max(self.layout.lengths)

    def _once(self, make: Callable[..., Any], *sizes: Any) -> Any:
        place = (make.__name__, *sizes)
        if place not in self._held:
            self._held[place] = make(*sizes)
        return self._held[place]

    def of_run(self, first: int, count: int) -> "RowWords":
        """Those of neighboring rows of one length, as a batch of their own."""
        return self._once(self._of_run, first, count)

    def _of_run(self, first: int, count: int) -> "RowWords":
        part = slice(first, first + count)
        lengths, keys = self.layout.lengths[part], self.layout.keys[part]
        return RowWords(replace(self.layout, lengths=lengths, keys=keys, flat=False))

    def _of_batch(self, device: torch.device) -> torch.Tensor:
        return words_of([digest(self.layout.keys)], [_WHOLE_ROW], device)

    def _of_rows(self, device: torch.device) -> torch.Tensor:
        keys = list(self.layout.keys)
        return words_of(keys, [_WHOLE_ROW] * len(keys), device)

    def _of_tokens(self, num: int, device: torch.device) -> torch.Tensor:
        """Of ``num`` in each row that is padded, or in all that are flat."""
        lengths_B = torch.tensor(self.layout.lengths)
        if not self.layout.flat:
            lengths_B = torch.full_like(lengths_B, num)
        keys_X = torch.tensor(self.layout.keys).repeat_interleave(lengths_B)
        begins_X = (lengths_B.cumsum(0) - lengths_B).repeat_interleave(lengths_B)
        return place_words(keys_X, torch.arange(len(keys_X)) - begins_X).to(device)

    def _of_heads(self, num_heads: int, num: int, device: torch.device) -> torch.Tensor:
        """Of the query of each head: (B, H, T), flattened."""
        tokens_BT = self._once(self._of_tokens, num, device).view(-1, num)
        heads_H = words_of([0] * num_heads, list(range(num_heads)), device)
        return (tokens_BT[:, None] + heads_H[:, None]).flatten()
