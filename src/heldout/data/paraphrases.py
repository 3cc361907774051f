"""Rows that say the same in other words, from embeddings; what counts is told by a control.

Two rows are a paraphrase where they lie closer to one another than the rows around each of them,
by more than two training rows that have nothing to do with one another do. The rows around a row
are its nearest training rows but one; this margin instead of the similarity itself is that of
Artetxe and Schwenk 2019 (arXiv 1811.01136). Where all rows are of one subject, all similarities
are high, and so is what the rows around say.
"""

# Q rows that are asked for, N training rows, E width

from dataclasses import dataclass

import numpy as np

NEAREST = 5  # training rows of each row: the first may be a paraphrase, the others are around it
DEVIATIONS = 3.5  # robust standard deviations of the control's margins, above their median
LEAST_CONTROL = 30  # training rows, to tell what is usual
MOST_CONTROL = 2000  # training rows that tell it
_LEAST_DEVIATION = 1e-3  # of a cosine
_BLOCK = 1024  # rows that are compared at once with _BLOCK_TRAIN training rows
_BLOCK_TRAIN = 16_384


@dataclass(frozen=True)
class Paraphrases:
    """Pairs with their cosine, and the control: margins of training rows known to be unrelated."""

    pairs: list[tuple[int, int, float]]  # places: a training row, the other row
    least_margin: float
    control_share: float  # of the control rows that lie beyond it
    num_control: int


def paraphrases(
    embedded_RE: np.ndarray,
    train: np.ndarray,
    asked: np.ndarray,
    known_R: np.ndarray,
) -> Paraphrases | None:
    """Pairs of a training row and one that is ``asked`` for, both places among the R rows.

    Rows with the same number in ``known_R`` are known to belong together: such pairs are not
    told, and are no control. None where there are too few training rows for a control.

    Memory: ``embedded_RE``, which may lie in a file, and a block of 1,024 by 16,384 similarities.
    Cost: one product of a row's embedding with each training row's, for each row that is asked
    for, for 2,000 training rows and for those that are nearest to any of these.
    """
    if len(train) < max(LEAST_CONTROL, NEAREST + 1):
        return None
    step = max(1, -(-len(train) // MOST_CONTROL))
    control = train[::step]
    found = _Neighbors(embedded_RE, train, known_R)
    margins = [found.margins(rows) for rows in (control, asked)]
    of_control = margins[0][1][:, 0]
    of_control = of_control[np.isfinite(of_control)]
    if len(of_control) < LEAST_CONTROL:
        return None
    middle = float(np.median(of_control))
    spread = max(_LEAST_DEVIATION, 1.4826 * float(np.median(np.abs(of_control - middle))))
    least = middle + DEVIATIONS * spread
    near_QK, margin_QK, cosine_QK = margins[1]
    pairs = {
        (int(near_QK[row, rank]), int(asked[row])): float(cosine_QK[row, rank])
        for row, rank in np.argwhere(margin_QK > least).tolist()
    }
    ordered = [(a, b, cosine) for (a, b), cosine in sorted(pairs.items())]
    return Paraphrases(ordered, least, float((of_control > least).mean()), len(of_control))


class _Neighbors:
    """The nearest training rows of rows, each looked for once."""

    def __init__(self, embedded_RE: np.ndarray, train: np.ndarray, known_R: np.ndarray):
        self.embedded, self.train, self.known = embedded_RE, train, known_R
        self.around: dict[int, float] = {}

    def margins(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(Q, K) each: the nearest training rows, the margins to them, and the cosines."""
        near_QK, cosine_QK = self._nearest(rows)
        others = np.unique(near_QK[np.isfinite(cosine_QK)])
        missing = np.array([row for row in others.tolist() if row not in self.around], dtype=int)
        for start in range(0, len(missing), _BLOCK):
            self._nearest(missing[start : start + _BLOCK])
        around_Q = np.array([self.around[row] for row in rows.tolist()])
        around_QK = np.array([[self.around.get(r, np.inf) for r in of] for of in near_QK.tolist()])
        with np.errstate(invalid="ignore"):
            margin_QK = cosine_QK - (around_Q[:, None] + around_QK) / 2
        return near_QK, np.where(np.isnan(margin_QK), -np.inf, margin_QK), cosine_QK

    def _nearest(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        near = np.zeros((len(rows), NEAREST), dtype=np.int64)
        cosine = np.full((len(rows), NEAREST), -np.inf, dtype=np.float32)
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            own = np.asarray(self.embedded[block])
            best, places = cosine[start : start + _BLOCK], near[start : start + _BLOCK]
            for first in range(0, len(self.train), _BLOCK_TRAIN):
                among = self.train[first : first + _BLOCK_TRAIN]
                similar = own @ np.asarray(self.embedded[among]).T
                similar[self.known[block][:, None] == self.known[among][None]] = -np.inf
                both = np.concatenate([best, similar], axis=1)
                number = np.concatenate([places, np.broadcast_to(among, similar.shape)], axis=1)
                kept = np.argpartition(-both, NEAREST - 1, axis=1)[:, :NEAREST]
                kept = np.take_along_axis(
                    kept, np.argsort(-np.take_along_axis(both, kept, 1), 1, kind="stable"), 1
                )
                best[:] = np.take_along_axis(both, kept, 1)
                places[:] = np.take_along_axis(number, kept, 1)
        around = cosine[:, 1:].mean(axis=1)
        around[np.isneginf(around)] = np.inf  # too few unrelated rows to say: nothing is near
        self.around.update(zip(rows.tolist(), around.tolist(), strict=True))
        return near, cosine
