"""JUnit XML, as continuous integration shows it."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from heldout.core.errors import UserError
from heldout.core.files import written_whole


@dataclass(frozen=True)
class Case:
    """One test case: what was looked at, and how it went."""

    name: str
    status: Literal["passed", "failed", "skipped"]
    message: str
    kind: str = ""  # type of a failure
    output: str = ""


def refuse_unwritable(path: Path | None) -> None:
    """UserError, before the work whose end it tells, for a file that cannot be written there."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        what = "is a folder" if path.is_dir() else "lies in a folder that is not there"
        raise UserError(f"--junit {path} {what}: give the name of a file in one that is.")


def write_cases(path: Path, suite: str, classname: str, cases: Sequence[Case]) -> None:
    """Write one test suite, whole or not at all."""
    root = ElementTree.Element("testsuite", name=suite, tests=str(len(cases)))
    for each in cases:
        case = ElementTree.SubElement(root, "testcase", classname=classname, name=each.name)
        if each.status == "failed":
            ElementTree.SubElement(case, "failure", message=each.message, type=each.kind)
        elif each.status == "skipped":
            ElementTree.SubElement(case, "skipped", message=each.message)
        if each.output:
            ElementTree.SubElement(case, "system-out").text = each.output
    root.set("failures", str(sum(each.status == "failed" for each in cases)))
    with written_whole(path) as partial:
        ElementTree.ElementTree(root).write(partial, encoding="utf-8", xml_declaration=True)
