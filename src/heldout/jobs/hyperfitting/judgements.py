"""Blind pairwise judgements by people or models: write the pairs out, read the answers back.

Each pair of texts is shown twice, in both orders, under letters that do not tell the condition. A
judge who answers by place and not by text is inconsistent, and only consistent answers count as a
preference; the rest count as ties.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from heldout.core.errors import UserError
from heldout.core.files import write_text
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.run import Run
from heldout.core.shares import share_estimate
from heldout.core.stats import (
    ratio_estimate,
)
from heldout.jobs.hyperfitting.evaluate import load_contexts
from heldout.jobs.hyperfitting.measure import HUMAN

ANSWERS = ("A", "B", "tie")
KEY = "judgements_key.json"
QUESTION = "Which text is the better continuation of the context?"


@dataclass(frozen=True)
class JudgedPair:
    """What a judge said of one pair of conditions."""

    first: str
    second: str
    measurements: list[Measurement | NotMeasured]


def export_judgements(
    run: Run, out: Path, pairs: Sequence[tuple[str, str]], *, most: int = 100, seed: int = 0
) -> int:
    """Write one JSON line per question to ``out``; returns how many.

    A line has ``id``, ``question``, ``context``, ``A``, ``B`` and an empty ``answer`` to be filled
    in with A, B or tie. What hides behind the letters lies in ``judgements_key.json`` of the run.
    Each of at most ``most`` contexts gives two questions per pair of conditions, one in each order;
    all are shuffled together. All texts have the same number of tokens.
    """
    contexts = load_contexts(run)
    written = run.read_json("contexts.json")
    texts = {HUMAN: written["reference_texts"]}
    for condition in {name for pair in pairs for name in pair} - {HUMAN}:
        if not run.path(f"texts/{condition}.json").exists():
            raise UserError(f"judgements: the run has no texts of {condition!r}.")
        texts[condition] = run.read_json(f"texts/{condition}.json")["texts"]
    rng = np.random.default_rng(seed)
    chosen = sorted(rng.permutation(len(contexts))[:most].tolist())
    lines, key = [], {}
    for first, second in pairs:
        for place in chosen:
            for left, right in ((first, second), (second, first)):
                mark = hashlib.sha256(f"{seed} {place} {left} {right}".encode()).hexdigest()[:16]
                key[mark] = {"context": place, "A": left, "B": right}
                lines.append(
                    {
                        "id": mark,
                        "question": QUESTION,
                        "context": written["prompt_texts"][place],
                        "A": texts[left][place],
                        "B": texts[right][place],
                        "answer": "",
                    }
                )
    order = rng.permutation(len(lines))
    run.write_json(KEY, {"pairs": [list(pair) for pair in pairs], "questions": key})
    write_text(out, "".join(json.dumps(lines[place], ensure_ascii=False) + "\n" for place in order))
    return len(lines)


def import_judgements(run: Run, answered: Path) -> list[JudgedPair]:
    """Read the answers and tell, per pair of conditions, how often the first wins.

    ``win_rate``: 1 for a context whose two answers both name the first condition, 0 where both
    name the second, and 0.5 where they do not agree or are ties. ``consistency``: share of contexts
    whose two answers name the same condition or are both ties. Intervals are over contexts (groups
    of rows).
    Questions without an answer are left out with their partner. Raises UserError, naming the line,
    for unknown ids, other answers and a question answered twice.
    """
    if not run.path(KEY).exists():
        raise UserError(f"{run.folder} has no {KEY}: export judgements first.")
    key = run.read_json(KEY)
    groups = load_contexts(run).groups
    votes = _votes(answered, key["questions"])
    found = []
    for first, second in key["pairs"]:
        both = {
            place: (votes[first, second, place], votes[second, first, place])
            for (left, right, place) in votes
            if (left, right) == (first, second) and (second, first, place) in votes
        }
        found.append(_judged(first, second, both, groups))
    return found


def _votes(path: Path, questions: Mapping[str, Any]) -> dict[tuple[str, str, int], str]:
    """(condition under A, condition under B, context) -> the condition that was named, or tie."""
    votes: dict[tuple[str, str, int], str] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text.") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            entry = json.loads(line)
            mark, answer = entry["id"], entry["answer"]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{where} is no JSON object with id and answer.") from None
        if mark not in questions:
            raise UserError(f"{where}: id {mark!r} was not exported from this run.")
        if answer == "":
            continue
        if answer not in ANSWERS:
            raise UserError(f"{where}: answer must be A, B or tie, got {answer!r}.")
        shown = questions[mark]
        place = (shown["A"], shown["B"], shown["context"])
        if place in votes:
            raise UserError(f"{where}: {mark!r} was answered before.")
        votes[place] = shown.get(answer, answer)
    return votes


def _judged(
    first: str, second: str, both: Mapping[int, tuple[str, str]], groups: Sequence[str]
) -> JudgedPair:
    pair = f"{first}_over_{second}"
    places = sorted(both)
    units = [groups[place] for place in places]
    if len(set(units)) < 2:
        reason = f"{len(set(units))} contexts were judged in both orders; 2 are needed"
        return JudgedPair(
            first, second, [NotMeasured(f"{what}_{pair}", reason) for what in _FIGURES]
        )
    agreed = [both[place][0] == both[place][1] for place in places]
    wins = [
        {first: 1.0, second: 0.0}.get(both[place][0], 0.5) if agrees else 0.5
        for place, agrees in zip(places, agreed, strict=True)
    ]
    rate = ratio_estimate(wins, np.ones(len(wins)), units, null=0.5)
    share, interval = share_estimate(agreed, units)
    note = f"p = {rate.p_value:.3g} for a rate of one half"
    return JudgedPair(
        first,
        second,
        [
            Measurement(
                f"win_rate_{pair}",
                rate.value,
                "share of contexts, ties half",
                rate.num_groups,
                "context",
                rate.interval,
                note=note,
            ),
            Measurement(
                f"consistency_{pair}",
                share,
                "share of contexts",
                len(set(units)),
                "context",
                interval,
            ),
        ],
    )


_FIGURES = ("win_rate", "consistency")
