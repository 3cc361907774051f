"""GGUF files, converted once to a Hugging Face folder, because trainers and PEFT refuse them."""

import contextlib
import hashlib
import importlib.util
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from heldout.core.errors import UserError

logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """``$HELDOUT_CACHE``, or ``~/.cache/heldout``."""
    return Path(os.environ.get("HELDOUT_CACHE") or "~/.cache/heldout").expanduser()


def converted_gguf(file: Path) -> Path:
    """A folder with the file's model as float32 safetensors and its tokenizer.

    Converted at the first call (half a minute for 135M parameters; four bytes of disk per
    parameter) and kept in the cache under the file's own hash. Another process that converts the
    same file at the same time does no harm. Raises UserError where the file cannot be read, the
    ``gguf`` package is missing or the disk is full.
    """
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()[:16]
    folder = cache_folder() / "gguf" / digest
    if folder.is_dir():
        return folder
    if importlib.util.find_spec("gguf") is None:
        raise UserError(f"Reading {file.name} needs a package: pip install 'heldout[gguf]'.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f"{digest}.", dir=folder.parent))
    except OSError as error:
        raise UserError(
            f"The cache {folder.parent} cannot be written ({error.strerror}): set HELDOUT_CACHE."
        ) from None
    try:
        logger.info("converting %s to safetensors, once, into %s", file, folder)
        _convert(file, partial)
        with contextlib.suppress(OSError):  # another process was faster: its result is the same
            partial.rename(folder)
        assert folder.is_dir()
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _convert(file: Path, folder: Path) -> None:
    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        model: Any = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32
        )
    # The reader fails in many ways on a file that is cut short or of an unknown kind.
    except Exception as error:
        raise UserError(
            f"GGUF file {file} cannot be read ({type(error).__name__}: {error}): it is damaged, or "
            "of an architecture that transformers does not read."
        ) from error
    # The weights are plain float32 by now; the marks of quantization would make trainers refuse.
    model.hf_quantizer = None
    model.is_quantized = False
    for holder, mark in ((model, "quantization_method"), (model.config, "quantization_config")):
        if hasattr(holder, mark):
            delattr(holder, mark)
    try:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    except OSError as error:
        needed_gb = 4 * model.num_parameters() / 1e9
        raise UserError(
            f"Converting {file.name} needs {needed_gb:.1f} GB in {folder.parent} ({error}): free "
            "some space or set HELDOUT_CACHE."
        ) from None
