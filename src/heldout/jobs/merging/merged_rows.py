"""What is merged, and the rows that show whether the merged model predicts as before."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.row import Row
from heldout.core.run import Run
from heldout.data.columns import read_rows
from heldout.jobs.kit.given_data import DataSource, given_data

_MODELS = ("best", "last", "fixed_epochs")
# For logits alone, where no rows are known.
_TEXTS = (
    "Water boils at a lower temperature on a mountain, because the air presses on it less. "
    "Climbers know this: at 4,000 metres rice takes longer to cook.",
    "在高山上，水的沸点较低，因为空气对它的压力较小。登山者都知道：在海拔 4000 米处，煮饭要更久。",
    "Question: How many legs have three spiders and two birds?\nAnswer: 3 * 8 + 2 * 2 = 28.",
)


@dataclass(frozen=True)
class MergeSource:
    """The folder with the weights, the recipe that it is measured by, and the rows."""

    folder: Path
    shown: str
    recipe: Recipe
    part: str  # validation, train, heldout, or texts of the package
    rows: tuple[Row, ...]

    @property
    def has_rows(self) -> bool:
        """Whether a loss on the rows means anything."""
        return self.part != "texts"


@contextmanager
def merge_source(run: Any, heldout: DataSource | None, trust_code: bool) -> Iterator[MergeSource]:
    """Of a run, a result of ``heldout.fit``, or a folder; UserError for what is none of them."""
    opened, folder = _found(run)
    recipe = opened.recipe if opened is not None else Recipe()
    if opened is not None and not trust_code:
        opened.refuse_own_code()
    if heldout is not None:
        with given_data(heldout) as given:
            data = recipe.data if opened is not None else Recipe().data
            read = given.renamed(read_rows(given.path, data.columns, data.group))
            yield MergeSource(folder, str(folder), recipe, "heldout", tuple(read.rows))
        return
    part, rows = ("texts", _texts()) if opened is None else _of_run(opened)
    yield MergeSource(folder, str(folder), recipe, part, rows)


def _found(run: Any) -> tuple[Run | None, Path]:
    """The run, where there is one, and the folder of the model."""
    given = getattr(run, "run", run)
    path = given.folder if isinstance(given, Run) else Path(given).expanduser()
    if not path.is_dir():
        raise UserError(f"{path}: no such run or folder here.")
    if (path / "status.json").is_file():
        opened = Run.open(path)
        if not opened.best.is_dir():
            raise UserError(
                f"{path} has no best checkpoint yet: go on with `heldout fit --resume {path}`."
            )
        return opened, opened.best
    around = path.absolute().parent
    if path.name in _MODELS and (around / "status.json").is_file():
        return Run.open(around), path
    return None, path


def _of_run(run: Run) -> tuple[str, tuple[Row, ...]]:
    """Its validation part; after a cross-validation, which has none, its training rows."""
    if run.path("data/validation.jsonl").is_file() and (rows := tuple(run.read_rows("validation"))):
        return "validation", rows
    if run.path("data/train.jsonl").is_file() and (rows := tuple(run.read_rows("train"))):
        return "train", rows
    return "texts", _texts()


def _texts() -> tuple[Row, ...]:
    return tuple(
        Row(number, ({"role": "text", "content": text},), f"text-{number}")
        for number, text in enumerate(_TEXTS)
    )
