"""Every chat template that the installed TRL ships, patched and not, on ten conversations.

One to three turns, a system message, reasoning in each place, calls of tools with their results,
adjacent turns of the user, empty reasoning. The truth is the rendering turn by turn, of which
``tests/contracts/turn_by_turn.py`` is the slow form, and the mask of TRL's patched template where
that renders the same text, byte for byte.

- ``templates``: tried.
- ``refused_plain``: plain conversations, of one to three turns, that are refused or of which an
  answer is not scored exactly once.
- ``wrong_mask``: conversations with an answer that is scored otherwise than the truth, or behind
  another context.
- ``lost_content_unnoticed``: conversations that are accepted though some of their text is not
  rendered.
- ``refused_needlessly``: conversations that are refused though a rendering holds all of them.

    python benchmarks/chat_templates.py [--write]
"""

import argparse
import hashlib
import importlib.metadata
import sys
import time
from pathlib import Path

from record import write_record

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "contracts"))

from turn_by_turn import CONVERSATIONS, PLAIN, TEMPLATES, Judged, judge, template_names

MOST = {"refused_plain": 0, "wrong_mask": 0, "lost_content_unnoticed": 0, "refused_needlessly": 0}
"""A user who is refused cannot train; a wrong mask or lost text shows nowhere, so none may be."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the record")
    arguments = parser.parse_args()
    start = time.process_time()
    names = template_names()
    judged = {name: [judge(name, each) for each in CONVERSATIONS] for name in names}
    every = [one for of_template in judged.values() for one in of_template]
    figures = {
        "templates": len(names),
        "conversations": len(CONVERSATIONS),
        "refused_plain": sum(bool(one.refusal or one.wrong) for one in every if is_plain(one)),
        "wrong_mask": sum(bool(one.wrong) for one in every),
        "lost_content_unnoticed": sum(bool(one.lost) for one in every),
        "refused_needlessly": sum(one.needless for one in every),
        "accepted": sum(not one.refusal for one in every),
        "compared_with_patched": sum(one.compared_with_patch for one in every),
        "seconds": time.process_time() - start,
    }
    for name, value in figures.items():
        limit = f" (at most {MOST[name]})" if name in MOST else ""
        print(f"{name}: {value:g}{limit}")
    table = [row_of(name, of_template) for name, of_template in judged.items()]
    for row in table:
        print(row)
    if arguments.write:
        digest = hashlib.sha256()
        for path in sorted(TEMPLATES.glob("*.jinja")):
            digest.update(path.read_bytes())
        note = f"templates of trl {importlib.metadata.version('trl')}"
        write_record(
            "chat_templates",
            figures,
            table=table,
            seeds=[],
            data_sha256=digest.hexdigest(),
            note=note,
        )
    sys.exit(any(figures[name] > most for name, most in MOST.items()))


def is_plain(judged: Judged) -> bool:
    return judged.conversation in PLAIN


def row_of(template: str, judged: list[Judged]) -> dict:
    """One template: examples of each conversation, or why it is refused."""
    found = {"template": template}
    for one in judged:
        reason = one.refusal.removeprefix("Row 0: the chat template ")
        found[one.conversation] = reason.partition(", which would")[0] or one.num_examples
    return found


if __name__ == "__main__":
    main()
