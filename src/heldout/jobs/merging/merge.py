"""A run's adapter merged into its base, written as one model, and shown to predict as before.

Both are measured anew with the same rows: adapter on base before, and after it the model as it
lies in its folder. Weights are merged and measured in float32; what is written is rounded once.
"""

import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from heldout.core.errors import UserError
from heldout.core.files import LOCK, holds_files, remove, write_text
from heldout.core.lock import alone_in
from heldout.core.losses import DocumentLosses
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.progress import Progress, advance_to, told
from heldout.core.results.merge import LogitAgreement, MergePlan, MergeResult
from heldout.jobs.kit.given_data import DataSource
from heldout.jobs.kit.run_folder import existing_parent
from heldout.jobs.merging.gguf_file import check_gguf, gguf_file, gguf_request
from heldout.jobs.merging.merged_rows import MergeSource, merge_source
from heldout.lm.accelerator import training_device
from heldout.lm.load import LoadedModel, count_parameters, load_model
from heldout.lm.measuring.logit_agreement import (
    MOST_ROWS,
    logit_agreement,
    logits_of,
    rows_of_ids,
)
from heldout.lm.merging import in_dtype, merge_into_base, refusal_of_quantized, stored_dtype
from heldout.lm.nll import context_length, document_losses
from heldout.lm.quantized import Quantization
from heldout.lm.quiet import quiet_libraries
from heldout.lm.source import adapter_base, find_source

KEEP = "keep"
DTYPES = ("keep", "float32", "bfloat16", "float16")


def merge(
    run: Any,
    *,
    out: str | Path,
    dtype: str = KEEP,
    gguf: str | Path | None = None,
    heldout: DataSource | None = None,
    trust_code: bool = False,
    progress: Progress | None = None,
) -> MergeResult:
    """Write the model of ``run`` to the folder ``out`` as plain weights, and measure the copy.

    run: a run folder, a ``heldout.Run``, what ``heldout.fit`` returned, or a folder of an adapter
    or of a whole model. dtype: float32, bfloat16, float16, or keep, what the base's files hold.
    gguf: also write this file for llama.cpp; it is kept only if its tokens and logits, read back,
    are those of the merged model.
    heldout: rows to measure on where there is no run, or others than its validation part.
    trust_code: run code that the run's recipe names, a model's own; else UserError where it names
    any.

    ``out`` must be new or empty. The folder comes whole, with tokenizer, chat template, generation
    settings and ``merge.json``, or not at all. Costs two passes over the rows, and four bytes of
    memory for each parameter, twice that while the copy is measured.

    Raises UserError for what cannot be loaded or merged, for a full disk, and for a GGUF file that
    cannot be written; the folder is there by then if only the file's proof failed.
    """
    progress, place = told(progress), Path(out)
    _check_arguments(place, dtype, gguf)
    with quiet_libraries(), merge_source(run, heldout, trust_code) as source:
        chosen = _dtype(source, dtype)
        with progress.stage("loading the model"):
            loaded = _load(source.folder, source, merge_adapter=False)
        num_bytes = sum(p.numel() for p in loaded.model.parameters()) * chosen.itemsize
        _check_disk(place, num_bytes * (1 if gguf is None else 2))
        before = _Measured.of(loaded, source, progress, "measuring before")
        with progress.stage("merging"):
            whole = loaded.model
            if loaded.adapter_of is not None:
                whole = merge_into_base(whole, str(source.shown))
            whole = in_dtype(whole, chosen, str(source.shown))
        request = None
        texts = [row.text for row in source.rows[:MOST_ROWS]]
        if gguf is not None:
            request = gguf_request(replace(loaded, model=whole), Path(gguf), texts, place)
        with _written(place) as partial:
            with progress.stage("writing"):
                whole.save_pretrained(partial)
                loaded.tokenizer.save_pretrained(partial)
            base = loaded.adapter_of or ""
            del whole, loaded  # memory for the copy
            written = _load(partial, source)
            after = _Measured.of(written, source, progress, "measuring after", before.ids)
            num = written.parameters
            found = _result(source, base, place, chosen, partial, before, after, num)
            write_text(partial / "merge.json", _text(found))
        if request is not None:
            with progress.stage("writing the GGUF file and reading it back"):
                proof = (after.ids, after.logits, texts)
                file = gguf_file(request, written, chosen, *proof, place)
            found = replace(found, gguf=file)
            write_text(place / "merge.json", _text(found))
    return found


def _text(found: MergeResult) -> str:
    text = json.dumps(found.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
    return text + "\n"


def dry_run_merge(
    run: Any,
    *,
    out: str | Path,
    dtype: str = KEEP,
    gguf: str | Path | None = None,
    trust_code: bool = False,
) -> MergePlan:
    """What ``merge`` would write and how large it is; nothing is written, no weight is read."""
    place = Path(out)
    _check_arguments(place, dtype, gguf)
    with quiet_libraries(), merge_source(run, None, trust_code) as source:
        if (quantized := Quantization.noted_in(source.folder)) is not None:
            raise refusal_of_quantized(source.shown, quantized.load_in)
        chosen = _dtype(source, dtype)
        base = _base_of(source.folder)
        trusts = source.recipe.model.trust_remote_code
        num = count_parameters(base or str(source.folder), trust_remote_code=trusts) or 0
        num_bytes = num * chosen.itemsize
        writes = {str(place): num_bytes} | ({} if gguf is None else {str(gguf): num_bytes})
        _check_disk(place, sum(writes.values()))
        return MergePlan(
            source=source.shown,
            base=base,
            dtype=_name(chosen),
            num_parameters=num,
            writes=writes,
            free_bytes=_free(place),
        )


class _Measured:
    """What one of the two models makes of the rows."""

    def __init__(
        self, losses: DocumentLosses | None, ids: list[list[int]], logits: list[torch.Tensor]
    ):
        self.losses, self.ids, self.logits = losses, ids, logits

    @classmethod
    def of(
        cls,
        loaded: LoadedModel,
        source: MergeSource,
        progress: Progress,
        stage: str,
        ids: list[list[int]] | None = None,
    ) -> "_Measured":
        """``ids``: of the model before, so that both read the same."""
        model, tokenizer, recipe = loaded.model, loaded.tokenizer, source.recipe
        limit = context_length(model) or recipe.data.max_length
        max_length = min(recipe.data.max_length, limit)
        with progress.stage(stage, len(source.rows)):
            losses = None
            if source.has_rows:
                losses = document_losses(
                    model,
                    source.rows,
                    tokenizer,
                    max_length=max_length,
                    batch_size=recipe.eval.batch_size,
                    progress=advance_to(progress),
                )
            if ids is None:
                ids = rows_of_ids(source.rows, tokenizer, model, max_length)
            return cls(losses, ids, logits_of(model, ids))


def _result(
    source: MergeSource,
    base: str,
    place: Path,
    dtype: torch.dtype,
    partial: Path,
    before: _Measured,
    after: _Measured,
    num_parameters: int,
) -> MergeResult:
    measurements = _losses(source, before.losses, after.losses)
    merged = measurements[1]
    min_effect = source.recipe.eval.min_effect
    is_worse = False
    if isinstance(merged, Measurement):
        bounds = merged.contrasts["unmerged"].interval
        is_worse = not bounds.is_withheld and bounds.low > min_effect
    agreement = logit_agreement(before.logits, after.logits)
    notes = []
    if source.part == "train":
        notes.append("The run has no validation part: losses are of its training rows.")
    if not base:
        notes.append("There was no adapter to merge: all weights were copied.")
    notes.append(
        "Measured in float32 with the weights as they are stored; a server that computes in fewer "
        "bits rounds more."
    )
    return MergeResult(
        source=source.shown,
        base=base,
        out=str(place),
        dtype=_name(dtype),
        num_parameters=num_parameters,
        num_bytes=sum(file.stat().st_size for file in partial.glob("*.safetensors")),
        part=source.part,
        min_effect=min_effect,
        is_worse=is_worse,
        agreement=agreement,
        measurements=tuple(measurements),
        headline=_headline(base, _name(dtype), agreement, merged, is_worse, min_effect),
        notes=tuple(notes),
    )


def _losses(
    source: MergeSource, before: DocumentLosses | None, after: DocumentLosses | None
) -> list[Measurement | NotMeasured]:
    if before is None or after is None:
        reason = "there are no rows: give some with --heldout FILE"
        return [NotMeasured("unmerged", reason), NotMeasured("merged", reason)]
    if before.num_groups < 2:
        reason = "the rows are of one group: give more with --heldout FILE"
        return [NotMeasured("unmerged", reason), NotMeasured("merged", reason)]
    unit, resampled = "nats per token", "group"
    control = {"unmerged": after.minus(before).as_contrast()}
    return [
        before.estimate().as_measurement("unmerged", unit, resampled, {}),
        after.estimate().as_measurement("merged", unit, resampled, control),
    ]


def _headline(
    base: str,
    dtype: str,
    agreement: LogitAgreement,
    merged: Measurement | NotMeasured,
    is_worse: bool,
    min_effect: float,
) -> str:
    done = f"Merged into {base}, in {dtype}." if base else f"Copied all weights, in {dtype}."
    same = 100 * agreement.same_likeliest
    near = f"The same token is likeliest at {same:.2f} % of {agreement.num_positions:,} positions."
    if isinstance(merged, NotMeasured):
        return " ".join((done, near, "The loss was not measured."))
    contrast = merged.contrasts["unmerged"]
    first = merged.value - contrast.difference
    bounds = contrast.interval.words("+.4f")
    loss = (
        f"Loss before {first:.4f}, after {merged.value:.4f} nats per token: "
        f"{contrast.difference:+.4f} ({bounds})."
    )
    if is_worse:
        worse = f"The written model is surely worse, by more than {min_effect:g} nats per token."
        return f"{done} {worse} {loss} {near}"
    return f"{done} {loss} {near}"


# Arguments and folders


def _check_arguments(place: Path, dtype: str, gguf: str | Path | None) -> None:
    if dtype not in DTYPES:
        raise UserError(f"--dtype must be {', '.join(DTYPES[:-1])} or {DTYPES[-1]}, got {dtype!r}.")
    if place.is_file() or (place.is_dir() and holds_files(place)):
        raise UserError(
            f"--out {place} {'is a file' if place.is_file() else 'holds files'}: give a new "
            "folder. Nothing was written."
        )
    _refuse_below_file("--out", place)
    if gguf is not None:
        check_gguf(Path(gguf))
        _refuse_below_file("--gguf", Path(gguf))


def _refuse_below_file(flag: str, path: Path) -> None:
    above = existing_parent(path.absolute())
    if not above.is_dir():
        raise UserError(
            f"{flag} {path} would lie in {above}, which is a file: give another place. Nothing was "
            "written."
        )


def _dtype(source: MergeSource, asked: str) -> torch.dtype:
    return stored_dtype(str(source.folder)) if asked == KEEP else getattr(torch, asked)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _base_of(folder: Path) -> str:
    source = find_source(str(folder))
    return adapter_base(source) if source.is_adapter else ""


def _load(folder: Path, source: MergeSource, merge_adapter: bool = True) -> LoadedModel:
    with warnings.catch_warnings():
        # PEFT warns of heads that share their weights, which are parted here.
        warnings.filterwarnings("ignore", ".*tie_word_embeddings")
        return load_model(
            str(folder),
            device=training_device(),
            trust_remote_code=source.recipe.model.trust_remote_code,
            merge_adapter=merge_adapter,
        )


def _free(place: Path) -> int:
    return shutil.disk_usage(existing_parent(place.absolute())).free


def _check_disk(place: Path, needed: int) -> None:
    if needed > (free := _free(place)):
        raise UserError(
            f"Too little disk: about {needed / 1e9:.1f} GB are needed in {place}, "
            f"{free / 1e9:.1f} GB are free. Give another --out."
        )


@contextmanager
def _written(place: Path) -> Iterator[Path]:
    """A folder beside ``place``, put there when all went well; else nothing is left of it."""
    partial = place.with_name(f"{place.name}.partial")
    place.parent.mkdir(parents=True, exist_ok=True)
    with alone_in(partial):
        _clear(partial)  # of what a kill has left
        try:
            yield partial
        except BaseException:
            _clear(partial)
            raise
    remove(partial / LOCK)
    if place.is_dir() and not holds_files(place):
        remove(place)
    partial.replace(place)


def _clear(folder: Path) -> None:
    for path in [each for each in folder.iterdir() if each.name != LOCK]:
        remove(path)
