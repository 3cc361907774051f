"""The texts that a model is filled with: random tokens, and real text under a reference model."""

# D rows

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from heldout.core.errors import UserError
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.row import Row
from heldout.jobs.kit.parts import read_parts
from heldout.lm.accelerator import training_device
from heldout.lm.load import from_scratch, load_model
from heldout.lm.nll import context_length, document_losses
from heldout.lm.source import read_json

RANDOM = "random tokens"
BATCH = 64  # windows
MAX_TEXT_LENGTH = 512  # tokens per window of real text
MAX_HELD_OUT = 500  # rows of the control


@dataclass(frozen=True)
class FillText:
    """Rows to fill a model with, rows it never sees, and the bits of both under the reference."""

    name: str
    origin: str  # all that the rows and their bits depend on
    tokenizer: Any
    rows: list[Row]
    bits_D: np.ndarray
    heldout: list[Row]
    heldout_bits_D: np.ndarray
    max_length: int
    clipped: bool


def random_text(path: Path, most: float, length: int, seed: int) -> FillText:
    """Rows of random words, enough to hold ``most`` bits for every parameter of the model."""
    vocabulary = read_config(path)["vocab_size"]
    tokenizer = random_tokenizer(vocabulary)
    parameters = from_scratch(path, tokenizer, seed=seed).parameters
    bits = length * math.log2(vocabulary - 1)
    num = max(2, round(most * parameters / bits))
    rows = random_rows(num, length, vocabulary, np.random.default_rng([seed, 0]))
    heldout = random_rows(MAX_HELD_OUT, length, vocabulary, np.random.default_rng([seed, 1]))
    return FillText(
        RANDOM,
        f"{vocabulary} {length} {seed}",
        tokenizer,
        rows,
        np.full(num, bits),
        heldout,
        np.full(MAX_HELD_OUT, bits),
        max_length=length + 1,
        clipped=False,
    )


def random_tokenizer(vocabulary: int) -> Any:
    """``vocabulary`` tokens: a start token and words ``a0``, ``a1``, ... that mean nothing."""
    words = {"<s>": 0, "a": 1} | {f"a{index}": index + 1 for index in range(1, vocabulary - 1)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        pad_token="<s>",
        clean_up_tokenization_spaces=False,
    )


def random_rows(num: int, length: int, vocabulary: int, rng: np.random.Generator) -> list[Row]:
    """Independent rows of ``length`` words, each uniform over all but the start token."""
    ids = rng.integers(0, vocabulary - 1, size=(num, length))
    return [
        Row(
            index,
            ({"role": "text", "content": " ".join(f"a{word}" if word else "a" for word in words)},),
            f"sequence-{index}",
        )
        for index, words in enumerate(ids.tolist())
    ]


def real_text(data: str, reference: str, seed: int, progress: Progress) -> FillText:
    """Half of the groups to train on, half held out, without leaks; both under the reference."""
    recipe = Recipe().replace(data={"validation_share": 0.25, "test_share": 0.25, "seed": seed})
    parts = read_parts(data, recipe)
    if parts.mode != "split":
        raise UserError(
            f"{data} has too few groups to hold half of them out as the control: give more rows."
        )
    loaded = load_model(reference, device=training_device())
    limit = context_length(loaded.model)
    max_length = min(MAX_TEXT_LENGTH, limit) if limit else MAX_TEXT_LENGTH
    rows, heldout = parts.train, [*parts.validation, *parts.test][:MAX_HELD_OUT]
    order = np.random.default_rng(seed).permutation(len(rows))
    rows = [rows[index] for index in order]
    with progress.stage("bits under the reference"):
        bits = [
            document_losses(
                loaded.model, part, loaded.tokenizer, max_length=max_length, batch_size=BATCH
            ).nll_nats_D
            for part in (rows, heldout)
        ]
    train_D, heldout_D = (nats / math.log(2) for nats in bits)
    return FillText(
        Path(data).stem,
        f"{parts.about['sha256']} {reference} {seed}",
        loaded.tokenizer,
        rows,
        train_D,
        heldout,
        heldout_D,
        max_length,
        clipped=True,
    )


def read_config(path: Path) -> dict[str, Any]:
    """The configuration's content, with the vocabulary that random tokens are drawn from."""
    values = read_json(path)
    vocabulary = values.get("vocab_size")
    if not isinstance(vocabulary, int) or isinstance(vocabulary, bool) or vocabulary < 3:
        raise UserError(
            f"{path}: vocab_size must be a whole number of 3 or more, got {vocabulary!r}: random "
            "tokens are drawn from it."
        )
    return values
