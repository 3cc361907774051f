"""Measure a training as it goes, under any Trainer: the gap, and what is memorized."""

import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback

from heldout.core.errors import UserError
from heldout.core.finite import finite
from heldout.core.pass_statistics import PassStatistics
from heldout.core.probe import VerbatimMemorization
from heldout.core.row import Row
from heldout.core.shares import difference_of_shares, share_estimate
from heldout.core.stats import (
    LEAST_HELD_OUT,
)
from heldout.data.duplicates import with_copies_joined
from heldout.lm.characters import token_size
from heldout.lm.measuring.pass_statistics import pass_statistics
from heldout.training.two_forms import holds_gradient_point, measured_form


class DiagnoseCallback(TrainerCallback):
    """At each evaluation of the Trainer, and at both ends, reads samples of two kinds of rows.

        Trainer(..., callbacks=[heldout.DiagnoseCallback(train, heldout, tokenizer, out="log")])

    train, heldout: texts, or rows as ``heldout.read_rows(FILE).rows`` reads them from
    whatever ``heldout fit`` reads. Each time a line is added to ``diagnosis.jsonl`` in ``out``:
    clean losses of both in nats/token (no dropout, penalty or smoothing), the gap, and the share of
    training rows memorized beyond held-out rows with its interval. The first process alone writes.
    Under ``heldout.attach``, also with no regularizers, the trackers of the trainer hear the same
    figures as ``eval_...``.
    Weights, modes and random numbers are left as found. Costs two forward passes over the rows
    each time.
    """

    def __init__(
        self,
        train: Sequence[Any],
        heldout: Sequence[Any],
        tokenizer: Any,
        *,
        out: str | Path,
        max_length: int = 512,
        batch_size: int = 8,
    ):
        self.parts = {
            "train": with_copies_joined(_rows("train", train)),
            "heldout": with_copies_joined(_rows("heldout", heldout)),
        }
        self.tokenizer = tokenizer
        self.size = token_size(tokenizer, self.parts["train"])
        self.path = Path(out) / "diagnosis.jsonl"
        self.max_length, self.batch_size = max_length, batch_size
        self.entries: list[dict[str, Any]] = []
        self.tell: Callable[[dict[str, float]], Any] | None = None
        self._untold: dict[str, float] = {}  # from before the trackers were open

    def on_train_begin(
        self,
        args: Any,
        state: Any,
        control: Any,
        model: Any = None,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        """Before the first step, or where a resumed training goes on."""
        if entry := self.measure(model, state, optimizer):
            self._untold = _figures(entry)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._tell({})

    def on_evaluate(
        self,
        args: Any,
        state: Any,
        control: Any,
        model: Any = None,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        if entry := self.measure(model, state, optimizer):
            self._tell(_figures(entry))

    def on_train_end(
        self,
        args: Any,
        state: Any,
        control: Any,
        model: Any = None,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        if not self.entries or self.entries[-1]["step"] != state.global_step:
            entry = self.measure(model, state, optimizer)
            self._tell(_figures(entry) if entry else {})
        if optimizer is not None and holds_gradient_point(optimizer):
            logging.getLogger("heldout").warning(
                "The model holds the point of the gradient now, not the average that was "
                "measured: call trainer.optimizer.eval() before it is saved or used."
            )

    def measure(self, model: Any, state: Any, optimizer: Any = None) -> dict[str, Any] | None:
        """Read both samples and append a line; None in other processes than the first.

        With a schedule-free ``optimizer`` the average is read, whatever the model holds.
        """
        if not state.is_world_process_zero:
            return None
        with measured_form(optimizer):
            return self._measure(model, state)

    def _tell(self, figures: dict[str, float]) -> None:
        for each in (self._untold, figures):
            if each and self.tell is not None:
                self.tell(each)
        self._untold = {}

    def _measure(self, model: Any, state: Any) -> dict[str, Any]:
        found = {
            part: pass_statistics(
                model,
                rows,
                self.tokenizer,
                max_length=self.max_length,
                batch_size=self.batch_size,
                size=self.size,
            )
            for part, rows in self.parts.items()
        }
        train, unseen = found["train"].losses, found["heldout"].losses
        entry: dict[str, Any] = {
            "step": int(state.global_step),
            "epoch": float(state.epoch or 0.0),
            "train_nll": train.nats_per_token,
            "heldout_nll": unseen.nats_per_token,
            "gap": unseen.nats_per_token - train.nats_per_token,
            "recital": memorization_excess(found["train"], found["heldout"]),
        }
        self.entries.append(entry)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        return entry


def let_trackers_hear(trainer: Trainer) -> None:
    """The trainer's trackers hear what its DiagnoseCallbacks find, also at the end of training.

    Trackers close at that end, so these callbacks go before them.
    """
    callbacks = trainer.callback_handler.callbacks
    ours = [callback for callback in callbacks if isinstance(callback, DiagnoseCallback)]
    callbacks[:] = ours + [callback for callback in callbacks if callback not in ours]
    for callback in ours:
        # Not a subclass's log, which may add to its own figures and forget them.
        callback.tell = partial(Trainer.log, trainer)


def _figures(entry: dict[str, Any]) -> dict[str, float]:
    """Of a line of ``diagnosis.jsonl``, by the names that trackers put under ``eval``."""
    found = {f"eval_{name}": entry[name] for name in ("train_nll", "heldout_nll", "gap")}
    for name, value in (entry["recital"] or {}).items():
        if value is not None:
            found["eval_recital" + ("" if name == "difference" else f"_{name}")] = value
    return found


def memorization_excess(
    train: PassStatistics, heldout: PassStatistics
) -> dict[str, float | None] | None:
    """Share of training rows memorized minus that of held-out rows, with its 95 % interval.

    By 20 tokens after 10, of English. None with fewer than 30 rows of either that are long enough.
    """
    parts = [VerbatimMemorization.of(found) for found in (train, heldout)]
    if min(map(len, parts)) < LEAST_HELD_OUT:
        return None
    contrast = difference_of_shares(
        *(share_estimate(part.memorized_D, part.groups_D) for part in parts)
    )
    return {
        "difference": contrast.difference,
        "low": finite(contrast.interval.low),
        "high": finite(contrast.interval.high),
    }


def _rows(name: str, items: Sequence[Any]) -> list[Row]:
    rows = []
    for index, item in enumerate(items):
        if isinstance(item, Row):
            rows.append(item)
        elif isinstance(item, str):
            rows.append(Row(index, ({"role": "text", "content": item},), f"row-{index}"))
        else:
            raise UserError(
                f"DiagnoseCallback({name}=...) must hold texts or rows, got "
                f"{type(item).__name__} at {index}: read a file with "
                "heldout.read_rows(FILE).rows."
            )
    if not rows:
        raise UserError(f"DiagnoseCallback({name}=...) must not be empty.")
    return rows
