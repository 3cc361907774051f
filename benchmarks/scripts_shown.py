"""Rules on what is cut, counted in tokens and shown: a part of ``scripts.py``.

The tokenizer is that of the embedded model, which knows English and cuts other scripts into bytes.
"""

import random
from functools import cache
from importlib import resources
from typing import Any

import regex
from scripts_made import SCRIPTS, Script, some

PUBLISHED = 50  # tokens of a suffix; as much text as it holds in English is meant
TAGS = {
    "Chinese": "zh",
    "Japanese": "ja",
    "Korean": "ko",
    "Thai": "th",
    "Hindi": "und-Deva",
    "Arabic": "und-Arab",
    "English": "",
}


@cache
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(resources.files("heldout") / "assets" / "demo_model"))


def row_text(script: Script, words: list[str], rng: random.Random, num: int) -> str:
    return script.comma.join(script.space.join(some(words, rng, 8)) for _ in range(num))


def cuts_whole_characters(script: Script, words: list[str], rng: random.Random) -> bool:
    """A cut at any token ends where a grapheme cluster of the text ends, and loses nothing."""
    from heldout.lm.characters import decoded, whole_cut

    text = row_text(script, words, rng, 6)
    ids = tokenizer()(text, add_special_tokens=False).input_ids
    place = whole_cut(tokenizer(), ids, rng.randrange(8, len(ids)))
    head = decoded(tokenizer(), ids[:place])
    ends = [match.end() for match in regex.finditer(r"\X", text)]
    return text.startswith(head) and len(head) in ends


def holds_as_much_text(script: Script, words: list[str], rng: random.Random) -> bool:
    """A published length, scaled, holds at least nine tenths of the letters it does in English."""
    from heldout.core.graphemes import num_letters
    from heldout.core.row import Row
    from heldout.lm.characters import decoded, token_size

    def letters(each: Script, vocabulary: list[str]) -> int:
        text = row_text(each, vocabulary, rng, 60)
        size = token_size(tokenizer(), [Row(0, ({"role": "text", "content": text},), "g")])
        ids = tokenizer()(text, add_special_tokens=False).input_ids
        return num_letters(decoded(tokenizer(), ids[: size.tokens(PUBLISHED)]))

    english = SCRIPTS["English"]
    return letters(script, words) >= 0.9 * letters(english, english.vocabulary(900))


def tells_language(script: Script, words: list[str], rng: random.Random) -> bool:
    """The tag by which a browser chooses the letters' forms."""
    from heldout.report.quoted import language_tag

    (name,) = (each for each, other in SCRIPTS.items() if other is script)
    found = language_tag(row_text(script, words, rng, 3))
    return found.split("-Han")[0] == TAGS[name]
