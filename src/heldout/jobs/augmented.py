"""Variants of training rows written out, for a trainer of one's own."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from heldout.core.augmentation import Augmentation, KeyFacts, Supplies, rows_of_epoch
from heldout.core.errors import UserError
from heldout.core.row import Row
from heldout.data.columns import read_rows
from heldout.lm.accelerator import training_device
from heldout.lm.load import load_model


def augmented(
    rows: str | Path | Iterable[Row],
    augmentations: Sequence[Augmentation],
    *,
    copies: int = 1,
    keep_originals: bool = True,
    seed: int = 0,
    key_facts: Sequence[str] = (),
    model: str = "",
) -> list[Row]:
    """``rows`` with up to ``copies`` variants of each, in order: originals, first variants, ...

    Give training rows only, after the split; held-out text is never to be augmented. ``rows`` may
    be a file. Copy n of a row is what training would read in epoch n with this seed; one that is
    equal to the row or to an earlier copy is left out. Variants keep role, group and source of
    their row and get an index of their own. Added rows (replay, a second domain) come with each
    copy. ``key_facts`` are regular expressions of what may not change. ``model`` is the base model,
    for augmentations that ask one.

    Raises UserError for augmentations of what is read alone (masking, token noise): they change no
    text.
    """
    originals = read_rows(rows).rows if isinstance(rows, str | Path) else list(rows)
    if copies < 1:
        raise UserError(f"augmented(copies=...) must be 1 or more, got {copies}.")
    for augmentation in augmentations:
        if augmentation.inputs is not None:
            raise UserError(
                f"{type(augmentation).__name__} changes what a model reads while it trains, not "
                "the text: there is nothing to write out. Use it in a recipe."
            )

    def base() -> tuple[Any, Any]:
        if not model:
            raise UserError("augmented(model=...) must name a model: an augmentation asks one.")
        loaded = load_model(model, device=training_device())
        return loaded.model, loaded.tokenizer

    for augmentation in augmentations:
        augmentation.prepare(Supplies(lambda path: read_rows(path).rows, base))
    facts = KeyFacts(tuple(key_facts))
    found = list(originals) if keep_originals else []
    next_index = 1 + max((row.index for row in originals), default=-1)
    own = {row.index for row in originals}
    seen = {(row.index, _contents(row)) for row in originals}
    for copy in range(copies):
        variants = rows_of_epoch(originals, augmentations, seed=seed, epoch=copy, facts=facts)
        for row in variants:
            if row.index in own:
                if (row.index, _contents(row)) in seen:
                    continue
                seen.add((row.index, _contents(row)))
            found.append(dataclasses.replace(row, index=next_index))
            next_index += 1
    return found


def write_rows(rows: Iterable[Row], path: str | Path) -> Path:
    """One JSON line a row, as ``heldout fit --data`` reads it; refuses to overwrite."""
    path = Path(path)
    try:
        with path.open("x", encoding="utf-8") as file:
            for row in rows:
                record = {**_record(row), "group": row.group, "source": row.source}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
    except FileExistsError:
        raise UserError(f"{path} is there already: give a new file. Nothing was written.") from None
    return path


def _record(row: Row) -> dict[str, Any]:
    if row.kind == "conversation":
        tools = {"tools": list(row.tools)} if row.tools else {}
        arguments = row.template_arguments
        told = {"chat_template_kwargs": arguments} if arguments else {}
        return {"messages": list(row.messages), **tools, **told}
    return {message["role"]: message["content"] for message in row.messages}


def _contents(row: Row) -> tuple[str, ...]:
    return tuple(message["content"] for message in row.messages)
