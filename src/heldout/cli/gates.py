"""What ``heldout check --fail-on`` lets pass: any finding, or more of it than a share or number."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from heldout.cli.junit import Case, write_cases
from heldout.core.errors import UserError

if TYPE_CHECKING:
    from heldout.core.results.check import CheckResult

GATES = ("leak", "duplicate", "contamination", "personal", "problem")
_FORM = re.compile(
    r"(?P<name>[a-z]+?)s?\s*(?:>\s*(?P<number>\d+(?:\.\d*)?|\.\d+)\s*(?P<share>%?))?"
)


@dataclass(frozen=True)
class Gate:
    """Fails where there is more than ``most`` of something."""

    name: str
    most: float = 0.0
    is_share: bool = False  # of the rows, in percent; else rows, and without a limit findings

    @property
    def words(self) -> str:
        """As the user may have written it."""
        if not self.most and not self.is_share:
            return self.name
        return f"{self.name}>{self.most:g}{'%' if self.is_share else ''}"


def parse_gate(text: str) -> Gate:
    """``leak``, ``leaks>1%`` or ``duplicates>20``; raises UserError for anything else."""
    found = _FORM.fullmatch(text.strip())
    if found is None or found["name"] not in GATES:
        raise UserError(
            f"--fail-on must be one of {', '.join(GATES)}, each also with a limit as in leak>1% or "
            f"duplicate>20, got {text!r}."
        )
    return Gate(found["name"], float(found["number"] or 0), found["share"] == "%")


def refuse_gates(gates: Sequence[Gate], has_heldout: bool, has_tests: bool) -> None:
    """Raise UserError for gates that nothing was given for."""
    names = {gate.name for gate in gates}
    if "leak" in names and not has_heldout:
        raise UserError("--fail-on leak needs --heldout FILE, or a folder that holds a split.")
    if "contamination" in names and not has_tests:
        raise UserError("--fail-on contamination needs --against FILE.")


def found_by(gate: Gate, result: "CheckResult") -> tuple[int, int]:
    """How much there is of what a gate asks for, and of how many rows."""
    counts = result.counts
    train = result.rows_by_part["train"]
    tests = sum(result.rows_by_part.get(name, 0) for name in result.against)
    has_limit = gate.most or gate.is_share
    rows_and_groups = counts["leaked_heldout_rows"] + counts["leaks_group"]
    return {
        "leak": (
            rows_and_groups if has_limit else result.num_leaks,
            result.rows_by_part.get("heldout", 0),
        ),
        "duplicate": (counts["duplicates_exact"] + counts["duplicates_near"], train),
        "contamination": (counts["contaminated_rows"], tests),
        "personal": (counts.get("personal", 0), train),
        "problem": (counts["problems"], train),
    }[gate.name]


def is_passed(gate: Gate, result: "CheckResult") -> bool:
    """Whether there is no more than the gate allows."""
    num, rows = found_by(gate, result)
    return (100 * num / max(1, rows) if gate.is_share else num) <= gate.most


def failures(gates: Sequence[Gate], result: "CheckResult") -> list[str]:
    """The gates that are not passed, with what was found."""
    return [
        f"{gate.words} ({_told(gate, result)})" for gate in gates if not is_passed(gate, result)
    ]


def _told(gate: Gate, result: "CheckResult") -> str:
    num, rows = found_by(gate, result)
    return f"{num:,} of {rows:,} rows: {num / max(1, rows):.2%}" if gate.is_share else f"{num:,}"


def write_junit(gates: Sequence[Gate], result: "CheckResult", path: Path) -> None:
    """A test case for each gate, and one for each kind of finding without a gate, which passes."""
    named = {gate.name for gate in gates}
    others = [
        Gate(name)
        for name in GATES
        if name not in named
        and (name != "leak" or result.heldout)
        and (name != "contamination" or result.against)
    ]
    cases = [
        Case(
            gate.words,
            "passed" if gate.name not in named or is_passed(gate, result) else "failed",
            f"{gate.name}: {_told(gate, result)}",
            gate.name,
            f"{gate.name}: {_told(gate, result)}",
        )
        for gate in (*gates, *others)
    ]
    write_cases(path, "heldout check", "heldout.check", cases)
