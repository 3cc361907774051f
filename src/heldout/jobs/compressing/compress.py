"""How far a model compresses a data set when it learns from nothing but what it has decoded.

The prequential code (Dawid 1984): blocks of documents, each twice as long as all before it; every
block is coded by a model that was trained on the earlier ones, so the sum of the code lengths
needs no weights to be sent (Blier and Ollivier 2018, arXiv 1802.07044). What it saves against the
base model is structure that documents share. What training saves on text that was seen, beyond
what it saves on text that was not, is rote. The same documents with their words shuffled are the
control: what is learned of these is the words, not their order.
"""

# D documents, K blocks

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from heldout.core.errors import UserError
from heldout.core.files import holds_files, write_text
from heldout.core.interrupt import stop_on_interrupt
from heldout.core.lock import alone_in, scratch_folder
from heldout.core.progress import Progress
from heldout.core.recipe import DEFAULT, Recipe, same_settings
from heldout.core.regularizer import overrides_hook
from heldout.core.results.compression import CompressResult
from heldout.core.row import Row
from heldout.core.segments import items
from heldout.data.columns import ReadRows, read_rows
from heldout.jobs.compressing.compressors import general_compressors
from heldout.jobs.compressing.figures import result_of
from heldout.jobs.compressing.prequential import Coder, Strategy
from heldout.jobs.kit.chosen_recipe import recipe_for
from heldout.jobs.kit.given_data import DataSource, given_data
from heldout.jobs.kit.given_model import ModelSource, given_model
from heldout.jobs.kit.page_folder import write_page_folder
from heldout.jobs.kit.prepare import regularizers_of
from heldout.jobs.kit.target import Target
from heldout.lm.quiet import quiet_libraries
from heldout.report import compress as page


def compress(
    data: DataSource,
    *,
    model: ModelSource,
    tokenizer: Any = None,
    from_scratch: str = "",
    recipe: str | Path | Recipe = DEFAULT,
    settings: Sequence[str] = (),
    strategy: Strategy = "restart",
    blocks: int = 7,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> CompressResult:
    """Code lengths of ``data`` under ``model`` as it learns from it, and what they say.

    data, model, tokenizer: what ``heldout.fit`` takes, names or objects; with ``from_scratch``, a
    config.json, ``model`` is there for its tokenizer.
    recipe: how each model is trained, the default as for ``heldout.fit``. Its checkpoints are the
    candidates for a block, which names the one that codes it.
    strategy: each block's model is trained from the start again, or goes on from the last.
    blocks: the first holds 1/2^(blocks - 1) of the tokens, every other one as many as all before.
    out: folder for ``compress.json`` and ``report.html``; the same call goes on there.

    Costs about two trainings on all of the data, and as much again for the control. Raises
    UserError for what cannot be coded, Interrupted on Ctrl-C.
    """
    progress = progress or Progress()
    if strategy not in ("restart", "continue"):
        raise UserError(f"--strategy must be restart or continue, got {strategy!r}.")
    if blocks < 2:
        raise UserError(f"--blocks must be 2 or more, got {blocks}.")
    with given_data(data) as rows, given_model(model, tokenizer) as given:
        target = Target.of(given.name, from_scratch)
        chosen = _chosen(recipe, settings, target)
        read = rows.renamed(
            read_rows(rows.path, chosen.data.columns, chosen.data.group, data=chosen.data)
        )
        for note in read.notes:
            progress.note(note)
        about = {
            "data": rows.shown,
            "sha256": read.sha256,
            "model": target.model if given.object is None else given.shown,
            **({} if given.object is None else {"sha256_model": given.digest}),
            "from_scratch": _content_or_name(target.from_scratch),
            "recipe": chosen.to_toml(),
            "strategy": strategy,
            "blocks": blocks,
        }
        return _compress(read, target, chosen, about, out, progress)


def _compress(
    read: ReadRows,
    target: Target,
    chosen: Recipe,
    about: dict[str, Any],
    out: str | Path | None,
    progress: Progress,
) -> CompressResult:
    """``about``: all that the code lengths depend on."""
    strategy, blocks = about["strategy"], about["blocks"]
    with quiet_libraries(), stop_on_interrupt() as asked, _folder(out) as folder:
        coder = Coder(target, chosen, strategy, folder / "blocks", progress, asked)
        rows = [_as_text(row) for row in read.rows]
        if chosen.data.max_rows:
            rows = rows[: chosen.data.max_rows]
        real = coder.documents(rows, blocks)
        shuffled = coder.documents(
            [_shuffled(row, chosen.data.seed) for row in real.rows], blocks, ends=real.ends
        )
        _claim(folder, about)
        (folder / "blocks").mkdir(exist_ok=True)
        total = 2 * coder.planned(real) + coder.planned(shuffled)
        with progress.stage("coding", total):
            coded = coder.code(real, "as it is")
            control = coder.code(shuffled, "words shuffled")
            two_part = coder.two_part(real, coded)
        general = general_compressors([row.text for row in real.rows], real.ends)
        result = result_of(real, shuffled, coded, control, two_part, general, coder, about)
        if out is None:
            return result
        result = replace(result, report=str(folder / "report.html"))
        write_page_folder(
            folder,
            "compress.json",
            result.to_json(),
            lambda path: page.write_compress(result, path),
        )
        return result


# Arguments, texts, folders


def _chosen(recipe: str | Path | Recipe, settings: Sequence[str], target: Target) -> Recipe:
    with quiet_libraries():
        chosen = recipe_for(target, recipe, settings)
    if target.from_scratch and chosen.model.method != "full":
        raise UserError(
            "--from-scratch trains all parameters: use --recipe full, or --set model.method=full."
        )
    if chosen.augment:
        raise UserError(
            "compress codes the rows as they are: leave the recipe's [augment] out, got "
            f"{', '.join(chosen.augment)}."
        )
    for name, regularizer in zip(chosen.regularizers, regularizers_of(chosen), strict=True):
        if overrides_hook(regularizer, "finish"):
            raise UserError(
                f"{name} chooses by a held-out loss after training, and compress holds nothing "
                f"out: leave it out with --set regularizers.{name}=false."
            )
    return chosen


def _as_text(row: Row) -> Row:
    """Prompts are coded too, so that every code is of the same bytes."""
    return replace(row, messages=({"role": "text", "content": row.text},))


def _shuffled(row: Row, seed: int) -> Row:
    """The same words and the same space between them, the words in random order.

    In scripts without spaces single letters, and the punctuation between them.
    """
    pieces = items(row.text)
    order = np.random.default_rng([seed, row.index]).permutation(len(pieces) // 2)
    mixed = list(pieces)
    for number, other in enumerate(order.tolist()):
        mixed[2 * number + 1] = pieces[2 * other + 1]
    return replace(row, messages=({"role": "text", "content": "".join(mixed)},))


def _content_or_name(path: str) -> str:
    """The SHA-256 of a file's bytes; of what is no file its name."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if Path(path).is_file() else path


@contextmanager
def _folder(out: str | Path | None) -> Iterator[Path]:
    """The folder of the result, or one that is removed afterwards."""
    if out is None:
        with scratch_folder("heldout-compress-") as place:
            yield place
        return
    with alone_in(Path(out)):
        yield Path(out)


def _claim(folder: Path, about: dict[str, Any]) -> None:
    """Start in an empty folder, or go on in one of the same arguments."""
    known = folder / "settings.json"
    if known.exists():
        if not same_settings(json.loads(known.read_text(encoding="utf-8")), about):
            raise UserError(
                f"--out {folder} holds code lengths of other data or settings: give another "
                "folder. Nothing was written."
            )
        return
    if holds_files(folder):
        raise UserError(f"--out {folder} holds other files: give another folder.")
    write_text(known, json.dumps(about, indent=2) + "\n")
