"""Which tokens of a batch belong together: padded batches and packed ones alike."""

# B batch, T tokens, S sequences

from collections.abc import Mapping
from typing import Any

import torch

from heldout.lm.layout import current_layout, digest_of, row_keys
from heldout.lm.weights import seed_of


def sequence_index(batch: Mapping[str, Any]) -> torch.Tensor:
    """(B, T): the number of the sequence that each token belongs to, from 0; -1 for padding.

    A row of a padded batch is one sequence. In a packed batch a sequence begins where
    ``position_ids`` goes back to 0.
    """
    ids_BT = batch["input_ids"]
    positions_BT = batch.get("position_ids")
    starts_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
    starts_BT[:, 0] = True
    if positions_BT is not None:
        starts_BT |= positions_BT.expand_as(ids_BT) == 0
    index_BT = starts_BT.flatten().cumsum(0).view_as(ids_BT) - 1
    mask_BT = batch.get("attention_mask")
    if mask_BT is not None and mask_BT.shape == ids_BT.shape:
        if positions_BT is not None:
            starts_BT &= mask_BT.bool()
            index_BT = starts_BT.flatten().cumsum(0).view_as(ids_BT) - 1
        index_BT = index_BT.masked_fill(mask_BT == 0, -1)
    return index_BT


def sequence_lengths(index_BT: torch.Tensor) -> torch.Tensor:
    """(B, T): at each token the length of its whole sequence, padding not counted.

    Padding itself has the length of the first sequence.
    """
    lengths_S = torch.bincount(index_BT[index_BT >= 0])
    return lengths_S[index_BT.clamp(min=0)]


def typical_norms(index_BT: torch.Tensor, width: int, scale: float) -> torch.Tensor:
    """(B, T, 1): at each token the Euclidean norm that its whole sequence has if embedded.

    ``scale`` is the root mean square of an embedded number.
    """
    return scale * (sequence_lengths(index_BT)[..., None] * width).sqrt()


def sequence_norms(
    values_BTD: torch.Tensor, index_BT: torch.Tensor, *, largest: bool = False
) -> torch.Tensor:
    """(B, T, 1): at each token the Euclidean norm of its whole sequence; 0 on padding.

    With ``largest`` it is the largest absolute value.
    """
    values_BTD = values_BTD.masked_fill((index_BT < 0)[..., None], 0.0)
    number_BT = index_BT + 1  # padding is sequence 0
    norms_S = values_BTD.new_zeros(int(number_BT.max()) + 1)
    if largest:
        norms_S.scatter_reduce_(0, number_BT.flatten(), values_BTD.abs().amax(-1).flatten(), "amax")
    else:
        norms_S.index_add_(0, number_BT.flatten(), values_BTD.square().sum(-1).flatten()).sqrt_()
    return norms_S[number_BT][..., None]


def sequence_noise(
    batch: Mapping[str, Any], width: int, seed: int, step: int, *, normal: bool
) -> torch.Tensor:
    """(B, T, width) float32: standard normal numbers, or uniform ones in [-1, 1); 0 on padding.

    Drawn per sequence from its tokens, its ``row_index``, ``seed`` and ``step``, so that a sequence
    gets the same noise however the batch is cut into micro-batches and processes, padded or packed.
    """
    index_BT = sequence_index(batch)
    ids_BT = batch["input_ids"]
    device = ids_BT.device
    noise_BTD = torch.zeros(*ids_BT.shape, width, device=device)
    noise_flat, ids_flat = noise_BTD.view(-1, width), ids_BT.flatten().long().cpu()
    numbers, counts = index_BT.flatten().cpu().unique_consecutive(return_counts=True)
    ends = counts.cumsum(0)
    parts = [
        slice(end - count, end)
        for number, count, end in zip(numbers.tolist(), counts.tolist(), ends.tolist(), strict=True)
        if number >= 0
    ]
    keys = _keys([digest_of(ids_flat[part]) for part in parts], batch.get("row_index"))
    for part, key in zip(parts, keys, strict=True):
        generator = torch.Generator(device).manual_seed(seed_of(seed, step, key))
        if normal:
            noise_flat[part].normal_(generator=generator)
        else:
            noise_flat[part].uniform_(-1.0, 1.0, generator=generator)
    return noise_BTD


def _keys(digests: list[int], row_index: torch.Tensor | None) -> tuple[int, ...]:
    """Those of the batch that a model runs on now, if it has these tokens."""
    known = current_layout()
    if row_index is None and known is not None and list(known.digests) == digests:
        return known.keys
    return row_keys(digests, row_index)
