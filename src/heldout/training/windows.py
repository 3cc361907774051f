"""Tokenized training windows, packed into flat arrays: five bytes a token, whatever the rows."""

from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from heldout.core.row import Row
from heldout.lm.tokenize import IGNORED, ORIGIN, tokenize_rows


class WindowDataset(torch.utils.data.Dataset):
    """Windows of all rows, in row order; an item is ``{input_ids, labels, row_index}``.

    Where rows have more than one source it has a ``source_index`` too, the place of its row's
    source among all in sorted order.
    """

    def __init__(self, rows: Iterable[Row], tokenizer: Any, max_length: int):
        ids, scored = array("i"), array("b")
        offsets, row_index, source_index = array("q", [0]), array("q"), array("q")
        numbers: dict[str, int] = {}  # of sources, as they are met
        num_tokens = num_examples = num_repeated = num_conversations = 0
        for row, tokenized in tokenize_rows(rows, tokenizer, max_length):
            num_tokens += tokenized.num_tokens
            if row.kind == "conversation":
                num_conversations += 1
                num_examples += tokenized.num_examples
                num_repeated += tokenized.num_repeated
            for window in tokenized.windows:
                ids.extend(window.input_ids)
                scored.extend(label != IGNORED for label in window.labels)
                offsets.append(len(ids))
                row_index.append(row.index)
                source_index.append(numbers.setdefault(row.source, len(numbers)))
        self.pad_id = tokenizer.pad_token_id
        self.num_tokens = num_tokens
        self.num_conversations = num_conversations
        self.num_examples = num_examples  # of the conversations
        self.num_repeated = num_repeated  # tokens of their beginnings, see TokenizedRow
        self.ids = np.frombuffer(ids, dtype=np.int32)
        self.scored = np.frombuffer(scored, dtype=np.int8).astype(bool)
        self.offsets = np.frombuffer(offsets, dtype=np.int64)
        self.row_index = np.frombuffer(row_index, dtype=np.int64)
        self.sources = sorted(numbers)
        place = {source: index for index, source in enumerate(self.sources)}
        places = np.array([place[source] for source in numbers], dtype=np.int64)
        self.source_index = places[np.frombuffer(source_index, dtype=np.int64)]

    def __len__(self) -> int:
        return len(self.row_index)

    def __getitem__(self, position: int) -> dict[str, Any]:
        span = slice(self.offsets[position], self.offsets[position + 1])
        ids = torch.from_numpy(self.ids[span].astype(np.int64))
        scored = torch.from_numpy(self.scored[span].copy())
        item = {
            "input_ids": ids,
            "labels": ids.where(scored, IGNORED),
            "row_index": int(self.row_index[position]),
        }
        if len(self.sources) > 1:
            item["source_index"] = int(self.source_index[position])
        return item

    def last_scored(self, position: int) -> int:
        """The last token of a window that is scored."""
        span = slice(self.offsets[position], self.offsets[position + 1])
        return int(self.ids[span][self.scored[span]][-1])

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each window."""
        return np.diff(self.offsets)

    @property
    def longest(self) -> int:
        """Tokens of the longest window."""
        return int(self.lengths.max())

    def collate(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Right padding; padded positions are masked and not scored."""

        def pad(key: str, value: int) -> torch.Tensor:
            return torch.nn.utils.rnn.pad_sequence(
                [item[key] for item in items], batch_first=True, padding_value=value
            )

        lengths = torch.tensor([len(item["input_ids"]) for item in items])
        input_ids = pad("input_ids", self.pad_id)
        return {
            "input_ids": input_ids,
            "attention_mask": (torch.arange(input_ids.shape[1]) < lengths[:, None]).long(),
            "labels": pad("labels", IGNORED),
            **{
                name: torch.tensor([item[name] for item in items])
                for name in ORIGIN
                if name in items[0]
            },
        }
