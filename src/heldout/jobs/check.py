"""Is this data fit to train on? Duplicates, leaks, faults, personal data, size and information.

The texts are read as a stream and indexed in a temporary folder; see data/index.py for what that
takes in memory and on disk.
"""

import tempfile
import time
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from heldout.core.check import (
    BoilerplateText,
    CheckResult,
    Excerpt,
    GroupLeak,
    Lengths,
    Pair,
    PersonalData,
    Problem,
    Suspect,
)
from heldout.core.errors import UserError
from heldout.core.label_noise import LabelNoise
from heldout.core.learning_curve import LearningCurve
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe, load_recipe
from heldout.core.row import Row
from heldout.data.index import Index, IndexedRow, build_index
from heldout.data.pairs import Components, Engine, Here
from heldout.data.relations import Relation, relations
from heldout.data.shingles import normalized, place_of, text_key
from heldout.data.stream import RowStream
from heldout.data.surprise import cross_validated_bits, robust_z
from heldout.jobs.clean import refuse_occupied, write_clean_copy
from heldout.jobs.page_folder import write_page_folder

if TYPE_CHECKING:
    from heldout.jobs.check_model import SeenByModel

EXCERPT = 4000  # characters of a row that are shown at most
AROUND = 240  # characters on both sides of a shared span
MOST_ON_MAP = 4000
LEAST_TO_JUDGE = 200  # rows that tell what is unusual
FAR_OFF = 5.0  # robust standard deviations


def check(
    data: str | Path,
    *,
    heldout: Sequence[str | Path] = (),
    against: Sequence[str | Path] = (),
    model: str = "",
    reference: str | Path = "",
    model_rows: int = 1000,
    cross_validate: int = 0,
    learning_curve: bool = False,
    recipe: str | Path | Recipe = "default",
    settings: Sequence[str] = (),
    write_clean: str | Path | None = None,
    plant_canaries: int = 0,
    out: str | Path | None = None,
    max_listed: int = 10_000,
    engine: Literal["local", "ray"] = "local",
    progress: Progress | None = None,
) -> CheckResult:
    """Look through ``data``, and compare it with held-out rows and named test sets.

    heldout: files whose rows must not stand in ``data``; they are one part.
    against: evaluation sets, each by its name, for contamination.
    model: measures information in bits, label noise and tokens on ``model_rows`` rows; with
    ``reference``, a text of the model's own domain, how far the data lies from it.
    cross_validate: with a model, into how many folds to divide these rows, to fine-tune it briefly
    without each and to tell which answers it doubts; 0: not at all. See jobs/label_noise.py.
    learning_curve: with a model, whether twice the data would help; trains a dozen times. See
    jobs/learning_curve.py.
    recipe, settings: data.columns, data.group, data.near_duplicate_threshold, shares and seed; of
    the trainings, all that they take.
    write_clean: a new folder for rows without duplicates in parts without leaks, with a manifest.
    out: a new folder for report.html and check.json.

    Nothing of the user's is changed. Raises UserError for what cannot be read at all.
    """
    start = time.monotonic()
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, settings)
    if plant_canaries and write_clean is None:
        raise UserError("--plant-canaries needs --write-clean DIR: canaries go into a copy.")
    if plant_canaries < 0 or max_listed < 1 or model_rows < 2:
        raise UserError(
            "--plant-canaries must be 0 or more, --list 1 or more and --model-rows 2 or more, got "
            f"{plant_canaries}, {max_listed} and {model_rows}."
        )
    asked = {
        "--reference": reference,
        "--cross-validate": cross_validate,
        "--learning-curve": learning_curve,
    }
    for name, value in asked.items():
        if value and not model:
            raise UserError(f"{name} is measured with a model: give --model too.")
    if cross_validate and cross_validate < 2:
        raise UserError(f"--cross-validate must be 2 folds or more, got {cross_validate}.")
    for folder in (out, write_clean):
        if folder is not None:
            refuse_occupied(Path(folder))
    progress = progress or Progress()
    sources = _Sources.open(data, heldout, against, chosen)
    runner = _engine(engine)
    with tempfile.TemporaryDirectory(prefix="heldout-check-") as folder:
        read = _Reading(sources, max_listed)
        index = build_index(
            read.rows(),
            Path(folder),
            threshold=chosen.data.near_duplicate_threshold,
            engine=runner,
            progress=progress,
        )
        if not (index.part_R == 0).any():
            raise UserError(
                f"{data}: none of its {read.rows_by_part['train']} rows can be trained on: "
                f"{read.problems[0].where}: {read.problems[0].message}."
            )
        found = _Findings(sources, read, index, max_listed)
        with progress.stage("what the rows tell"):
            found.collect()
        measured = _measure(
            sources, index, chosen, model, reference, model_rows, cross_validate, progress, found
        )
        if learning_curve:
            measured += _learning_curve(sources, chosen, model, progress, found)
        written = ""
        if write_clean is not None:
            with progress.stage("writing the clean copy"):
                copied = write_clean_copy(
                    Path(write_clean),
                    index,
                    [each for each in sources.streams if each[0] in _OWN_PARTS],
                    chosen.data,
                    plant_canaries,
                )
            written = str(copied.folder)
            found.warnings += copied.notes
        result = found.result(chosen, measured, written, time.monotonic() - start)
    if out is not None:
        _write(result, Path(out))
    return result


def _write(result: CheckResult, folder: Path) -> None:
    from heldout.report.check_page import write_check

    write_page_folder(
        folder, "check.json", result.to_json(), lambda path: write_check(result, path)
    )


def _engine(name: str) -> Engine:
    if name == "local":
        return Here()
    if name == "ray":
        from heldout.jobs.ray_engine import RayEngine

        return RayEngine()
    raise UserError(f"--engine must be local or ray, got {name!r}.")


# Sources

_OWN_PARTS = ("train", "heldout")


@dataclass(frozen=True)
class _Sources:
    """Streams with the names of their parts: train, heldout, and the test sets by their paths."""

    data: str
    streams: list[tuple[str, RowStream]]
    heldout: list[str]
    against: list[str]

    @classmethod
    def open(cls, data, heldout, against, recipe: Recipe) -> "_Sources":
        options = recipe.data
        streams = [("train", RowStream(data, options.columns, options.group))]
        for path in heldout:
            streams.append(("heldout", RowStream(path, options.columns, options.group)))
        for path in against:
            # A test set has columns of its own.
            streams.append((str(path), RowStream(path)))
        names = [str(path) for path in against]
        if len(set(names)) < len(names) or set(names) & set(_OWN_PARTS):
            raise UserError("--against names each test set once.")
        return cls(str(data), streams, [str(path) for path in heldout], names)

    def part_of(self, name: str) -> int:
        return _OWN_PARTS.index(name) if name in _OWN_PARTS else 2 + self.against.index(name)

    def name_of(self, part: int) -> str:
        return _OWN_PARTS[part] if part < 2 else self.against[part - 2]


@dataclass
class _Reading:
    """The one pass over the sources, and what only it can see."""

    sources: _Sources
    max_listed: int
    rows_by_part: Counter[str] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    problem_counts: Counter[str] = field(default_factory=Counter)
    # Of training rows with a prompt: hashes of the prompt and of the answer, and the position.
    prompts: array = field(default_factory=lambda: array("Q"))
    answers: array = field(default_factory=lambda: array("Q"))
    asked: array = field(default_factory=lambda: array("Q"))

    def rows(self) -> Iterator[IndexedRow]:
        position = 0
        offsets: Counter[str] = Counter()  # several held-out files count as one part
        for name, stream in self.sources.streams:
            part = self.sources.part_of(name)
            for item in stream:
                self.rows_by_part[name] += 1
                index = item.index + offsets[name]
                if item.fault is not None:
                    self.unreadable[name] += 1
                    fault = item.fault
                    self.add(
                        Problem(name, index, item.where, fault.kind, fault.message, blocks=True)
                    )
                    continue
                assert item.row is not None
                row = item.row
                for message in _template_faults(row):
                    self.add(Problem(name, index, item.where, "template", message))
                if part == 0 and row.kind != "text":
                    self._note_answer(row, position)
                group = row.group if row.group != f"row-{item.index}" else f"row-{index}"
                yield IndexedRow(part, index, item.where, group, row.text)
                position += 1
            offsets[name] = self.rows_by_part[name]

    def add(self, problem: Problem) -> None:
        self.problem_counts[problem.kind] += 1
        if self.problem_counts[problem.kind] <= self.max_listed:
            self.problems.append(problem)

    def _note_answer(self, row: Row, position: int) -> None:
        contents = [message["content"] for message in row.messages]
        for store, text in ((self.prompts, "\n".join(contents[:-1])), (self.answers, contents[-1])):
            store.append(int.from_bytes(text_key(normalized(text)[0])[:8], "little"))
        self.asked.append(position)


def _template_faults(row: Row) -> Iterator[str]:
    roles = [message["role"] for message in row.messages]
    if row.kind == "completion" and not row.messages[0]["content"].strip():
        yield "an empty prompt"
    if row.kind != "conversation":
        return
    if roles[-1] != "assistant":
        yield f"the last turn is of the {roles[-1]}: nothing is learned from it"
    if any(a == b and a != "tool" for a, b in pairwise(roles)):
        yield "two turns of one role in a row"


# Findings


@dataclass
class _Findings:
    """From the index to what is told, with texts read from disk for what is listed."""

    sources: _Sources
    reading: _Reading
    index: Index
    max_listed: int
    counts: Counter[str] = field(default_factory=Counter)
    duplicates: list[Pair] = field(default_factory=list)
    leaks: list[Pair] = field(default_factory=list)
    contamination: dict[str, list[Pair]] = field(default_factory=dict)
    group_leaks: list[GroupLeak] = field(default_factory=list)
    personal: list[PersonalData] = field(default_factory=list)
    suspects: dict[int, list[str]] = field(default_factory=dict)  # position -> reasons
    warnings: list[str] = field(default_factory=list)
    leak_map: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    lengths: list[Lengths] = field(default_factory=list)
    label_noise: LabelNoise | None = None
    learning_curve: LearningCurve | None = None

    def collect(self) -> None:
        self._relations()
        self._groups()
        self._texts()
        self._answers()
        self._unlike_the_rest()
        for part in _OWN_PARTS:
            rows = np.flatnonzero(self.index.part_R == _OWN_PARTS.index(part))
            if len(rows):
                words = self.index.codes.lengths_R[rows]
                self.lengths.append(lengths_of(part, "words", words))
                characters = self.index.num_characters_R[rows]
                self.lengths.append(lengths_of(part, "characters", characters))
                self._cut_rows(part, characters)

    def _relations(self) -> None:
        index, listed = self.index, Counter[tuple[str, str]]()
        leaked: tuple[set[int], set[int]] = (set(), set())
        contaminated: set[int] = set()
        self.contamination = {name: [] for name in self.sources.against}
        for found in relations(index):
            part_a, part_b = int(index.part_R[found.first]), int(index.part_R[found.second])
            if part_a == part_b:
                what, pairs = "duplicates", self.duplicates
            elif part_b == 1:
                what, pairs = "leaks", self.leaks
                leaked[0].add(found.first)
                leaked[1].add(found.second)
                self._mark(found)
            else:
                what = self.sources.name_of(part_b)
                pairs = self.contamination[what]
                contaminated.add(found.second)
                self.counts["contamination"] += 1
            if part_b < 2:
                self.counts[f"{what}_{found.kind}"] += 1
            listed[what, found.kind] += 1
            if listed[what, found.kind] <= self.max_listed:
                pairs.append(self._pair(found))
        self.counts["leaked_train_rows"] = len(leaked[0])
        self.counts["leaked_heldout_rows"] = len(leaked[1])
        self.counts["contaminated_rows"] = len(contaminated)

    def _mark(self, found: Relation) -> None:
        places = self.leak_map.setdefault(found.kind, [])
        if len(places) < MOST_ON_MAP:
            totals = self.reading.rows_by_part
            places.append(
                (
                    round(float(self.index.index_R[found.first]) / totals["train"], 5),
                    round(float(self.index.index_R[found.second]) / totals["heldout"], 5),
                )
            )

    def _pair(self, found: Relation) -> Pair:
        places = {}
        span = found.span
        if span is not None:
            places[span.text_a] = (span.start_a, span.start_a + span.length)
            places[span.text_b] = (span.start_b, span.start_b + span.length)
        first, second = (
            self.excerpt(row, places.get(int(self.index.first_R[row])))
            for row in (found.first, found.second)
        )
        part = self.sources.name_of(int(self.index.part_R[found.first]))
        length = span.length if span else 0
        return Pair(found.kind, first, second, round(found.similarity, 4), length, part)

    def excerpt(self, position: int, tokens: tuple[int, int] | None = None) -> Excerpt:
        index = self.index
        text = index.text(position)
        shared = (0, 0)
        if tokens is not None:
            start, stop = place_of(text, *tokens)
            low, high = max(0, start - AROUND), min(len(text), stop + AROUND)
            stop = min(stop, low + EXCERPT)
            text, shared = text[low : min(high, low + EXCERPT)], (start - low, stop - low)
        row = int(index.index_R[position])
        group = index.group(position)
        return Excerpt(
            row,
            index.where(position),
            "" if group == f"row-{row}" else group,
            text[:EXCERPT],
            shared,
        )

    def _groups(self) -> None:
        index = self.index
        named = index.group_R > 0
        sides = [np.flatnonzero(named & (index.part_R == part)) for part in (0, 1)]
        for group in np.intersect1d(index.group_R[sides[0]], index.group_R[sides[1]]).tolist():
            counts = [int((index.group_R[side] == group).sum()) for side in sides]
            first = int(sides[0][index.group_R[sides[0]] == group][0])
            self.group_leaks.append(GroupLeak(index.group(first), *counts))
        self.counts["leaks_group"] = len(self.group_leaks)
        self.group_leaks = self.group_leaks[: self.max_listed]

    def _texts(self) -> None:
        index = self.index
        for (kind, what), num in index.finding_counts.items():
            if kind == "personal":
                self.counts[f"personal_{what}"] = num
                self.counts["personal"] += num
            else:
                self.reading.problem_counts[kind] += num
        listed: Counter[tuple[str, str]] = Counter()
        for position, finding in index.findings:
            listed[finding.kind, finding.what] += 1
            if listed[finding.kind, finding.what] > self.max_listed:
                continue
            name = self.sources.name_of(int(index.part_R[position]))
            row, where = int(index.index_R[position]), index.where(position)
            if finding.kind == "personal":
                found = PersonalData(name, row, where, finding.what, finding.shown)
                self.personal.append(found)
            else:
                self.reading.problems.append(
                    Problem(name, row, where, finding.kind, finding.what, finding.shown)
                )

    def _answers(self) -> None:
        """One prompt with different answers: one is wrong, or the prompt lacks something."""
        reading = self.reading
        prompts = np.array(reading.prompts, dtype=np.uint64)
        answers = np.array(reading.answers, dtype=np.uint64)
        order = np.lexsort((answers, prompts))
        ordered = prompts[order]
        new = np.concatenate(([True], ordered[1:] != ordered[:-1]))[: len(order)]
        starts = np.flatnonzero(new)
        sizes = np.diff(np.append(starts, len(order)))
        for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
            stop = start + size
            different = len(np.unique(answers[order[start:stop]]))
            if different > 1:
                self.counts["conflicting_prompts"] += 1
                reason = f"{size} rows ask the same and have {different} answers"
                for place in sorted(order[start:stop].tolist())[:5]:
                    self.suspects.setdefault(reading.asked[place], []).append(reason)

    def _unlike_the_rest(self) -> None:
        index = self.index
        lengths_R = index.codes.lengths_R
        own = (index.part_R == 0) & (index.first_R == np.arange(len(index)))
        texts = np.flatnonzero(own & (lengths_R >= 8))
        if len(texts) < LEAST_TO_JUDGE:
            return
        bits = cross_validated_bits(index.codes, texts, index.label_R[texts])
        order = np.argsort(lengths_R[texts], kind="stable")
        for same_length in np.array_split(order, min(10, len(texts) // LEAST_TO_JUDGE)):
            z = robust_z(bits[same_length])
            for place in np.flatnonzero(np.abs(z) > FAR_OFF).tolist():
                text = int(texts[same_length[place]])
                value = bits[same_length[place]]
                words = "more" if z[place] > 0 else "less"
                reason = (
                    f"{value:.1f} bits a word under a word model of the other rows, {words} than "
                    f"rows of its length ({np.median(bits[same_length]):.1f})"
                )
                self.suspects.setdefault(text, []).append(reason)
                self.counts["unlike_the_rest"] += 1

    def _cut_rows(self, part: str, characters: np.ndarray) -> None:
        longest = int(characters.max())
        at_limit = int((characters == longest).sum())
        if longest >= 100 and at_limit >= max(5, 0.01 * len(characters)):
            self.counts["rows_at_the_same_limit"] += at_limit
            self.warnings.append(
                f"{at_limit:,} {part} rows have exactly {longest:,} characters, the most of all: "
                "they look cut off. A model that learns from cut rows learns not to stop."
            )

    def result(
        self,
        recipe: Recipe,
        measured: list[Measurement | NotMeasured],
        written: str,
        seconds: float,
    ) -> CheckResult:
        index, reading = self.index, self.reading
        sizes = np.unique(index.label_R[index.part_R == 0], return_counts=True)[1]
        for kind in ("exact", "near", "span"):
            for what in ("duplicates", "leaks"):
                self.counts[f"{what}_{kind}"] += 0
        self.counts["unreadable_train"] = reading.unreadable["train"]
        self.counts["boilerplate"] = len(index.boilerplate)
        self.counts["suspects"] = len(self.suspects)
        for kind, num in reading.problem_counts.items():
            self.counts[f"problems_{kind}"] = num
        self.counts["problems"] = sum(reading.problem_counts.values())
        options = recipe.data
        return CheckResult(
            source=self.sources.data,
            heldout=self.sources.heldout,
            against=self.sources.against,
            rows=reading.rows_by_part["train"],
            rows_by_part=dict(reading.rows_by_part),
            sha256={stream.name: stream.sha256() for _, stream in self.sources.streams},
            format=self.sources.streams[0][1].format,
            counts={name: int(num) for name, num in sorted(self.counts.items())},
            distinct_rows=len(sizes),
            effective_rows=float(sizes.sum() ** 2 / (sizes.astype(np.float64) ** 2).sum()),
            duplicates=self.duplicates,
            leaks=self.leaks,
            group_leaks=self.group_leaks,
            contamination=self.contamination,
            boilerplate=self._boilerplate(),
            problems=reading.problems,
            personal=self.personal,
            lengths=self.lengths,
            suspects=[
                Suspect(
                    int(index.index_R[position]),
                    index.where(position),
                    index.text(position)[:EXCERPT],
                    reasons,
                )
                for position, reasons in sorted(self.suspects.items())[: self.max_listed]
            ],
            leak_map=self.leak_map,
            measurements=measured,
            label_noise=self.label_noise,
            learning_curve=self.learning_curve,
            warnings=self.warnings,
            settings={
                "near_duplicate_threshold": options.near_duplicate_threshold,
                "columns": self.sources.streams[0][1].columns,
                "group": options.group,
                "seed": options.seed,
                "max_listed": self.max_listed,
            },
            written=written,
            seconds=round(seconds, 2),
        )

    def _boilerplate(self) -> list[BoilerplateText]:
        found = []
        for each in self.index.boilerplate[:100]:
            text = self.index.text(each.text)
            start, stop = place_of(text, each.start, each.start + each.length)
            example = self.index.where(each.text)
            found.append(BoilerplateText(text[start:stop][:EXCERPT], each.num_texts, example))
        return found


def lengths_of(part: str, unit: str, values: np.ndarray) -> Lengths:
    """Quantiles and a histogram whose bars grow with the length."""
    marks = (0, 0.05, 0.5, 0.95, 1)
    top = max(2.0, float(values.max()))
    edges = np.unique(np.round(np.geomspace(1, top, 25)))
    edges[0] = 0
    counts, _ = np.histogram(values, bins=edges)
    return Lengths(
        part,
        unit,
        len(values),
        int(values.sum()),
        {f"{mark:g}": float(np.quantile(values, mark)) for mark in marks},
        [
            (float(low), float(high), int(num))
            for low, high, num in zip(edges, edges[1:], counts, strict=False)
        ],
    )


# With a model


def _measure(
    sources: _Sources,
    index: Index,
    recipe: Recipe,
    model: str,
    reference: str | Path,
    model_rows: int,
    cross_validate: int,
    progress: Progress,
    found: _Findings,
) -> list[Measurement | NotMeasured]:
    if not model:
        reason = "no model was given: --model"
        return [
            NotMeasured(name, reason)
            for name in ("bits_per_byte", "information_bits", "domain_distance")
        ]
    from heldout.jobs.check_model import measure_with_model

    own = (index.part_R == 0) & (index.first_R == np.arange(len(index)))
    positions = np.flatnonzero(own)
    sample = positions[np.sort(np.argsort(index.key_R[positions], kind="stable")[:model_rows])]
    position_of = {int(index.index_R[position]): int(position) for position in sample}
    seen = measure_with_model(
        model,
        sources.streams[0][1],
        position_of,
        RowStream(reference) if reference else None,
        recipe,
        model_rows,
        len(np.unique(index.label_R[index.part_R == 0])),
        progress,
    )
    found.warnings += seen.warnings
    if seen.tokens is not None:
        found.lengths.append(lengths_of("train", "tokens", seen.tokens))
    for position, reason in seen.far_off.items():
        found.suspects.setdefault(position, []).append(reason)
    for problem in seen.problems:
        found.reading.add(problem)
    if cross_validate:
        return seen.measurements + _label_noise(
            index, seen, position_of, recipe, model, cross_validate, progress, found
        )
    return seen.measurements


def _label_noise(
    index: Index,
    seen: "SeenByModel",
    position_of: dict[int, int],
    recipe: Recipe,
    model: str,
    num_folds: int,
    progress: Progress,
    found: _Findings,
) -> list[Measurement | NotMeasured]:
    """What could not be measured; the rest is put into ``found``."""
    from heldout.jobs.label_noise import label_noise

    positions = [position_of[row.index] for row in seen.rows]
    together = Components(len(positions))
    first: dict[tuple[str, int], int] = {}
    for place, position in enumerate(positions):
        group = int(index.group_R[position])
        names = [("duplicates of", int(index.label_R[position]))]
        for name in [*names, ("group", group)] if group else names:
            together.join(first.setdefault(name, place), place)
    rows = [
        replace(row, group=str(label))
        for row, label in zip(seen.rows, together.label.tolist(), strict=True)
    ]
    try:
        found.label_noise, far_off = label_noise(
            model,
            rows,
            recipe.replace(data={"max_length": seen.max_length}),
            num_folds=num_folds,
            num_parameters=seen.num_parameters,
            where={row.index: index.where(position_of[row.index]) for row in rows},
            progress=progress,
        )
    except UserError as error:
        return [NotMeasured("doubtful_answers", str(error).rstrip("."))]
    for row, reason in far_off.items():
        found.suspects.setdefault(position_of[row], []).append(reason)
    found.counts["doubtful_answers"] = len(found.label_noise.doubtful)
    return []


def _learning_curve(
    sources: _Sources, recipe: Recipe, model: str, progress: Progress, found: _Findings
) -> list[Measurement | NotMeasured]:
    """What could not be measured; the curve is put into ``found``.

    One held-out file measures all sizes; otherwise a validation part is split off.
    """
    from heldout.jobs.learning_curve import learning_curve
    from heldout.jobs.parts import read_parts

    given: dict[str, Any] = {"test_share": 0.0}
    if len(sources.heldout) == 1:
        given["validation"] = sources.heldout[0]
    chosen = recipe.replace(data=given)
    try:
        parts = read_parts(sources.data, chosen)
        found.learning_curve = learning_curve(model, parts, chosen, progress=progress)
    except UserError as error:
        return [NotMeasured("learning_curve", str(error).rstrip("."))]
    return []
