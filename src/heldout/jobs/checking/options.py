"""What a check is asked for, one small type for each of its three jobs, and what is refused."""

from dataclasses import dataclass
from pathlib import Path

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.jobs.checking.clean import refuse_occupied

BY_A_MODEL = ("bits_per_byte", "information_bits", "domain_distance")  # measured where one is given


@dataclass(frozen=True)
class RowsToCheck:
    """The rows that are looked through."""

    data: str | Path
    heldout: tuple[str | Path, ...]
    against: tuple[str | Path, ...]
    recipe: Recipe
    max_listed: int  # of each kind
    engine: str
    semantic: str = ""  # a sentence encoder; empty: paraphrases are not looked for


@dataclass(frozen=True)
class ModelQuestions:
    """What a model is asked about the rows; nothing where ``model`` is empty."""

    model: str
    reference: str | Path  # a text of the model's own domain; empty: none
    max_rows: int
    num_folds: int  # of the cross-validation of labels; 0: none
    learning_curve: bool


@dataclass(frozen=True)
class CopyWanted:
    """Where the clean copy goes, None for nowhere, and how many canaries are planted in it."""

    folder: Path | None
    num_canaries: int


def refuse_unfit(
    rows: RowsToCheck, questions: ModelQuestions, copy: CopyWanted, out: Path | None
) -> None:
    """Raise UserError for options that do not fit together or are out of range."""
    if copy.num_canaries and copy.folder is None:
        raise UserError("--plant-canaries needs --write-clean DIR: canaries go into a copy.")
    if copy.num_canaries < 0 or rows.max_listed < 1 or questions.max_rows < 2:
        raise UserError(
            "--plant-canaries must be 0 or more, --max-listed 1 or more and --model-rows 2 or "
            f"more, got {copy.num_canaries}, {rows.max_listed} and {questions.max_rows}."
        )
    needing_a_model = {
        "--reference": questions.reference,
        "--cross-validate": questions.num_folds,
        "--learning-curve": questions.learning_curve,
    }
    for name, value in needing_a_model.items():
        if value and not questions.model:
            raise UserError(f"{name} is measured with a model: give --model too.")
    if questions.num_folds and questions.num_folds < 2:
        raise UserError(f"--cross-validate must be 2 folds or more, got {questions.num_folds}.")
    for folder in (out, copy.folder):
        if folder is not None:
            refuse_occupied(folder)
