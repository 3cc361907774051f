"""From the index of a check to what is told: duplicates, leaks, personal data, unusual rows."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from heldout.core.graphemes import boundary_before
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.results.check import (
    KINDS,
    BoilerplateText,
    CheckResult,
    Excerpt,
    GroupLeak,
    Lengths,
    Pair,
    PersonalDataFound,
    Problem,
    Suspect,
)
from heldout.data.build_index import build_index
from heldout.data.index import Index
from heldout.data.notes import boilerplate_notes
from heldout.data.overlap import cut_rows
from heldout.data.pairs import Engine
from heldout.data.relations import Relation, relations
from heldout.data.shingles import place_of
from heldout.data.stream import nothing_to_train_on
from heldout.data.surprise import cross_validated_bits, robust_z
from heldout.jobs.checking.clean import CleanCopy
from heldout.jobs.checking.lengths import lengths_of
from heldout.jobs.checking.model_questions import ModelAnswers
from heldout.jobs.checking.options import RowsToCheck
from heldout.jobs.checking.semantic import find_paraphrases
from heldout.jobs.checking.sources import OWN_PARTS, SourcePass, Sources

EXCERPT = 4000  # characters of a row that are shown at most
AROUND = 240  # characters on both sides of a shared span
MOST_ON_MAP = 4000
LEAST_TO_JUDGE = 200  # rows that tell what is unusual
FAR_OFF = 5.0  # robust standard deviations
# Within a part; different answers to one prompt are told as suspects.
NO_DUPLICATES = ("prompt", "answer", "paraphrase")


def look_through(
    sources: Sources,
    rows: RowsToCheck,
    folder: Path,
    engine: Engine,
    progress: Progress,
    *,
    to_deal: bool = False,
) -> "Findings":
    """Read and index all rows in ``folder``, which is empty, and collect what they tell.

    ``to_deal``: training rows are dealt out, so that paraphrases among them are looked for too.
    Raises UserError where no training row can be trained on.
    """
    read = SourcePass(sources, rows.max_listed, bool(rows.recipe.data.group))
    index = build_index(
        read.rows(),
        folder,
        threshold=rows.recipe.data.near_duplicate_threshold,
        engine=engine,
        progress=progress,
    )
    if not (index.part_R == 0).any():
        first = read.problems[0]
        num_rows = read.rows_by_part["train"]
        raise nothing_to_train_on(num_rows, first.where, first.message)
    found = Findings(sources, read, index, rows.max_listed)
    if rows.semantic:
        found.warnings += find_paraphrases(index, rows.semantic, to_deal, progress)
    with progress.stage("what the rows tell"):
        found.collect()
    return found


@dataclass
class Findings:
    """From the index to what is told, with texts read from disk for what is listed."""

    sources: Sources
    rows_read: SourcePass
    index: Index
    max_listed: int
    counts: Counter[str] = field(default_factory=Counter)
    duplicates: list[Pair] = field(default_factory=list)
    leaks: list[Pair] = field(default_factory=list)
    contamination: dict[str, list[Pair]] = field(default_factory=dict)
    group_leaks: list[GroupLeak] = field(default_factory=list)
    personal: list[PersonalDataFound] = field(default_factory=list)
    suspects: dict[int, list[str]] = field(default_factory=dict)  # position -> reasons
    warnings: list[str] = field(default_factory=list)
    leak_map: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    lengths: list[Lengths] = field(default_factory=list)
    _beginnings: dict[int, Excerpt] = field(default_factory=dict)

    def collect(self) -> None:
        """Everything that the rows tell without a model."""
        self._relations()
        self.warnings += boilerplate_notes(self.index)
        self._groups()
        self._texts()
        self._answers()
        self._unlike_the_rest()
        for part in OWN_PARTS:
            rows = np.flatnonzero(self.index.part_R == OWN_PARTS.index(part))
            if len(rows):
                words = self.index.codes.lengths_R[rows]
                characters = self.index.num_characters_R[rows]
                if 2 * words.sum() < characters.sum():  # else each character is a word of its own
                    self.lengths.append(lengths_of(part, "words", words))
                self.lengths.append(lengths_of(part, "characters", characters))
                num_cut, warning = cut_rows(part, self.index, rows)
                if num_cut:
                    self.counts["rows_at_the_same_limit"] += num_cut
                    self.warnings.append(warning)

    def _relations(self) -> None:
        index, listed = self.index, Counter[tuple[str, str]]()
        leaked: tuple[set[int], set[int]] = (set(), set())
        contaminated: set[int] = set()
        self.contamination = {name: [] for name in self.sources.against}
        for found in relations(index):
            part_a, part_b = int(index.part_R[found.first]), int(index.part_R[found.second])
            if part_a == part_b and found.kind in NO_DUPLICATES:
                continue
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
            totals = self.rows_read.rows_by_part
            places.append(
                (
                    round(float(self.index.index_R[found.first]) / totals["train"], 8),
                    round(float(self.index.index_R[found.second]) / totals["heldout"], 8),
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
        """The beginning of a row, which many pairs may show, or what is around a shared span."""
        if tokens is not None:
            return self._excerpt(position, tokens)
        if position not in self._beginnings:
            self._beginnings[position] = self._excerpt(position, None)
        return self._beginnings[position]

    def _excerpt(self, position: int, tokens: tuple[int, int] | None) -> Excerpt:
        index = self.index
        text = index.text(position)
        shared = (0, 0)
        if tokens is not None:
            start, stop = place_of(text, *tokens)
            low, high = max(0, start - AROUND), min(len(text), stop + AROUND)
            stop = min(stop, low + EXCERPT)
            low, high = (boundary_before(text, place) for place in (low, min(high, low + EXCERPT)))
            text, shared = text[low:high], (start - low, stop - low)
        row = int(index.index_R[position])
        where, group = index.about(position)
        return Excerpt(
            row,
            where,
            "" if group == f"row-{row}" else group,
            text[: boundary_before(text, EXCERPT)],
            shared,
        )

    def _groups(self) -> None:
        index = self.index
        named = index.group_R > 0
        sides = [np.flatnonzero(named & (index.part_R == part)) for part in (0, 1)]
        for group in np.intersect1d(index.group_R[sides[0]], index.group_R[sides[1]]).tolist():
            counts = [int((index.group_R[side] == group).sum()) for side in sides]
            first = int(sides[0][index.group_R[sides[0]] == group][0])
            self.group_leaks.append(GroupLeak(index.about(first)[1], *counts))
        self.counts["leaks_group"] = len(self.group_leaks)
        self.group_leaks = self.group_leaks[: self.max_listed]

    def _texts(self) -> None:
        index = self.index
        for (kind, what), num in index.finding_counts.items():
            if kind == "personal":
                self.counts[f"personal_{what}"] = num
                self.counts["personal"] += num
            else:
                self.rows_read.problem_counts[kind] += num
        listed: Counter[tuple[str, str]] = Counter()
        for position, finding in index.findings:
            listed[finding.kind, finding.what] += 1
            if listed[finding.kind, finding.what] > self.max_listed:
                continue
            name = self.sources.name_of(int(index.part_R[position]))
            row, where = int(index.index_R[position]), index.where(position)
            if finding.kind == "personal":
                found = PersonalDataFound(name, row, where, finding.what, finding.shown)
                self.personal.append(found)
            else:
                self.rows_read.problems.append(
                    Problem(name, row, where, finding.kind, finding.what, finding.shown)
                )

    def _answers(self) -> None:
        """One prompt with different answers: one is wrong, or the prompt lacks something."""
        read = self.rows_read
        prompts = np.array(read.prompts, dtype=np.uint64)
        answers = np.array(read.answers, dtype=np.uint64)
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
                    self.suspects.setdefault(read.asked[place], []).append(reason)

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

    def add_answers(self, answers: ModelAnswers) -> None:
        """Put what a model told beside what the rows told."""
        self.warnings += answers.warnings
        self.lengths += answers.lengths
        for problem in answers.problems:
            self.rows_read.add(problem)
        for position, reason in answers.suspects:
            self.suspects.setdefault(position, []).append(reason)
        if answers.label_noise is not None:
            self.counts["doubtful_answers"] = len(answers.label_noise.doubtful)

    def result(
        self, recipe: Recipe, answers: ModelAnswers, copy: CleanCopy | None, seconds: float
    ) -> CheckResult:
        """All of it, typed; ``copy`` is the clean copy that was written."""
        index, read = self.index, self.rows_read
        sizes = np.unique(index.label_R[index.part_R == 0], return_counts=True)[1]
        self._count_all()
        train = self.sources.streams[0][1]
        options = recipe.data
        return CheckResult(
            source=self.sources.data,
            heldout=self.sources.heldout,
            against=self.sources.against,
            rows=read.rows_by_part["train"],
            rows_by_part=dict(read.rows_by_part),
            sha256={stream.label: stream.sha256() for _, stream in self.sources.streams},
            format=train.format,
            counts={name: int(num) for name, num in sorted(self.counts.items())},
            distinct_rows=len(sizes),
            effective_rows=float(sizes.sum() ** 2 / (sizes.astype(np.float64) ** 2).sum()),
            duplicates=self.duplicates,
            leaks=self.leaks,
            group_leaks=self.group_leaks,
            contamination=self.contamination,
            boilerplate=self._boilerplate(),
            problems=read.problems,
            personal=self.personal,
            lengths=self.lengths,
            suspects=self._suspects(),
            leak_map=self.leak_map,
            measurements=answers.measurements,
            label_noise=answers.label_noise,
            learning_curve=answers.learning_curve,
            warnings=[*self.warnings, *(copy.notes if copy else ())],
            settings={
                "near_duplicate_threshold": options.near_duplicate_threshold,
                "columns": train.columns,
                "group": options.group,
                "seed": options.seed,
                "max_listed": self.max_listed,
            },
            reading=self.sources.notes(),
            written=str(copy.folder) if copy else "",
            seconds=round(seconds, 2),
        )

    def _count_all(self) -> None:
        read = self.rows_read
        for kind in KINDS:
            self.counts[f"leaks_{kind}"] += 0
        for what in ("exact", "near", "span"):
            self.counts[f"duplicates_{what}"] += 0
        for part in OWN_PARTS:
            self.counts[f"unreadable_{part}"] = read.unreadable[part]
        self.counts["boilerplate"] = len(self.index.boilerplate)
        self.counts["suspects"] = len(self.suspects)
        for problem, num in read.problem_counts.items():
            self.counts[f"problems_{problem}"] = num
        self.counts["problems"] = sum(read.problem_counts.values())

    def _suspects(self) -> list[Suspect]:
        index = self.index
        return [
            Suspect(
                int(index.index_R[position]),
                index.where(position),
                index.text(position)[:EXCERPT],
                reasons,
            )
            for position, reasons in sorted(self.suspects.items())[: self.max_listed]
        ]

    def _boilerplate(self) -> list[BoilerplateText]:
        found = []
        for each in self.index.boilerplate[:100]:
            text = self.index.text(each.text)
            start, stop = place_of(text, each.start, each.start + each.length)
            stop = min(stop, start + EXCERPT)
            example = self.index.where(each.text)
            found.append(
                BoilerplateText(text[start : boundary_before(text, stop)], each.num_texts, example)
            )
        return found
