"""What ``heldout check`` found in data, typed; everything on its page and in its JSON is here."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from heldout.core.measurement import Measurement, NotMeasured, measurement_from_json
from heldout.core.results.label_noise import LabelNoise
from heldout.core.results.learning_curve import LearningCurve, learning_curve_from_json
from heldout.core.row import LEAST_TO_SPLIT
from heldout.core.shown import Shown

SCHEMA = "heldout.check/1"
Kind = Literal["exact", "near", "span", "prompt", "answer", "paraphrase"]
KINDS: tuple[Kind, ...] = ("exact", "near", "span", "prompt", "answer", "paraphrase")


@dataclass(frozen=True)
class Excerpt:
    """A row with its text, or the part of it around what is shared."""

    row: int  # in its source, counted from 0
    where: str  # such as "train.jsonl line 38"
    group: str  # empty where the source names none
    text: str
    shared: tuple[int, int] = (0, 0)  # characters of ``text`` that the other one holds too


@dataclass(frozen=True)
class Pair:
    """Two rows that say the same, of which the second should go.

    ``similarity``: Jaccard similarity of pieces, of a span its share of the shorter row,
    cosine of a paraphrase, else 1.
     ``shared_tokens``: length of the span; 0 for the others.
    """

    kind: Kind
    first: Excerpt
    second: Excerpt
    similarity: float
    shared_tokens: int = 0
    part: str = "train"  # of the first row


@dataclass(frozen=True)
class GroupLeak:
    """A group with rows on both sides."""

    group: str
    train_rows: int
    heldout_rows: int


@dataclass(frozen=True)
class BoilerplateText:
    """Text that many different rows hold: a frame, a license, a quotation; never a leak."""

    text: str
    num_rows: int
    example: str  # where


@dataclass(frozen=True)
class Problem:
    """A row that cannot be used or looks wrong; ``blocks`` where it cannot be trained on."""

    part: str
    row: int
    where: str
    kind: str
    message: str
    shown: str = ""
    blocks: bool = False


@dataclass(frozen=True)
class PersonalDataFound:
    """Something that has the form of personal data, masked."""

    part: str
    row: int
    where: str
    kind: str
    shown: str


@dataclass(frozen=True)
class Lengths:
    """Quantiles over the rows of one part."""

    part: str
    unit: str
    num_rows: int
    total: int
    quantiles: dict[str, float]  # "0", "0.05", "0.5", "0.95", "1"
    histogram: list[tuple[float, float, int]]  # from, to, rows; the widths grow


@dataclass(frozen=True)
class Suspect:
    """A row whose label or text is unlike the rest; ``reasons`` say by which measure."""

    row: int
    where: str
    text: str
    reasons: list[str]


@dataclass(frozen=True)
class CheckResult(Shown):
    """All findings. Lists hold at most ``max_listed`` entries of each kind; ``counts`` has all."""

    source: str
    heldout: list[str]
    against: list[str]
    rows: int
    rows_by_part: dict[str, int]
    sha256: dict[str, str]
    format: str
    counts: dict[str, int]
    distinct_rows: int  # of the training part: clusters of exact and near duplicates
    effective_rows: float  # rows^2 / sum of squared cluster sizes
    duplicates: list[Pair]
    leaks: list[Pair]  # first: the training row, second: the held-out row
    group_leaks: list[GroupLeak]
    contamination: dict[str, list[Pair]]  # by the name of the test set
    boilerplate: list[BoilerplateText]
    problems: list[Problem]
    personal: list[PersonalDataFound]
    lengths: list[Lengths]
    suspects: list[Suspect]
    leak_map: dict[str, list[tuple[float, float]]]  # kind: place in train, in held-out; 0 to 1
    measurements: list[Measurement | NotMeasured]
    warnings: list[str]
    settings: dict[str, Any]
    label_noise: LabelNoise | None = None  # where cross-validation was asked for
    learning_curve: LearningCurve | None = None  # where it was asked for
    reading: list[str] = field(default_factory=list)  # what was recognized, and what is not used
    written: str = ""  # the folder of the clean copy
    seconds: float = 0.0

    def table_rows(self) -> Iterable[Any]:
        """The leaks, then the duplicates, a pair each."""
        return [*self.leaks, *self.duplicates]

    @property
    def num_leaks(self) -> int:
        """Pairs of a training and a held-out row, and groups on both sides."""
        return sum(self.counts.get(f"leaks_{kind}", 0) for kind in (*KINDS, "group"))

    @property
    def answer(self) -> str:
        """Whether the data is fit to train on, in a sentence."""
        counts, rows = self.counts, self.rows_by_part["train"]
        blocked = counts["unreadable_train"]
        if self.num_leaks or blocked or counts["contaminated_rows"]:
            text = "Not fit to train on as it is."
        elif self.distinct_rows < LEAST_TO_SPLIT:
            num = self.distinct_rows
            text = (
                f"Not fit to train on: too few different rows ({num} of {LEAST_TO_SPLIT} needed)."
            )
        elif counts["problems"] or self.distinct_rows < rows:
            text = "Fit to train on, once you have looked at what is told below."
        else:
            text = "Fit to train on."
        if blocked:
            text += f" {blocked:,} of {rows:,} training rows cannot be trained on."
        return text

    @property
    def headline(self) -> str:
        """The verdict in a few sentences: the answer, and what it rests on."""
        return f"{self.answer} {self._evidence()}"

    def _evidence(self) -> str:
        if self.num_leaks:
            rows = self.counts["leaked_heldout_rows"]
            are = "leaks" if rows == 1 else "leak"
            text = (
                f"{rows:,} of {self.rows_by_part['heldout']:,} held-out rows {are} into training."
            )
            if not rows:
                text = f"{self.counts['leaks_group']:,} groups have rows on both sides."
        elif self.heldout:
            text = "No held-out row was found in the training rows."
        else:
            text = "No held-out rows were given, so nothing could leak."
        dirty = self.counts["contaminated_rows"]
        if dirty:
            are = (
                "row of the named test sets stands"
                if dirty == 1
                else "rows of the named test sets stand"
            )
            text += f" {dirty:,} {are} in the training rows."
        repeated = self.rows_by_part["train"] - self.distinct_rows - self.counts["unreadable_train"]
        if repeated > 0:
            are = "repeats another" if repeated == 1 else "repeat others"
            text += f" {repeated:,} of {self.rows_by_part['train']:,} training rows {are}."
        return text

    def faults(self) -> list[str]:
        """What is wrong with rows, a sentence for each kind: the worst and most frequent first."""
        kinds: dict[tuple[bool, str], list[Problem]] = {}
        for problem in self.problems:
            kinds.setdefault((problem.blocks, problem.kind), []).append(problem)
        found = []
        for (blocks, kind), listed in kinds.items():
            other = sum(len(each) for (_, same), each in kinds.items() if same == kind)
            num = self.counts[f"problems_{kind}"] if other == len(listed) else len(listed)
            first = min(listed, key=lambda problem: (problem.part != "train", problem.row))
            name, place = kind.replace("_", " "), f"{first.where}: {first.message}"
            text = f"{name}: {num:,} of the rows, first at {place}"
            if blocks:
                text = f"{name}: {num:,} of the rows cannot be trained on, first at {place}"
            found.append((not blocks, -num, text))
        return [text for _, _, text in sorted(found)]

    def to_json(self) -> dict[str, Any]:
        """``heldout.check/1``; see the shipped JSON Schema."""
        written_below: dict[str, Any] = {"duplicates": [], "leaks": [], "contamination": {}}
        written_below |= {"measurements": [], "label_noise": None, "learning_curve": None}
        return {
            "schema": SCHEMA,
            **asdict(replace(self, **written_below)),
            "headline": self.headline,
            "num_leaks": self.num_leaks,
            "duplicates": [_pair_json(pair, "a", "b") for pair in self.duplicates],
            "leaks": [_pair_json(pair, "train", "heldout") for pair in self.leaks],
            "contamination": {
                name: [_pair_json(pair, "train", "test") for pair in pairs]
                for name, pairs in self.contamination.items()
            },
            "measurements": [measured.to_json() for measured in self.measurements],
            "label_noise": self.label_noise.to_json() if self.label_noise else None,
            "learning_curve": self.learning_curve.to_json() if self.learning_curve else None,
        }

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "CheckResult":
        """Inverse of ``to_json``."""
        kept = {k: v for k, v in entry.items() if k not in ("schema", "headline", "num_leaks")}
        lists: dict[str, Any] = {
            "group_leaks": GroupLeak,
            "boilerplate": BoilerplateText,
            "problems": Problem,
            "personal": PersonalDataFound,
            "suspects": Suspect,
        }
        for name, kind in lists.items():
            kept[name] = [kind(**each) for each in entry[name]]
        kept["lengths"] = [
            Lengths(**{**each, "histogram": [tuple(bar) for bar in each["histogram"]]})
            for each in entry["lengths"]
        ]
        kept["duplicates"] = [_pair(each, "a", "b") for each in entry["duplicates"]]
        kept["leaks"] = [_pair(each, "train", "heldout") for each in entry["leaks"]]
        kept["contamination"] = {
            name: [_pair(each, "train", "test") for each in pairs]
            for name, pairs in entry["contamination"].items()
        }
        kept["leak_map"] = {
            kind: [tuple(place) for place in places] for kind, places in entry["leak_map"].items()
        }
        kept["measurements"] = [measurement_from_json(each) for each in entry["measurements"]]
        if entry.get("label_noise"):
            kept["label_noise"] = LabelNoise.from_json(entry["label_noise"])
        if entry.get("learning_curve"):
            kept["learning_curve"] = learning_curve_from_json(entry["learning_curve"])
        return cls(**kept)


def _pair_json(pair: Pair, first: str, second: str) -> dict[str, Any]:
    assert math.isfinite(pair.similarity), pair
    found: dict[str, Any] = {
        "kind": pair.kind,
        "similarity": pair.similarity,
        "shared_tokens": pair.shared_tokens,
        "part": pair.part,
    }
    for name, excerpt in ((first, pair.first), (second, pair.second)):
        row = f"{name}_row" if name in ("train", "heldout", "test") else f"row_{name}"
        found[row] = excerpt.row
        found[f"text_{name}"] = excerpt.text
        found[f"where_{name}"] = excerpt.where
        found[f"group_{name}"] = excerpt.group
        found[f"shared_{name}"] = list(excerpt.shared)
    return found


def _pair(entry: dict[str, Any], first: str, second: str) -> Pair:
    both = []
    for name in (first, second):
        row = f"{name}_row" if name in ("train", "heldout", "test") else f"row_{name}"
        start, stop = entry[f"shared_{name}"]
        both.append(
            Excerpt(
                entry[row],
                entry[f"where_{name}"],
                entry[f"group_{name}"],
                entry[f"text_{name}"],
                (start, stop),
            )
        )
    return Pair(
        entry["kind"], both[0], both[1], entry["similarity"], entry["shared_tokens"], entry["part"]
    )
