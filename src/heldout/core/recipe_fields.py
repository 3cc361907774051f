"""Fields of a recipe's sections: the rules that values keep, and values as TOML gives them."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from heldout.core.errors import UserError, did_you_mean
from heldout.core.search_space import Range, read_ranges


@dataclass(frozen=True)
class FieldRule:
    """What a field's value must keep, beside the field as ``Annotated[type, rule]``."""

    holds: Callable[[Any], bool]
    words: str  # "KEY must be WORDS, got VALUE."


def at_least(least: int, meaning: str = "") -> FieldRule:
    """``meaning`` says what the least value does, or what is counted."""
    words = f"{least} {meaning} or more" if meaning else f"{least} or more"
    return FieldRule(lambda value: value >= least, words)


POSITIVE = FieldRule(lambda value: value > 0, "above 0")
SHARE = FieldRule(lambda value: 0 <= value < 0.8, "at least 0 and under 0.8")
UP_TO_ONE = FieldRule(lambda value: 0 < value <= 1, "above 0 and at most 1")
RATE = FieldRule(lambda value: value is None or 0 < value < 1, "above 0 and under 1")
RATES = FieldRule(lambda values: all(0 < rate < 1 for rate in values), "rates between 0 and 1")


def _is_pattern(text: str) -> bool:
    import regex  # slow to import, and few recipes hold a pattern

    try:
        regex.compile(text)
    except (regex.error, RecursionError, OverflowError):
        return False
    return True


PATTERNS = FieldRule(lambda texts: all(map(_is_pattern, texts)), "regular expressions")
_OF_THE_RENDERING = (  # arguments of apply_chat_template itself
    *("messages", "conversations", "conversation", "tools", "chat_template", "tokenize"),
    *("add_generation_prompt", "continue_final_message", "return_assistant_tokens_mask"),
)
TEMPLATE_ARGUMENTS = FieldRule(
    lambda arguments: all(
        name.isidentifier() and name not in _OF_THE_RENDERING for name in arguments
    ),
    "names of variables of the chat template, such as enable_thinking, with their values",
)


@cache
def rules_of(section: type) -> dict[str, FieldRule]:
    """Field -> the rule that its type is annotated with, for the fields that have one."""
    hints = get_type_hints(section, include_extras=True)
    return {
        name: rule
        for name, hint in hints.items()
        for rule in getattr(hint, "__metadata__", ())
        if isinstance(rule, FieldRule)
    }


# What other trainers and habit call a key.
ALIASES = {
    "epochs": "train.max_epochs",
    "num_train_epochs": "train.max_epochs",
    "lr": "train.learning_rate",
    "minutes": "train.max_minutes",
    "batch_size": "train.batch_size",
    "seed": "train.seed",
    "per_device_train_batch_size": "train.micro_batch_size",
    "lr_scheduler_type": "train.schedule",
    "warmup": "train.warmup_steps",
    "beta2": "train.adam_beta2",
    "grad_clip": "train.max_grad_norm",
    "bf16": "train.precision",
    "max_seq_length": "data.max_length",
    "seq_len": "data.max_length",
    "rank": "model.lora_rank",
    "lora_r": "model.lora_rank",
    "weight_decay": "regularizers.weight_decay.rate",
    "dropout": "regularizers.dropout.hidden",
    "label_smoothing": "regularizers.label_smoothing",
}


def meant_key(word: str, recipe: type) -> str:
    """The dotted key of a recipe that someone who wrote ``word`` alone may mean; "" for none."""
    known = {
        item: f"{section}.{item}"
        for section, hint in get_type_hints(recipe).items()
        if dataclasses.is_dataclass(hint)
        for item in (field.name for field in dataclasses.fields(hint))
    }
    known |= ALIASES
    near = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.75)
    return known[near[0]] if near else ""


def _unknown(key: str, cls: type, prefix: str) -> str:
    """An error about ``key`` in a section, or on top of a recipe."""
    name, known = prefix + key, [item.name for item in dataclasses.fields(cls)]
    meant = ALIASES.get(key, "") if prefix else ""
    if not prefix and not difflib.get_close_matches(key, known, n=1, cutoff=0.75):
        meant = meant_key(key, cls)
    if meant.startswith(prefix) and meant:
        return f"Unknown recipe key {name!r}: did you mean {meant!r}?"
    return f"Unknown recipe key {name!r}{did_you_mean(key, known)}"


def build(cls: type, table: dict[str, Any], prefix: str) -> Any:
    """A section from a table of TOML, and sections in it; ``prefix`` is where it stands.

    Raises UserError for an unknown key and a value of another type.
    """
    hints = get_type_hints(cls)
    known = [item.name for item in dataclasses.fields(cls)]
    values = {}
    for key, value in table.items():
        if key not in known:
            raise UserError(_unknown(key, cls, prefix))
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, dict):
                raise UserError(f"{prefix}{key} is a section, got {value!r}.")
            values[key] = build(typing.cast(type, hint), value, f"{prefix}{key}.")
        else:
            values[key] = convert(value, hint, prefix + key)
    return cls(**values)


def convert(value: Any, hint: Any, name: str) -> Any:
    """A value of TOML as a field of type ``hint`` holds it; ``name`` is the key.

    Raises UserError for one of another type.
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        if value not in args:
            raise UserError(f"{name} must be one of {', '.join(map(repr, args))}, got {value!r}.")
        return value
    if origin in (typing.Union, types.UnionType):
        return convert(value, next(a for a in args if a is not type(None)), name)
    if origin is tuple:
        items = value if isinstance(value, list) else [value]
        return tuple(convert(item, args[0], name) for item in items)
    if origin is dict:
        if not isinstance(value, dict):
            raise UserError(f"{name} must be a table, got {value!r}.")
        if args[1] == Range:
            return read_ranges(value, name)
        if args[1] is Any:
            return value
        return {key: convert(entry, args[1], f"{name}.{key}") for key, entry in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{name} must be a finite number, got {value!r}.")
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        words = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
        raise UserError(f"{name} must be {words.get(hint, hint.__name__)}, got {value!r}.")
    return value


def bare(text: str) -> Any:
    """A word needs no quotes, and .5 is a number, though TOML has it otherwise; in lists too."""
    if text.startswith("[") and text.endswith("]"):
        return [bare(item.strip()) for item in text[1:-1].split(",") if item.strip()]
    try:
        return float(text)
    except ValueError:
        return text
