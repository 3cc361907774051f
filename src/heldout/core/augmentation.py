"""The contract of an augmentation: one idea that makes training rows anew in every epoch.

Held-out rows never come here: ``heldout fit`` gives training rows alone, after the split. In the
order of a run::

    prepare                            once: files, another model, rows of another source
    each epoch, in the order of the recipe:
        rows -> text or texts          the messages of the rows that are chosen
        rows -> added                  rows of other sources beside them
        tokens -> inputs               what the model reads in place of a token it has to predict

An augmentation overrides one of ``text``, ``texts``, ``added`` and ``inputs``. What it draws
follows from the seed, the epoch and the row alone: the order of the rows, other rows, workers,
processes and a resume change nothing.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import Any, ClassVar, Literal

import regex

from heldout.core.errors import UserError
from heldout.core.parameters import CheckedParameters
from heldout.core.regularizer import schedule_factor
from heldout.core.row import Row

ROLES = {
    "prompt": ("text", "prompt", "user"),
    "answer": ("text", "completion", "assistant"),
    "both": ("text", "prompt", "user", "completion", "assistant"),
}


@dataclass(frozen=True)
class Supplies:
    """What the caller has: how to read rows of another source, and the base model."""

    read: Callable[[str], list[Row]]
    base: Callable[[], tuple[Any, Any]]  # -> (model, tokenizer), loaded when it is asked for


MOST_SECONDS = 5.0  # of the processor, for one pattern in one text


@dataclass(frozen=True)
class KeyFacts:
    """Text that no augmentation may change, as regular expressions."""

    patterns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for pattern in self.patterns:
            try:
                regex.compile(pattern)
            except regex.error as error:
                raise UserError(
                    f"data.key_facts: {pattern!r} is not a regular expression: {error}."
                ) from None

    @cached_property
    def _compiled(self) -> list[regex.Pattern]:
        return [regex.compile(pattern) for pattern in self.patterns]

    def spans(self, text: str) -> list[tuple[int, int]]:
        """(start, end) of the facts in ``text``, overlapping ones joined.

        Raises UserError for a pattern that looks for them for longer than ``MOST_SECONDS``.
        """
        found: list[tuple[int, int]] = []
        for pattern in self._compiled:
            try:
                matches = pattern.finditer(text, timeout=MOST_SECONDS)
                found += (match.span() for match in matches if match.group())
            except TimeoutError:
                raise UserError(
                    f"data.key_facts: {pattern.pattern!r} comes to no end on a text of "
                    f"{len(text):,} characters: leave out repeats within repeats."
                ) from None
        found.sort()
        joined: list[tuple[int, int]] = []
        for start, end in found:
            if joined and start < joined[-1][1]:
                joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
            else:
                joined.append((start, end))
        return joined

    def kept(self, text: str, variant: str) -> bool:
        """Whether ``variant`` has the facts of ``text``, each as often."""

        def facts(of: str) -> Counter:
            return Counter(of[start:end] for start, end in self.spans(of))

        return not self.patterns or facts(text) == facts(variant)


NO_FACTS = KeyFacts()


@dataclass(frozen=True)
class Augmentation(CheckedParameters):
    """Base of all augmentations; parameters are the fields of the frozen dataclass.

    The file's name is the augmentation's name in recipes. Its module states ``SOURCE`` (paper) and
    ``COST`` (words) as literals. What it keeps (a word list, a model) goes into a
    ``field(init=False, repr=False, compare=False)``.
    """

    STRENGTH: ClassVar[str] = "probability"  # the field that ``schedule`` scales
    WHOLE: ClassVar[bool] = False  # needs the whole message; else key facts are cut out before
    SLOW: ClassVar[bool] = False  # asks a model or a translator
    READS: ClassVar[str] = ""  # the field that names rows of another source

    probability: float = field(default=0.5, kw_only=True)  # share of the rows that it changes
    # Of rows with a prompt: prompt, answer or both. A plain text is always meant.
    where: Literal["prompt", "answer", "both"] = field(default="prompt", kw_only=True)
    variants: int = field(
        default=0, kw_only=True
    )  # different ones of a row; 0: new ones each epoch
    schedule: str = field(default="constant", kw_only=True)  # constant, rise:0.2, fall:0.5
    _progress: float = field(default=0.0, init=False, repr=False, compare=False)
    _made: dict = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.require("probability", 0 <= self.probability <= 1, "between 0 and 1")
        self.require("where", self.where in ROLES, "prompt, answer or both")
        self.require("variants", self.variants >= 0, "0 (new ones each epoch) or more")
        schedule_factor(self.schedule, 0.0, type(self).__name__)

    def now(self, name: str) -> float:
        """A field as it is at this share of the training: scheduled, if it is the strength."""
        value = getattr(self, name)
        if name != self.STRENGTH:
            return value
        return value * schedule_factor(self.schedule, self._progress, type(self).__name__)

    def set_progress(self, share: float) -> None:
        """Tell which share of the planned epochs is done."""
        object.__setattr__(self, "_progress", share)

    @property
    def is_off(self) -> bool:
        return self.now("probability") <= 0 or self.now(self.STRENGTH) <= 0

    def prepare(self, supplies: Supplies) -> None:
        """Get what is needed, once; refuse with UserError what is not there."""

    def text(self, content: str, draw: Random) -> str:
        """A variant of one message, or of its part between two key facts."""
        raise TypeError(f"{type(self).__name__} must define text(), texts(), added() or inputs().")

    def texts(self, contents: Sequence[str], draws: Sequence[Random]) -> list[str]:
        """Variants of several messages: for what works faster on many at once."""
        return [self.text(content, draw) for content, draw in zip(contents, draws, strict=True)]

    # None means: adds none. A method would say (rows, draw) -> rows of another source to be trained
    # on in this epoch beside ``rows``.
    added: ClassVar[Any] = None

    # None means: changes none. A method would say (ids, open_places, draw, tokenizer) -> as many
    # ids; only those at ``open_places`` may differ. What is to be predicted stays as it was.
    inputs: ClassVar[Any] = None


def rows_of_epoch(
    rows: Sequence[Row],
    augmentations: Sequence[Augmentation],
    *,
    seed: int,
    epoch: int,
    facts: KeyFacts = NO_FACTS,
) -> list[Row]:
    """The rows to be trained on in this epoch: variants in place of their rows, then added ones.

    Roles, groups, sources and the number of messages stay. Later augmentations see what earlier
    ones made.
    """
    found = list(rows)
    for augmentation in augmentations:
        if augmentation.is_off or augmentation.inputs is not None:
            continue
        name = type(augmentation).__name__
        if augmentation.added is not None:
            first = 1 + max((row.index for row in found), default=-1)
            more = augmentation.added(found, Random(f"{seed} {name} {epoch}"))
            found += [
                dataclasses.replace(row, index=first + place) for place, row in enumerate(more)
            ]
        else:
            found = _varied(augmentation, found, seed, epoch, facts)
    return found


def draw_of(augmentation: Augmentation, seed: int, epoch: int, place: object) -> Random | None:
    """Random numbers for one row or window of this epoch; None where it is left as it is."""
    name = type(augmentation).__name__
    chance = Random(f"{seed} {name} {epoch} {place}")
    return chance if chance.random() < augmentation.now("probability") else None


def _varied(
    augmentation: Augmentation, rows: list[Row], seed: int, epoch: int, facts: KeyFacts
) -> list[Row]:
    """All messages that are to change, asked for together."""
    roles = ROLES[augmentation.where]
    wanted: list[tuple[int, int, str, Random, tuple]] = []
    made = augmentation._made
    messages = {}
    for place, row in enumerate(rows):
        draw = draw_of(augmentation, seed, epoch, row.index)
        if draw is None:
            continue
        messages[place] = list(row.messages)
        for number, message in enumerate(row.messages):
            if message["role"] not in roles or not message["content"].strip():
                continue
            if "train_detail" in message:  # whose characters would be others
                continue
            key: tuple = ()
            if augmentation.variants:
                turn = epoch % augmentation.variants
                strength = augmentation.now(augmentation.STRENGTH)
                key = (seed, turn, row.index, number, strength, message["content"])
                draw = Random(f"{seed} {type(augmentation).__name__} {turn} {row.index} {number}")
            wanted.append((place, number, message["content"], draw, key))
    new = [one for one in wanted if not one[4] or one[4] not in made]
    texts = _texts(augmentation, [one[2] for one in new], [one[3] for one in new], facts)
    found = {one[:2]: text for one, text in zip(new, texts, strict=True)}
    for place, number, _, _, key in wanted:
        text = made[key] if key in made else found[place, number]
        if key:
            made[key] = text
        messages[place][number] = {**messages[place][number], "content": text}
    return [
        dataclasses.replace(row, messages=tuple(messages[place])) if place in messages else row
        for place, row in enumerate(rows)
    ]


def _texts(
    augmentation: Augmentation, contents: list[str], draws: list[Random], facts: KeyFacts
) -> list[str]:
    """Variants that hold every key fact; a content whose variant would not is left as it is."""
    pieces = [[content] if augmentation.WHOLE else _pieces(content, facts) for content in contents]
    # Facts stand at the odd places.
    asked = [(n, place) for n, some in enumerate(pieces) for place in range(0, len(some), 2)]
    asked = [(n, place) for n, place in asked if pieces[n][place].strip()]
    texts = augmentation.texts(
        [pieces[n][place] for n, place in asked], [draws[n] for n, _ in asked]
    )
    for (n, place), text in zip(asked, texts, strict=True):
        pieces[n][place] = text
    variants = ["".join(some) for some in pieces]
    return [
        variant if variant.strip() and facts.kept(content, variant) else content
        for content, variant in zip(contents, variants, strict=True)
    ]


def _pieces(text: str, facts: KeyFacts) -> list[str]:
    """Free text, fact, free text, ..., free text."""
    found, end = [], 0
    for start, stop in facts.spans(text):
        found += [text[end:start], text[start:stop]]
        end = stop
    return [*found, text[end:]]
