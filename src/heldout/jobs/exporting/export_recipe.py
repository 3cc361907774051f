"""The settings of a recipe, or of a run's best, for another trainer: a snippet ready to use.

One trainer a file; what has no counterpart there stands in the snippet as a comment.
"""

from collections.abc import Callable
from pathlib import Path

from heldout.core.errors import UserError, did_you_mean
from heldout.core.files import holds_files, write_text, written_whole
from heldout.jobs.exporting import axolotl, llama_factory, mlx, trl, unsloth
from heldout.jobs.exporting.recipe_to_export import RecipeToExport, read_source
from heldout.jobs.exporting.rows import write_rows

TRAINERS: dict[str, Callable[[RecipeToExport], str]] = {
    "trl": trl.snippet,
    "axolotl": axolotl.snippet,
    "llama-factory": llama_factory.snippet,
    "unsloth": unsloth.snippet,
    "mlx": mlx.snippet,
}
_FILES = {"trl": "train.py", "unsloth": "train.py"}  # others: train.yaml


def export_recipe(source: str | Path, trainer: str, rows: str | None = None) -> str:
    """A script (trl, unsloth) or YAML (axolotl, llama-factory, mlx) with the settings of a source.

    ``source`` is a run folder, a ready recipe's name or a .toml file. Of a run the learning rate is
    the one that was found, and the number of epochs that of its best checkpoint. ``rows`` says what
    those are that a recipe will be given: text, completion (a prompt with it) or conversation,
    which is the default; a run has its own. Raises UserError for an unknown source or trainer.
    """
    return _snippet_for(trainer)(read_source(source, rows))


def write_export(
    source: str | Path, trainer: str, out: str | Path, rows: str | None = None
) -> list[Path]:
    """Write the snippet: a path with a suffix is its file, any other a folder.

    Into a folder go also the training and validation rows of a run, in the columns that the trainer
    reads; its test rows stay sealed. Returns the files. Raises UserError where something lies at
    ``out`` already.
    """
    snippet, read, out = _snippet_for(trainer), read_source(source, rows), Path(out)
    if out.is_file() or (out.is_dir() and (out.suffix or holds_files(out))):
        raise UserError(f"--out {out} exists already: give another name. Nothing was written.")
    text = snippet(read)
    if out.suffix:
        return [write_text(out, text)]
    with written_whole(out) as partial:
        partial.mkdir(parents=True)
        write_text(partial / _FILES.get(trainer, "train.yaml"), text)
        write_rows(read, trainer, partial)
    return sorted(out.iterdir())


def _snippet_for(name: str) -> Callable[[RecipeToExport], str]:
    if name not in TRAINERS:
        raise UserError(f"--for names no trainer, {name!r}{did_you_mean(name, list(TRAINERS))}")
    return TRAINERS[name]
