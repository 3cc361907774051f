"""How the rows of a batch lie in what a model's layers compute.

Kept after a call, since gradient checkpointing computes layers again in the backward, maybe on
another thread.
"""

# B rows, T tokens, N tokens of all rows

import itertools
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from heldout.lm.tokenize import IGNORED, ORIGIN
from heldout.lm.weights import seed_of


@dataclass(frozen=True)
class RowLayout:
    """The rows of one batch: their lengths, and whether their tokens lie padded or flat."""

    lengths: tuple[int, ...]  # tokens of each row, padding not counted
    keys: tuple[int, ...]  # a number below 2**63 for each row, by which its noise is drawn
    flat: bool  # rows one behind the other (1, N), else padded (B, T)
    digests: tuple[int, ...] = ()  # of each row's tokens alone


_newest: RowLayout | None = None


def current_layout() -> RowLayout | None:
    """That of the newest batch that a model was called with; None before the first."""
    return _newest


def set_layout(layout: RowLayout) -> None:
    """Make it the current one."""
    global _newest
    _newest = layout


def padded_layout(batch: Mapping[str, Any]) -> RowLayout:
    """That of ``input_ids`` (B, T) with its ``attention_mask``, as they are.

    The rows of a batch of one row with ``position_ids`` begin where these go back to 0, and lie
    flat. A mask that pads elsewhere than on the right counts as none.
    """
    ids_BT, row_index = batch["input_ids"].long().cpu(), batch.get("row_index")
    positions_BT, mask_BT = batch.get("position_ids"), batch.get("attention_mask")
    if positions_BT is not None and len(ids_BT) == 1 and positions_BT.shape == ids_BT.shape:
        starts = (positions_BT[0].cpu() == 0).nonzero()[:, 0].tolist()
        bounds = [*starts, ids_BT.shape[1]] if starts[:1] == [0] else [0, *starts, ids_BT.shape[1]]
        lengths = [stop - start for start, stop in itertools.pairwise(bounds)]
        return layout_of(list(ids_BT[0].split(lengths)), flat=True, row_index=row_index)
    lengths = [ids_BT.shape[1]] * len(ids_BT)
    if mask_BT is not None and mask_BT.shape == ids_BT.shape:
        lengths = right_padded_lengths(mask_BT) or lengths
    rows = [row[:length] for row, length in zip(ids_BT, lengths, strict=True)]
    return layout_of(rows, row_index=row_index)


def layout_of(
    rows: list[torch.Tensor], *, flat: bool = False, row_index: torch.Tensor | None = None
) -> RowLayout:
    """That of rows of token ids on the CPU, each (T,) without padding.

    ``row_index`` (B,) tells rows of equal tokens apart wherever they lie.
    """
    digests = tuple(digest_of(row) for row in rows)
    lengths = tuple(len(row) for row in rows)
    return RowLayout(lengths, row_keys(digests, row_index), flat, digests)


def digest_of(ids_T: torch.Tensor) -> int:
    """A number from the tokens (int64, on the CPU) of one row."""
    return zlib.crc32(ids_T.contiguous().numpy().tobytes())


def row_keys(digests: Sequence[int], row_index: torch.Tensor | None) -> tuple[int, ...]:
    """A number for each row from its tokens, its index in the data, and, of equals, its place.

    Below 2**63, as tensors hold them, however many rows are equal.
    ``row_index`` counts as none unless there is one for each row.
    """
    origins = [] if row_index is None else row_index.tolist()
    if len(origins) != len(digests):
        origins = [0] * len(digests)
    met: Counter[tuple[int, int]] = Counter()
    keys = []
    for row in zip(digests, origins, strict=True):
        keys.append(seed_of(row[0], row[1], met[row]))
        met[row] += 1
    return tuple(keys)


def right_padded_lengths(mask_BT: torch.Tensor) -> list[int] | None:
    """Tokens of each row; None unless the mask is ones and then zeros in every row."""
    mask_BT = mask_BT.cpu() != 0
    lengths_B = mask_BT.sum(1)
    expected_BT = torch.arange(mask_BT.shape[1]) < lengths_B[:, None]
    return lengths_B.tolist() if torch.equal(mask_BT, expected_BT) else None


def flat_layout(batch: Mapping[str, Any]) -> RowLayout | None:
    """That of the batch's rows one behind the other, where that leaves out padding, else None.

    Also None where the batch holds more than ids, mask and labels, or is padded elsewhere.
    """
    ids_BT, mask_BT = batch["input_ids"], batch.get("attention_mask")
    others = set(batch) - {"input_ids", "attention_mask", "labels", *ORIGIN}
    if others or mask_BT is None or mask_BT.shape != ids_BT.shape or bool(mask_BT.all()):
        return None
    lengths = right_padded_lengths(mask_BT)
    if lengths is None or not all(lengths):
        return None
    ids_BT = ids_BT.long().cpu()
    rows = [row[:length] for row, length in zip(ids_BT, lengths, strict=True)]
    return layout_of(rows, flat=True, row_index=batch.get("row_index"))


def laid_out(values: torch.Tensor, layout: RowLayout | None) -> torch.Tensor:
    """Values of a padded batch, (B, T, ...), as the layout has them; flat ones as they are."""
    if layout is None or not layout.flat or len(values) != len(layout.lengths):
        return values
    if values.shape[:2] == (1, sum(layout.lengths)):
        return values
    return torch.cat([row[:n] for row, n in zip(values, layout.lengths, strict=True)])[None]


def flat_labels(labels_BT: torch.Tensor, layout: RowLayout) -> torch.Tensor:
    """(1, N): no row's first token is scored, since what stands before it is another row's."""
    labels_BT = labels_BT.clone()
    labels_BT[:, 0] = IGNORED
    return laid_out(labels_BT, layout)


def flat_positions(layout: RowLayout) -> torch.Tensor:
    """(1, N): the place of each token in its row."""
    return torch.cat([torch.arange(length) for length in layout.lengths])[None]
