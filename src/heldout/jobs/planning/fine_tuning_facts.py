"""What is measured of a model and the rows it is to be fine-tuned on, before anything is trained.

The rules of recipe_advice.toml go by these facts. Reads some rows with the model; the rest counts.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from heldout.core.errors import UserError
from heldout.core.losses import DocumentLosses
from heldout.core.progress import Progress, advance_to
from heldout.core.recipe import Recipe
from heldout.core.results.advice import Fact
from heldout.core.row import Row
from heldout.core.segments import paragraphs, scripts
from heldout.jobs.kit.parts import Parts, sample_rows
from heldout.jobs.kit.prepare import prepare
from heldout.lm.accelerator import free_bytes, training_device
from heldout.lm.adapters import is_adapted
from heldout.lm.characters import token_size
from heldout.lm.load import LoadedModel
from heldout.lm.nll import document_losses
from heldout.lm.tokenize import tokenize_rows

NUM_READ = 50  # rows that the base model reads
# Bits that a parameter holds after a finite training: a lower bound, record `capacity` (2.74).
CAPACITY_BITS = 2.7
# Weights, gradients and two moments of Adam in float32; of what is not trained the weights alone.
TRAINED_BYTES, KEPT_BYTES = 16, 4
GB = 1e9
_KINDS = {"text": "plain text", "completion": "prompts with answers", "conversation": "chats"}


@dataclass(frozen=True)
class TokensRead:
    """Tokens of the training rows: all that an epoch reads, and those that are learned."""

    read: int
    scored: int

    @classmethod
    def of(cls, rows: Iterable[Row], tokenizer: Any, max_length: int) -> "TokensRead":
        read = scored = 0
        for _, row in tokenize_rows(rows, tokenizer, max_length):
            read += sum(len(window.input_ids) for window in row.windows)
            scored += row.num_tokens
        return cls(read, scored)


def counted_facts(
    parts: Parts, parameters: int, free: float | None, *, adapter: bool
) -> list[Fact]:
    """What rows and sizes tell; ``free`` bytes on the device before the model is loaded.

    ``adapter``: whether the model is one, that training goes on with.
    """
    rows, groups = sum(parts.rows.values()), sum(parts.groups.values())
    folds = parts.mode == "cross_validation"
    copies = parts.about.get("duplicates", 0)
    kind = parts.train[0].kind
    train, validation = parts.rows["train"], parts.rows["validation"]
    test = parts.rows["test"]
    words = f"{rows:,} rows of {_KINDS[kind]} in {groups:,} groups"
    if folds:
        words = f"{words}; folds choose the epoch, {test:,} rows for a test"
    else:
        words = (
            f"{words}; {train:,} to train on, {validation:,} for validation, {test:,} for a test"
        )
    script = _main_script(parts.train)
    several = np.mean([len(paragraphs(row.text)) > 1 for row in parts.train])
    return [
        Fact("rows", rows, words),
        Fact("train_rows", parts.rows["train"]),
        Fact("groups", groups),
        Fact("folds", int(folds)),
        Fact("kind", kind),
        Fact("paragraph_share", float(several)),
        Fact("script", script, f"most letters are {script.title()}" if script else ""),
        Fact(
            "duplicate_share",
            copies / rows,
            f"{copies:,} rows ({copies / rows:.1%}) repeat another one, exactly or nearly",
        ),
        Fact("parameters", parameters, f"{parameters:,} parameters"),
        Fact("adapter", int(adapter)),
        *_memory(parameters, free),
    ]


def measured_facts(
    parts: Parts,
    loaded: LoadedModel,
    recipe: Recipe,
    tokens: TokensRead,
    free: float | None,
    progress: Progress,
) -> list[Fact]:
    """All facts; the model reads ``NUM_READ`` training rows, and gets LoRA layers afterwards."""
    adapter = is_adapted(loaded.model)
    facts = counted_facts(parts, loaded.parameters, free, adapter=adapter)
    words = f"{tokens.read:,} tokens an epoch, {tokens.scored:,} of them are learned"
    facts += [Fact("tokens", tokens.read, words), Fact("scored_tokens", tokens.scored)]
    size = token_size(loaded.tokenizer, parts.train)
    facts.append(Fact("letters_per_token", size.letters_per_token, size.warning))
    sample = sample_rows(parts.train, NUM_READ, recipe.data.seed)
    with progress.stage("reading rows with the base model", total=len(sample)):
        losses = document_losses(
            loaded.model,
            sample,
            loaded.tokenizer,
            max_length=recipe.data.max_length,
            batch_size=recipe.eval.batch_size,
            progress=advance_to(progress),
        )
    return facts + _information(losses, tokens.scored, loaded, recipe)


def free_memory() -> float | None:
    """Bytes on the device that trains."""
    return free_bytes(training_device())


def _information(
    losses: DocumentLosses, scored: int, loaded: LoadedModel, recipe: Recipe
) -> list[Fact]:
    """The base model's loss, and what that makes of all answers against what is trained."""
    nats, per_byte = losses.nats_per_token, losses.bits_per_byte
    bits = scored * nats / float(np.log(2))
    adapter = _adapter_parameters(loaded, recipe)
    words = (
        f"before training {nats:.2f} nats/token and {per_byte:.2f} bits/byte on {len(losses)} "
        "rows: the higher, the farther from what the model knows"
    )
    full_room = loaded.parameters * CAPACITY_BITS
    room = [f"{bits:,.0f} bits to learn by heart", f"all weights hold at least {full_room:,.0f}"]
    if adapter:
        rank, holds = recipe.model.lora_rank, adapter * CAPACITY_BITS
        room.append(f"an adapter of rank {rank} {holds:,.0f}")
    return [
        Fact("base_nats", nats, words),
        Fact("base_bits_per_byte", per_byte),
        Fact("bits", bits, "; ".join(room)),
        Fact("full_filled_share", bits / full_room),
        Fact("adapter_filled_share", bits / (adapter * CAPACITY_BITS) if adapter else None),
        Fact("adapter_parameters", adapter),
    ]


def _adapter_parameters(loaded: LoadedModel, recipe: Recipe) -> int | None:
    """Trained parameters with LoRA; None where the model takes no such layers."""
    try:
        model = prepare(loaded, recipe.replace(model={"method": "lora", "tie_weights": None}))
    except (UserError, ValueError):
        return None
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _memory(parameters: int, free: float | None) -> list[Fact]:
    full, adapter = parameters * TRAINED_BYTES, parameters * KEPT_BYTES
    words = ""
    if free is not None:
        words = (
            f"{free / GB:.1f} GB free on {training_device()}; to train all weights takes "
            f"{full / GB:.2g} GB beside activations, an adapter {adapter / GB:.2g} GB"
        )
    return [
        Fact("full_memory_share", full / free if free else None, words),
        Fact("adapter_memory_share", adapter / free if free else None),
        Fact("full_gigabytes", full / GB),
        Fact("device", training_device()),
    ]


def _main_script(rows: Sequence[Row]) -> str | None:
    """The script of most letters; of Japanese and Korean mixed with Han, the larger part."""
    counted: Counter[str] = Counter()
    for row in rows[:NUM_READ]:
        for letter, num in Counter(row.text[:2000]).items():
            for script in scripts(letter):
                counted[script] += num
    return counted.most_common(1)[0][0] if counted else None
