"""What a run has measured already, found again by the weights and the tokens that it was read with.

A diagnosis of a run reads the rows that its sealed test was read on. Nothing is taken for the same
by its name: a model that was trained on since, or another sample, is measured anew.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from heldout.core.pass_statistics import Generations, PassStatistics
from heldout.core.recipe import Recipe
from heldout.core.row import Row
from heldout.core.run import Run
from heldout.core.token_size import TokenSize
from heldout.jobs.evidence.model_on_part import max_length_of, writing_options
from heldout.jobs.evidence.saved import (
    key_of_generations,
    key_of_statistics,
    load_generations,
    load_statistics,
)
from heldout.lm.load import LoadedModel
from heldout.lm.measuring.pass_statistics import STATISTICS, scored_text, suffix_lengths
from heldout.lm.tokenize import tokenize_rows


@dataclass(frozen=True)
class Kept:
    """Files of a run by the key of what is in them; empty where there is no run."""

    statistics: Mapping[str, Path] = field(default_factory=dict)
    generations: Mapping[str, Path] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run) -> "Kept":
        folder = run.path("evaluations")
        statistics = {key_of_statistics(path): path for path in folder.glob("*-readings.npz")}
        written = {key_of_generations(path): path for path in folder.glob("*-generations.json")}
        for of_older_versions in (statistics, written):
            of_older_versions.pop("", None)
        return cls(statistics, written)

    def __bool__(self) -> bool:
        return bool(self.statistics or self.generations)

    def read(self, keys: "Keys", rows: Sequence[Row]) -> PassStatistics | None:
        """What a pass over the rows told; None where the run has not read them so."""
        path = self.statistics.get(keys.of_reading(rows)) if self.statistics else None
        return None if path is None else load_statistics(path)

    def written(self, keys: "Keys", rows: Sequence[Row]) -> Generations | None:
        """What the model wrote behind the beginnings of the rows."""
        path = self.generations.get(keys.of_writing(rows)) if self.generations else None
        return None if path is None else load_generations(path)


class Keys:
    """Of what one model reads and writes: equal only where weights, tokens and rows are."""

    def __init__(self, loaded: LoadedModel, recipe: Recipe, size: TokenSize) -> None:
        self._loaded, self._recipe, self._size = loaded, recipe, size
        self._weights = weights_digest(loaded.model)

    def of_reading(self, rows: Sequence[Row]) -> str:
        """Costs the tokens of the rows, which a pass needs too."""
        found = hashlib.sha256(self._weights)
        about = [STATISTICS, suffix_lengths(self._size)]
        found.update(json.dumps(about, sort_keys=True).encode())
        max_length = max_length_of(self._loaded, self._recipe)
        for row, tokenized in tokenize_rows(rows, self._loaded.tokenizer, max_length):
            found.update(json.dumps([row.index, row.group, scored_text(row)]).encode())
            for window in tokenized.windows:
                for ids in (window.input_ids, window.labels):
                    found.update(np.array([len(ids), *ids], dtype=np.int32).tobytes())
        return found.hexdigest()

    def of_writing(self, rows: Sequence[Row]) -> str:
        options = writing_options(self._loaded, self._recipe, self._size)
        return f"{self.of_reading(rows)} {json.dumps(options, sort_keys=True)}"


def weights_digest(model: Any) -> bytes:
    """SHA-256 of all weights and settings of a model: a second for two gigabytes."""
    about = {name: value for name, value in model.config.to_dict().items() if name[:1] != "_"}
    found = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
    for name, tensor in model.state_dict().items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        found.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
    return found.digest()
