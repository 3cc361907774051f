"""Public test sets by their names, for ``heldout check --against gsm8k``."""

from dataclasses import dataclass, field
from pathlib import Path

from heldout.core.errors import UserError
from heldout.core.recipe import DataSection
from heldout.data.stream import RowStream


@dataclass(frozen=True)
class TestSet:
    """Where a test set lies on the Hub, and which of its columns hold the text."""

    __test__ = False  # for pytest, which would collect it

    source: str  # name, name:split or name:config:split
    columns: dict[str, str] = field(default_factory=dict)


KNOWN = {
    "arc-challenge": TestSet("allenai/ai2_arc:ARC-Challenge:test", {"text": "question"}),
    "arc-easy": TestSet("allenai/ai2_arc:ARC-Easy:test", {"text": "question"}),
    "boolq": TestSet("google/boolq:validation", {"text": "passage"}),
    "gsm8k": TestSet("openai/gsm8k:main:test", {"prompt": "question", "completion": "answer"}),
    "hellaswag": TestSet("Rowan/hellaswag:validation", {"text": "ctx"}),
    "humaneval": TestSet(
        "openai/openai_humaneval:test", {"prompt": "prompt", "completion": "canonical_solution"}
    ),
    "mbpp": TestSet(
        "google-research-datasets/mbpp:full:test", {"prompt": "text", "completion": "code"}
    ),
    "mmlu": TestSet("cais/mmlu:all:test", {"text": "question"}),
    "truthfulqa": TestSet("truthfulqa/truthful_qa:generation:validation", {"text": "question"}),
    "winogrande": TestSet("allenai/winogrande:winogrande_xl:validation", {"text": "sentence"}),
}


def open_test_set(name: str, data: DataSection | None = None) -> RowStream:
    """A file or folder of that name, else a known test set or another data set of the Hub.

    Of a folder that holds a split its test part is read. Raises UserError in one line, also
    where the Hub cannot be reached.
    """
    known = KNOWN.get(Path(name).stem.lower())
    if Path(name).expanduser().exists():
        if known is None:
            return RowStream(name, data=data, part="heldout")
        try:
            return RowStream(name, data=data, part="heldout")
        except UserError:
            return RowStream(name, known.columns, data=data, part="heldout")
    if known is None or name.lower() not in KNOWN:
        return RowStream(name, data=data, part="heldout")
    try:
        return RowStream(known.source, known.columns)
    except UserError as error:
        raise UserError(
            f"--against {name}: {str(error).rstrip('.')}. Without the Hub, give a file or folder "
            f"of that name with its rows."
        ) from None
