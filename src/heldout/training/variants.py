"""Training windows that are made anew in every epoch, from augmented rows."""

from collections.abc import Sequence
from typing import Any

import torch

from heldout.core.augmentation import NO_FACTS, Augmentation, KeyFacts, draw_of, rows_of_epoch
from heldout.core.row import Row
from heldout.lm.tokenize import IGNORED
from heldout.training.windows import WindowDataset


class AugmentedWindows(WindowDataset):
    """Windows of this epoch's variants; ``set_epoch`` makes them, before loader workers start.

    An epoch has as many items as the first one had windows, so that steps can be counted ahead.
    Where variants have more windows, some items hold two, and a batch more rows than items; where
    they have fewer, the first come twice.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        tokenizer: Any,
        max_length: int,
        augmentations: Sequence[Augmentation],
        *,
        seed: int,
        planned_epochs: float,
        facts: KeyFacts = NO_FACTS,
    ):
        self.rows = list(rows)
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.augmentations = list(augmentations)
        self.seed = seed
        self.planned_epochs = planned_epochs
        self.facts = facts
        self.special_ids = frozenset(tokenizer.all_special_ids)
        self.num_items = 0
        self.set_epoch(0)
        self.num_items = self.num_windows

    def set_epoch(self, epoch: int) -> None:
        """Make the windows of this epoch, counted from 0."""
        self.epoch = epoch
        for augmentation in self.augmentations:
            augmentation.set_progress(min(1.0, epoch / self.planned_epochs))
        rows = rows_of_epoch(
            self.rows, self.augmentations, seed=self.seed, epoch=epoch, facts=self.facts
        )
        self.is_text = {row.index for row in rows if row.kind == "text"}
        super().__init__(rows, self.tokenizer, self.max_length)

    @property
    def num_windows(self) -> int:
        """Windows of this epoch, as many as they are."""
        return super().__len__()

    def __len__(self) -> int:
        return self.num_items or self.num_windows

    def __getitem__(self, position: int) -> Any:
        """The windows of this place: one, or a list of several."""
        places = range(position, self.num_windows, len(self)) or [position % self.num_windows]
        items = [self._window(place) for place in places]
        return items if len(items) > 1 else items[0]

    def _window(self, place: int) -> dict[str, Any]:
        item = super().__getitem__(place)
        number = 0  # of the window in its row
        while place > number and self.row_index[place - number - 1] == item["row_index"]:
            number += 1
        for augmentation in self.augmentations:
            if augmentation.inputs is None or augmentation.is_off:
                continue
            draw = draw_of(augmentation, self.seed, self.epoch, f"{item['row_index']} {number}")
            if draw is not None:
                ids, scored = item["input_ids"].tolist(), item["labels"] != IGNORED
                places = self._open_places(augmentation, ids, scored.tolist(), item["row_index"])
                changed = augmentation.inputs(ids, places, draw, self.tokenizer)
                item["input_ids"] = torch.tensor(changed)
        return item

    def _open_places(
        self, augmentation: Augmentation, ids: list[int], scored: list[bool], row_index: int
    ) -> list[int]:
        """Tokens that may be read otherwise: no special ones, no key facts, and in its part."""
        is_text = row_index in self.is_text
        places = [
            place
            for place, (token, is_answer) in enumerate(zip(ids, scored, strict=True))
            if token not in self.special_ids
            and (is_text or augmentation.where in ("both", "answer" if is_answer else "prompt"))
        ]
        if not self.facts.patterns:
            return places
        # Tokens may end inside a character, which then belongs to each token that has a part of it.
        before = [self.tokenizer.decode(ids[:end]) for end in range(len(ids) + 1)]
        begins = [len(text.rstrip("\ufffd")) for text in before]
        ends = [begin + text.endswith("\ufffd") for begin, text in zip(begins, before, strict=True)]
        spans = self.facts.spans(self.tokenizer.decode(ids))
        return [
            place
            for place in places
            if not any(begins[place] < stop and start < ends[place + 1] for start, stop in spans)
        ]

    def collate(self, items: list[Any]) -> dict[str, torch.Tensor]:
        return super().collate(
            [window for item in items for window in (item if isinstance(item, list) else [item])]
        )
