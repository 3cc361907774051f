"""Whether short texts are as near as the kept half of their pieces says."""

# R texts, T letters of all texts one after another

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from heldout.core.characters import letters
from heldout.data.likeness import least_similarity
from heldout.data.pieces import PIECE, letter_pieces, without_marks

_PAIRS_AT_ONCE = 5000


@dataclass(frozen=True)
class _ShortText:
    digits: bytes
    letters: bytes
    is_alone: bool  # whether some of it is of a script without spaces
    pieces: set[int]  # all, not the kept half

    def is_copy(self, other: "_ShortText", threshold: float) -> bool:
        if self.digits != other.digits:
            return False
        if self.is_alone or other.is_alone:
            return True
        if not self.pieces or not other.pieces:
            return self.letters == other.letters
        shared = len(self.pieces & other.pieces)
        sizes = len(self.pieces), len(other.pieces)
        least = least_similarity(min(sizes) / 2, threshold)
        return shared / (sum(sizes) - shared) >= least


def are_short_copies(
    text_of: Callable[[int], str], firsts: Sequence[int], seconds: Sequence[int], threshold: float
) -> list[bool]:
    """Of each pair of short texts, which ``text_of`` reads.

    All pieces are compared, since half of them may hold nothing of the one letter that tells two
    texts apart; and their numbers must be the same. Scripts without spaces keep all anyway.
    """
    found: list[bool] = []
    for at in range(0, len(firsts), _PAIRS_AT_ONCE):
        some = slice(at, at + _PAIRS_AT_ONCE)
        places = sorted({*firsts[some], *seconds[some]})
        texts = _short_texts([text_of(place) for place in places])
        known = dict(zip(places, texts, strict=True))
        pairs = zip(firsts[some], seconds[some], strict=True)
        found += [known[a].is_copy(known[b], threshold) for a, b in pairs]
    return found


def _short_texts(texts: list[str]) -> list[_ShortText]:
    points_T, alone_T, ends_R = letters([without_marks(text) for text in texts])
    digit_T = (points_T >= ord("0")) & (points_T <= ord("9"))
    hashes = letter_pieces(points_T)
    found = []
    start = 0
    for stop in ends_R.tolist():
        own = points_T[start:stop]
        found.append(
            _ShortText(
                own[digit_T[start:stop]].tobytes(),
                own.tobytes(),
                bool(alone_T[start:stop].any()),
                set(hashes[start : max(start, stop - PIECE + 1)].tolist()),
            )
        )
        start = stop
    return found
