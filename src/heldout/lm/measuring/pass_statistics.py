"""All that one forward pass over a text tells: loss, suffixes, confidence, membership scores.

The logits of a block of tokens are at hand once; whatever probes need of them is reduced to a few
numbers a token there, and to a few numbers a document when all its windows are through.
"""

# D documents, n tokens of a block, V vocabulary, t tokens of one document

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from heldout.core.pass_statistics import (
    CONFIDENCE_BINS,
    LONG_SUFFIX,
    POSITION_EDGES,
    SHORT_SUFFIX,
    PassStatistics,
    Suffixes,
)
from heldout.core.row import Row, learned_texts
from heldout.core.token_size import ENGLISH_TOKENS, TokenSize
from heldout.lm.logit_blocks import scored_statistics
from heldout.lm.nll import GrowingLosses, check_finite, evaluating, model_inputs
from heldout.lm.window_stream import buffers

SUFFIXES = {"short": SHORT_SUFFIX, "long": LONG_SUFFIX}  # of scored tokens
LOWEST_SHARE = 0.2  # of a text's tokens, for Min-K%
LEAST_DEVIATION = 1e-3  # nats; a distribution narrower than rounding tells nothing

STATISTICS = ("nats", "top", "right", "entropy", "brier", "surprise")


def token_statistics(logits_nV: torch.Tensor, targets_n: torch.Tensor) -> torch.Tensor:
    """Of each token (n, 6), in the order of ``STATISTICS``.

    Negative log-probability in nats; probability of the likeliest token; whether that is the
    target (0 or 1, the first one where several are equally likely); entropy in nats; squared error
    over the vocabulary; and (log p - mean) / deviation of log p under the prediction itself, which
    is Min-K%++'s score. Beyond a cross-entropy it costs one exponential and five reductions.
    """
    log_p_nV = logits_nV.log_softmax(dim=1)
    index_n1 = targets_n[:, None]
    log_p_n = log_p_nV.gather(1, index_n1)[:, 0]
    top_n = log_p_nV.amax(dim=1)
    right_n = log_p_n >= top_n
    if right_n.any():  # an argmax costs as much as all else, so only where it can be the target
        right_n[right_n.clone()] = log_p_nV[right_n].argmax(dim=1) == targets_n[right_n]
    p_nV = log_p_nV.exp()
    brier_n = torch.linalg.vecdot(p_nV, p_nV) - 2 * log_p_n.exp() + 1
    weighted_nV = p_nV.mul_(log_p_nV)
    # Where p is 0, p times log p is too, even if log p is minus infinity.
    weighted_nV = weighted_nV if torch.isfinite(log_p_nV.amin()) else weighted_nV.nan_to_num_(0.0)
    mean_n = weighted_nV.sum(dim=1)
    variance_n = torch.linalg.vecdot(weighted_nV, log_p_nV.clamp_(min=-1e4)) - mean_n**2
    deviation_n = variance_n.clamp(min=0).sqrt().clamp(min=LEAST_DEVIATION)
    return torch.stack(
        [
            -log_p_n,
            top_n.exp(),
            right_n.to(log_p_n.dtype),
            -mean_n,
            brier_n,
            (log_p_n - mean_n) / deviation_n,
        ],
        dim=1,
    )


def pass_statistics(
    model: torch.nn.Module,
    rows: Iterable[Row],
    tokenizer: Any,
    *,
    max_length: int,
    batch_size: int,
    size: TokenSize = ENGLISH_TOKENS,
    progress: Callable[[int], None] | None = None,
) -> PassStatistics:
    """Losses of each row, as ``document_losses`` measures them, and all else of ``PassStatistics``.

    Suffixes hold as much text as ``SUFFIXES`` do under a tokenizer of English: ``size`` says how
    much a token holds, and must be the same for all parts and models that are compared.

    One pass, streamed: memory holds one buffer of windows, one chunk of logits and a few kilobytes
    per row. Costs up to a fifth more than ``document_losses``. A row's tokens are counted through
    all its windows; rows without scored tokens have NaN where a mean over tokens is asked for.

    Raises TrainingDiverged, a UserError, naming the first row whose loss is not finite.
    """
    device = next(model.parameters()).device
    losses = GrowingLosses()
    suffixes = suffix_lengths(size)
    indices: list[int] = []
    documents: list[_Document] = []
    with evaluating(model):
        for buffer in buffers(rows, tokenizer, max_length=max_length, batch_size=batch_size):
            tokens = [np.empty((t.num_tokens, len(STATISTICS))) for t in buffer.tokenized]
            for batch in buffer.batches(batch_size):
                inputs = model_inputs(model, [p.window for p in batch], tokenizer, device)
                found, _ = scored_statistics(model, inputs, token_statistics)
                found_NK = found.cpu().numpy()
                start = 0
                for piece in batch:  # scored tokens come window by window
                    stop = start + piece.window.num_scored
                    check_finite(float(found_NK[start:stop, 0].sum()), buffer.rows[piece.row])
                    place = slice(piece.first_token, piece.first_token + stop - start)
                    tokens[piece.row][place] = found_NK[start:stop]
                    start = stop
            losses.add(buffer, [float(found_tK[:, 0].sum()) for found_tK in tokens])
            for row, found_tK in zip(buffer.rows, tokens, strict=True):
                indices.append(row.index)
                by_name = dict(zip(STATISTICS, found_tK.T, strict=True))
                documents.append(_document(row, by_name, suffixes))
            if progress:
                progress(len(losses))
    return _joined(losses, indices, documents, suffixes)


def suffix_lengths(size: TokenSize) -> dict[str, tuple[int, int]]:
    """Prefix and suffix by name, in tokens of that size."""
    return {
        name: (size.tokens(prefix), size.tokens(suffix))
        for name, (prefix, suffix) in SUFFIXES.items()
    }


@dataclass(frozen=True)
class _Document:
    suffixes: dict[str, tuple[float, bool]]
    zlib_bytes: int
    min_k: float
    min_k_plus: float
    entropy: float
    brier: float
    bins: np.ndarray  # (3, C) tokens, confidence, correct
    positions: np.ndarray  # (2, P) nats, tokens


def _document(
    row: Row, found: Mapping[str, np.ndarray], suffixes: Mapping[str, tuple[int, int]]
) -> _Document:
    nats_t, top_t, right_t = found["nats"], found["top"], found["right"]
    bin_t = np.minimum((top_t * CONFIDENCE_BINS).astype(int), CONFIDENCE_BINS - 1)
    position_t = np.searchsorted(POSITION_EDGES, np.arange(len(nats_t)), side="right") - 1
    return _Document(
        suffixes={
            name: suffix_nats_of(nats_t, right_t, *lengths) for name, lengths in suffixes.items()
        },
        zlib_bytes=len(zlib.compress(scored_text(row).encode("utf-8", "surrogatepass"))),
        min_k=lowest_mean(-nats_t),
        min_k_plus=lowest_mean(found["surprise"]),
        entropy=float(found["entropy"].sum()),
        brier=float(found["brier"].sum()),
        bins=np.stack(
            [
                np.bincount(bin_t, weights, CONFIDENCE_BINS).astype(np.float32)
                for weights in (None, top_t, right_t)
            ]
        ),
        positions=np.stack(
            [
                np.bincount(position_t, weights, len(POSITION_EDGES)).astype(float)
                for weights in (nats_t, None)
            ]
        ),
    )


def suffix_nats_of(
    nats_t: np.ndarray, right_t: np.ndarray, prefix_tokens: int, suffix_tokens: int
) -> tuple[float, bool]:
    """Nats of the suffix, and whether greedy decoding returns it; NaN where too short to tell."""
    end = prefix_tokens + suffix_tokens
    if len(nats_t) < end:
        return float("nan"), False
    return float(nats_t[prefix_tokens:end].sum()), bool(right_t[prefix_tokens:end].all())


def lowest_mean(scores_t: np.ndarray, share: float = LOWEST_SHARE) -> float:
    """Mean of the lowest ``share`` of the scores, at least one of them; NaN of none."""
    if not len(scores_t):
        return float("nan")
    count = max(1, int(share * len(scores_t)))
    return float(np.partition(scores_t, count - 1)[:count].mean())


def scored_text(row: Row) -> str:
    """What of a row the loss counts, as text."""
    return "\n".join(learned_texts(row))


def _joined(
    losses: GrowingLosses,
    indices: list[int],
    documents: list[_Document],
    suffixes: Mapping[str, tuple[int, int]],
) -> PassStatistics:
    bins_D3C = _stacked([d.bins for d in documents], (3, CONFIDENCE_BINS))
    positions_D2P = _stacked([d.positions for d in documents], (2, len(POSITION_EDGES)))
    return PassStatistics(
        losses=losses.finish(),
        row_index_D=np.array(indices, dtype=int),
        suffixes={
            name: Suffixes(
                *lengths,
                np.array([d.suffixes[name][0] for d in documents], dtype=float),
                np.array([d.suffixes[name][1] for d in documents], dtype=bool),
            )
            for name, lengths in suffixes.items()
        },
        zlib_bytes_D=np.array([d.zlib_bytes for d in documents], dtype=int),
        min_k_D=np.array([d.min_k for d in documents], dtype=float),
        min_k_plus_D=np.array([d.min_k_plus for d in documents], dtype=float),
        entropy_nats_D=np.array([d.entropy for d in documents], dtype=float),
        brier_D=np.array([d.brier for d in documents], dtype=float),
        bin_tokens_DC=bins_D3C[:, 0],
        bin_confidence_DC=bins_D3C[:, 1],
        bin_correct_DC=bins_D3C[:, 2],
        position_nats_DP=positions_D2P[:, 0],
        position_tokens_DP=positions_D2P[:, 1],
    )


def _stacked(arrays: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    return np.stack(arrays) if arrays else np.zeros((0, *shape))
