"""A merged model as a GGUF file, kept only if what is read from it predicts as the model does."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from heldout.core.errors import UserError
from heldout.core.files import written_whole
from heldout.core.results.merge import GgufFile
from heldout.lm.accelerator import training_device
from heldout.lm.fit_of_weights import one_line
from heldout.lm.gguf_tokenizer import GgufTokenizer, gguf_tokenizer, refuse_other_tokens
from heldout.lm.gguf_writing import GgufLayout, gguf_layout, write_gguf
from heldout.lm.load import LoadedModel
from heldout.lm.measuring.logit_agreement import logit_agreement, logits_of

# Largest difference of a logit, as a share of the largest logit: the weights are the same numbers.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class GgufRequest:
    """What is known before a model is merged: where the file goes and that it can be written."""

    file: Path
    layout: GgufLayout
    tokenizer: GgufTokenizer


def check_gguf(file: Path) -> None:
    """UserError for a name that cannot be written to, and without the ``gguf`` package."""
    if file.suffix != ".gguf":
        raise UserError(f"--gguf {file} must end with .gguf. Nothing was written.")
    if file.exists():
        raise UserError(f"--gguf {file} exists already: give another name. Nothing was written.")
    if find_spec("gguf") is None:
        raise UserError("--gguf needs a package: pip install 'heldout[gguf]'.")


def gguf_request(loaded: LoadedModel, file: Path, texts: Sequence[str], out: Path) -> GgufRequest:
    """How the model goes into the file; UserError, naming llama.cpp's converter, if it does not."""
    try:
        layout = gguf_layout(loaded.model)
        vocabulary = loaded.model.get_input_embeddings().weight.shape[0]
        return GgufRequest(file, layout, gguf_tokenizer(loaded.tokenizer, vocabulary, texts))
    except UserError as error:
        raise UserError(
            f"{error}: merge without --gguf, and convert the folder with llama.cpp, `python "
            f"convert_hf_to_gguf.py {out}`. Nothing was written."
        ) from None


def gguf_file(
    request: GgufRequest,
    loaded: LoadedModel,
    dtype: torch.dtype,
    ids: Sequence[Sequence[int]],
    logits: Sequence[torch.Tensor],
    texts: Sequence[str],
    out: Path,
) -> GgufFile:
    """Write the file, read it back with transformers, and compare its logits with ``logits``.

    Raises UserError, with the file removed, where tokens or logits are others.
    """
    request.file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with written_whole(request.file) as partial:
            write_gguf(loaded.model, request.layout, request.tokenizer, partial, dtype)
            model, tokenizer = _read(partial)
            refuse_other_tokens(tokenizer, loaded.tokenizer, texts)
            agreement = logit_agreement(logits, logits_of(model, ids))
            most = TOLERANCE * max(1.0, *(float(each.abs().max()) for each in logits))
            if not agreement.largest_difference <= most:
                raise UserError(
                    f"its logits differ by {agreement.largest_difference:.3g} from those of the "
                    f"merged model, more than {most:.2g}"
                )
            num_bytes = partial.stat().st_size
    except UserError as error:
        raise UserError(
            f"--gguf {request.file} was not kept: {error}. The merged model lies in {out}: convert "
            f"it with llama.cpp, `python convert_hf_to_gguf.py {out}`."
        ) from None
    return GgufFile(
        str(request.file),
        num_bytes,
        request.layout.architecture,
        request.tokenizer.split,
        agreement,
    )


def _read(file: Path) -> tuple[Any, Any]:
    try:
        # No class of the architecture's, which would bring a way to split text of its own.
        tokenizer = PreTrainedTokenizerFast.from_pretrained(file.parent, gguf_file=file.name)
        model: Any = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32
        )
    except Exception as error:  # the reader fails in many ways on what it does not know
        raise UserError(f"transformers cannot read it back ({one_line(error)})") from error
    return model.to(training_device()).eval(), tokenizer
