"""The one pass over the data that is checked, and what only it can see."""

from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from heldout.core.errors import UserError
from heldout.core.results.check import Problem
from heldout.core.row import Row
from heldout.core.segments import folded
from heldout.data.benchmarks import open_test_set
from heldout.data.index import IndexedRow
from heldout.data.layout import find_layout
from heldout.data.shingles import text_key
from heldout.data.stream import RowStream
from heldout.data.turns import turns_of
from heldout.jobs.checking.options import RowsToCheck

OWN_PARTS = ("train", "heldout")


@dataclass(frozen=True)
class Sources:
    """Streams with the names of their parts: train, heldout, and the test sets by their paths."""

    data: str
    streams: list[tuple[str, RowStream]]
    heldout: list[str]
    against: list[str]
    given: list[str]  # of the held-out sources, those that the user named

    @classmethod
    def open(cls, rows: RowsToCheck) -> "Sources":
        """Raises UserError for a source that cannot be read, or a test set that is there twice."""
        data = rows.recipe.data
        columns, group = data.columns, data.group
        streams = [("train", RowStream(rows.data, columns, group, data))]
        layout = find_layout(rows.data, data)
        parts = layout.parts if layout is not None else {}
        for part in parts:
            if part != "train":
                streams.append(("heldout", RowStream(rows.data, columns, group, data, part)))
        for path in rows.heldout:
            streams.append(("heldout", RowStream(path, columns, group, data, "heldout")))
        heldout = [stream.label for name, stream in streams if name == "heldout"]
        for path in rows.against:
            # A test set has columns of its own.
            streams.append((str(path), open_test_set(str(path), data)))
        names = [str(path) for path in rows.against]
        if len(set(names)) < len(names) or set(names) & set(OWN_PARTS):
            raise UserError("--against names each test set once.")
        given = [str(path) for path in rows.heldout]
        return cls(str(rows.data), streams, heldout, names, given)

    def notes(self) -> list[str]:
        """How the sources were read."""
        return list(dict.fromkeys(note for _, stream in self.streams for note in stream.notes()))

    def part_of(self, name: str) -> int:
        return OWN_PARTS.index(name) if name in OWN_PARTS else 2 + self.against.index(name)

    def name_of(self, part: int) -> str:
        return OWN_PARTS[part] if part < 2 else self.against[part - 2]


@dataclass
class SourcePass:
    """The one pass over the sources, and what only it can see."""

    sources: Sources
    max_listed: int
    by_group: bool  # the user named a column, which overrules prompts and answers
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
                if row.kind != "text":
                    for message in _template_faults(row):
                        self.add(Problem(name, index, item.where, "template", message))
                    if part == 0:
                        self._note_answer(row, position)
                group = row.group if row.group != f"row-{item.index}" else f"row-{index}"
                turns = () if self.by_group else turns_of(row)
                yield IndexedRow(part, index, item.where, group, row.text, turns)
                position += 1
            offsets[name] = self.rows_by_part[name]

    def add(self, problem: Problem) -> None:
        self.problem_counts[problem.kind] += 1
        if self.problem_counts[problem.kind] <= self.max_listed:
            self.problems.append(problem)

    def _note_answer(self, row: Row, position: int) -> None:
        contents = [message["content"] for message in row.messages]
        for store, text in ((self.prompts, "\n".join(contents[:-1])), (self.answers, contents[-1])):
            store.append(int.from_bytes(text_key(folded(text))[:8], "little"))
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
