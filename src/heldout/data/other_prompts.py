"""Answers after the prompts of other rows: what an answer looks like that is not to its prompt."""

import random
from collections.abc import Sequence
from dataclasses import replace

from heldout.core.row import Row

_TRIES = 20  # draws for each prompt that is asked for


def foreign_prompts(rows: Sequence[Row], num: int, seed: int) -> list[list[Row]]:
    """Each row's answer after ``num`` prompts of other groups; empty where that cannot be.

    The row needs a prompt and one answer, at the end. Which prompts follows from the seed.
    """
    found: list[list[Row]] = []
    for row in rows:
        answers = [m for m in row.messages if m["role"] in ("completion", "assistant")]
        chosen: list[Row] = []
        if row.kind != "text" and len(answers) == 1 and row.messages[-1] is answers[0]:
            rng = random.Random(f"{seed} other prompts {row.index}")
            known = [row.messages[:-1]]
            for other in rng.choices(rows, k=_TRIES * num):
                prompt = other.messages[:-1]
                if other.group != row.group and prompt not in known:
                    known.append(prompt)
                    messages = (*prompt, row.messages[-1])
                    chosen.append(replace(row, messages=messages, group=other.group))
                if len(chosen) == num:
                    break
        found.append(chosen if len(chosen) == num else [])
    return found
