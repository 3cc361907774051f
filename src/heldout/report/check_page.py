"""What ``heldout check`` found as one HTML page: verdict, leak map, rows side by side."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import TypeVar

from markupsafe import escape

from heldout.core.files import write_text
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.results.check import CheckResult, Excerpt, Pair, Problem
from heldout.report import words
from heldout.report.check_figures import KINDS, leak_map, length_chart
from heldout.report.label_noise import label_noise_chart
from heldout.report.learning_curve import curve_chart
from heldout.report.page import Section, render_page
from heldout.report.quoted import is_spaceless
from heldout.report.tiles import Tile

T = TypeVar("T")
Pieces = Sequence[tuple[str, str]]
_SPACELESS = r"\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
# A word with the space after it; in scripts that write none, a character.
_WORDS = re.compile(rf"[{_SPACELESS}]|[^\s{_SPACELESS}]+\s*|\s+")
SHOWN_PAIRS = 40
SHOWN_ROWS = 100
# Bytes of rows that the page has room for, of its 400 kB: by what is told of them.
ROOM = {"leaks": 36_000, "duplicates": 24_000, "against": 18_000, "other": 12_000}
MARKUP = 500  # around a row, about
_ROW_OF = {"train": "Training row", "heldout": "Held-out row"}
_PAIRS = (
    ("exact", "exact"),
    ("near", "near"),
    ("span", "by a long span"),
    ("prompt", "by their prompt"),
    ("answer", "by a long answer"),
    ("paraphrase", "in other words"),
)


@dataclass(frozen=True)
class Passage:
    """One of two texts, in pieces, each with its mark: "shared", "differs" or none."""

    title: str
    place: str
    group: str
    pieces: Sequence[tuple[str, str]]

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.pieces)


@dataclass(frozen=True)
class ShownPair:
    title: str
    detail: str
    passages: tuple[Passage, Passage]


def write_check(result: CheckResult, path: Path) -> Path:
    """Write one self-contained HTML file; whole or not at all."""
    return write_text(path, render_check(result))


def render_check(result: CheckResult) -> str:
    """The page as text."""
    charts = [leak_map(result)] if result.leak_map else []
    lengths = [each for each in result.lengths if each.unit != "characters"]
    length_charts = [length_chart(each) for each in lengths if each.part == "train"]
    noise, curve = result.label_noise, result.learning_curve
    noise_charts = [label_noise_chart(noise)] if noise and noise.excess_bits else []
    curve_charts = [curve_chart(curve)] if curve else []
    leaks = [
        shown_pair(pair, "Training row", "Held-out row")
        for pair in _first(result.leaks, ROOM["leaks"])
    ]
    duplicates = [
        shown_pair(pair, _ROW_OF[pair.part], "Repeated as")
        for pair in _first(result.duplicates, ROOM["duplicates"])
    ]
    room = ROOM["against"] // max(1, len(result.contamination))
    contamination = [
        (
            name,
            len(pairs),
            [shown_pair(pair, "Training row", "Test row") for pair in _first(pairs, room)],
        )
        for name, pairs in result.contamination.items()
    ]
    measured = _measured(result.measurements)
    present = [
        ("leaks", "Leaks", bool(result.heldout)),
        ("contamination", "Contamination", bool(result.against)),
        ("duplicates", "Duplicates", bool(duplicates)),
        ("boilerplate", "Boilerplate", bool(result.boilerplate)),
        ("problems", "Faults", bool(result.problems or result.warnings)),
        ("personal", "Personal data", bool(result.personal)),
        ("suspects", "Suspects", bool(result.suspects)),
        ("labels", "Answers in doubt", bool(noise)),
        ("curve", "More data", bool(curve)),
        ("size", "Size", True),
    ]
    sentences = re.split(r"(?<=\.) (?=[A-Z0-9])", result.headline)
    return render_page(
        "check.html.j2",
        [*charts, *noise_charts, *curve_charts, *length_charts],
        title=f"Check of {words.last_name(result.source)}",
        result=result,
        headline=sentences,
        tiles=check_tiles(result),
        nav=[Section(anchor, title) for anchor, title, is_there in present if is_there],
        map_charts=charts,
        length_charts=length_charts,
        leaks=leaks,
        duplicates=duplicates,
        contamination=contamination,
        num_pairs=SHOWN_PAIRS,
        problems=_within(_by_kind(result.problems)[:SHOWN_ROWS], ROOM["duplicates"]),
        problem_kinds=_problem_kinds(result),
        personal=result.personal[:SHOWN_ROWS],
        personal_kinds=sorted(Counter(each.kind for each in result.personal).items()),
        suspects=_within(result.suspects[:SHOWN_PAIRS], ROOM["other"]),
        noise=noise,
        noise_charts=noise_charts,
        noise_measured=_measured(noise.measurements) if noise else [],
        doubtful=_within(noise.doubtful[:SHOWN_PAIRS], ROOM["other"]) if noise else [],
        boilerplate=_within(result.boilerplate[:20], ROOM["other"]),
        curve=curve,
        curve_charts=curve_charts,
        facts=check_facts(result),
        measured=measured,
        not_measured=[each for each in result.measurements if not isinstance(each, Measurement)],
    )


def _by_kind(problems: Sequence[Problem]) -> list[Problem]:
    """What cannot be used first, then kind by kind."""
    return sorted(problems, key=lambda each: (not each.blocks, each.kind))


def _problem_kinds(result: CheckResult) -> list[tuple[str, int]]:
    """Each kind of fault with its number of rows, the most frequent first."""
    prefix = "problems_"
    kinds = {k.removeprefix(prefix): n for k, n in result.counts.items() if k.startswith(prefix)}
    return sorted(((k, n) for k, n in kinds.items() if n), key=lambda each: -each[1])


def _measured(measurements: list[Measurement | NotMeasured]) -> list[Measurement]:
    return [each for each in measurements if isinstance(each, Measurement)]


def check_tiles(result: CheckResult) -> list[Tile]:
    """The key figures."""
    counts, rows = result.counts, result.rows
    found = [
        Tile(
            "Training rows",
            words.integer(rows),
            (f"{words.integer(result.distinct_rows)} that say something new",),
        )
    ]
    if result.heldout:
        details = [
            f"{words.integer(num)} {text}"
            for kind, text in _PAIRS
            if (num := counts.get(f"leaks_{kind}", 0)) or kind in ("exact", "near", "span")
        ]
        found.append(
            Tile(
                "Held-out rows that leak",
                f"{words.integer(counts['leaked_heldout_rows'])} of "
                f"{words.integer(result.rows_by_part['heldout'])}",
                ("pairs: " + ", ".join(details),),
            )
        )
    if result.against:
        found.append(Tile("Test rows in training", words.integer(counts["contaminated_rows"])))
    found.append(
        Tile(
            "Faults",
            words.integer(counts["problems"]),
            (f"{words.integer(counts['unreadable_train'])} training rows cannot be used",),
        )
    )
    found.append(
        Tile(
            "Looks like personal data",
            words.integer(counts.get("personal", 0)),
            ("by its form; names are not looked for",),
        )
    )
    return found


def shown_pair(pair: Pair, first: str, second: str) -> ShownPair:
    """Two texts side by side, with what they share marked."""
    if pair.kind == "span":
        share = words.percent(min(1.0, pair.similarity))
        first_start, first_stop = pair.first.shared
        spaceless = is_spaceless(pair.first.text[first_start:first_stop])
        if spaceless:
            detail = f"{pair.shared_tokens:,} characters in a row, {share} of the shorter row"
        else:
            detail = f"{pair.shared_tokens:,} words in a row, {share} of the shorter row"
    elif pair.kind == "near":
        detail = f"{words.percent(pair.similarity)} of their pieces in common"
    elif pair.kind == "prompt":
        detail = "the same turns before an answer"
    elif pair.kind == "answer":
        detail = "the same long answer"
    elif pair.kind == "paraphrase":
        detail = f"cosine of their embeddings {words.number(pair.similarity, 2)}"
    else:
        detail = "the same but for case and white space"
    if pair.kind == "near":
        pieces = differences(pair.first.text, pair.second.text)
    else:
        pieces = _shared(pair.first), _shared(pair.second)
    return ShownPair(
        KINDS[pair.kind],
        detail,
        (_passage(first, pair.first, pieces[0]), _passage(second, pair.second, pieces[1])),
    )


def _passage(title: str, excerpt: Excerpt, pieces: Pieces) -> Passage:
    return Passage(title, words.last_name(excerpt.where), excerpt.group, pieces)


def _shared(excerpt: Excerpt) -> Pieces:
    start, stop = excerpt.shared
    text = excerpt.text
    pieces = ((text[:start], ""), (text[start:stop], "shared"), (text[stop:], ""))
    return [piece for piece in pieces if piece[0]]


def differences(first: str, second: str) -> tuple[Pieces, Pieces]:
    """Both texts in pieces; what the other has not, word for word, is marked.

    A letter of a script without spaces is a word here.
    """
    words_of: list[list[str]] = [_WORDS.findall(text) for text in (first, second)]
    matcher = SequenceMatcher(None, words_of[0], words_of[1], autojunk=False)
    blocks = matcher.get_matching_blocks()
    found: tuple[list[tuple[str, str]], list[tuple[str, str]]] = ([], [])
    starts = [0, 0]
    for block in blocks:
        for side, place in enumerate((block.a, block.b)):
            own = words_of[side]
            apart, alike = own[starts[side] : place], own[place : place + block.size]
            for part, mark in ((apart, "differs"), (alike, "")):
                if part:
                    found[side].append(("".join(part), mark))
            starts[side] = place + block.size
    return found


def _first(pairs: list[Pair], room: int) -> list[Pair]:
    """Some of each kind."""
    by_kind = [[pair for pair in pairs if pair.kind == kind] for kind in KINDS]
    num_kinds = max(1, sum(map(bool, by_kind)))
    share = max(1, SHOWN_PAIRS // num_kinds)
    return [pair for kind in by_kind for pair in _within(kind[:share], room // num_kinds, parts=2)]


def _within(entries: Sequence[T], room: int, parts: int = 1) -> list[T]:
    """The first of them, as many as there is room for, and one at least."""
    found: list[T] = []
    for each in entries:
        room -= parts * MARKUP + len(str(escape(each)).encode())
        if found and room < 0:
            break
        found.append(each)
    return found


def check_facts(result: CheckResult) -> list[tuple[str, str]]:
    """Size and settings, in words."""
    found = [
        ("Format", result.format.replace("_", " and ")),
        ("Training rows", words.integer(result.rows)),
        ("Rows without duplicates", words.integer(result.distinct_rows)),
        ("Effective number of rows", f"{result.effective_rows:,.0f}"),
    ]
    found += [("Data", note) for note in result.reading]
    for each in result.lengths:
        middle = f"{each.quantiles['0.5']:,.0f}"
        found.append(
            (
                f"{words.sentence_case(each.unit)}, {each.part}",
                f"{each.total:,} in {words.count(each.num_rows, 'row')}; median {middle}, longest "
                f"{each.quantiles['1']:,.0f}",
            )
        )
    threshold = result.settings["near_duplicate_threshold"]
    found.append(("Near duplicates from", f"{threshold:g} of their pieces in common"))
    found.append(("Time", words.duration(result.seconds)))
    if result.written:
        found.append(("Clean copy", result.written))
    found += [(f"SHA-256 of {words.last_name(name)}", sha) for name, sha in result.sha256.items()]
    return found
