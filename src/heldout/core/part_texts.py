"""What a part's rows say, as plain text: what a model is trained to write, not what it is asked."""

# D documents

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from heldout.core.row import Row, learned_texts


@dataclass(frozen=True)
class PartTexts:
    """Texts of a sample of the rows of one part, with the groups that intervals resample."""

    texts: list[str]
    groups_D: np.ndarray
    row_index_D: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    @classmethod
    def of(cls, rows: Iterable[Row]) -> "PartTexts":
        """The text, completion or answers of each row; prompts and questions are left out."""
        kept = list(rows)
        return cls(
            ["\n".join(learned_texts(row)) for row in kept],
            np.array([row.group for row in kept], dtype=str),
            np.array([row.index for row in kept], dtype=np.int64),
        )
