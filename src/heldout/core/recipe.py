"""A recipe: every choice of a run, in small frozen sections, read from TOML.

Unknown keys are errors that name the nearest known one. Any field can be set from the command line
with ``--set section.key=value``.
"""

import dataclasses
import math
import tomllib
import types
import typing
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from heldout.core.errors import UserError, did_you_mean


@dataclass(frozen=True)
class DataSection:
    """Where rows come from and how they are split."""

    columns: dict[str, str] = field(default_factory=dict)  # role -> column, e.g. text = "body"
    group: str = ""  # column whose equal values stay together in the split
    validation: str = ""  # file with the validation rows; empty: split them off
    test: str = ""  # file with the sealed test rows; empty: split them off
    validation_share: float = 0.15
    test_share: float = 0.15
    key_facts: tuple[str, ...] = ()  # regular expressions of text that no augmentation changes
    near_duplicate_threshold: float = 0.5  # Jaccard similarity over 5-word shingles
    max_length: int = 512  # tokens per training window; longer rows become several windows
    max_rows: int = 0  # 0: all
    seed: int = 0


@dataclass(frozen=True)
class ModelSection:
    """What is trained."""

    method: Literal["lora", "full"] = "lora"
    lora_rank: int = 8
    lora_alpha: int = 16
    lora_targets: str = "all-linear"
    tie_weights: bool | None = None  # None: as the model has it
    # For models from scratch: norm and its place; empty: as configured. See heldout.lm.norms.
    norm: Literal["", "rms", "layer"] = ""
    norm_position: Literal["", "pre", "post", "branch_output"] = ""
    gradient_checkpointing: bool = False
    trust_remote_code: bool = False


@dataclass(frozen=True)
class TrainSection:
    """The optimization."""

    learning_rate: float | None = None  # None: found by search
    max_epochs: float = 20.0
    batch_size: int = 8  # rows per optimizer step
    micro_batch_size: int = 8  # rows per forward; gradients are accumulated up to batch_size
    optimizer: Literal["adamw", "schedule_free"] = "adamw"
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = 10
    max_grad_norm: float = 1.0
    adam_beta2: float = 0.999
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = 0
    threads: int = 0  # 0: as torch chooses
    report_to: tuple[str, ...] = ()  # trackers of transformers: tensorboard, wandb, mlflow, trackio
    checkpoint_minutes: float = 5.0  # least time between checkpoints to resume from


@dataclass(frozen=True)
class SearchSection:
    """The searches before the run: short ones for the learning rate, whole trainings for grids."""

    learning_rates: tuple[float, ...] = ()  # empty: step by factors of 3 until neighbors are worse
    epochs: float = 1.0  # of a training that sets the learning rate
    max_steps: int = 100
    max_trials: int = 5  # trainings of either search
    grids: dict[str, tuple[float, ...]] = field(default_factory=dict)  # key -> values, see Fit


@dataclass(frozen=True)
class EvalSection:
    """How checkpoints are measured."""

    per_epoch: float = 2.0  # evaluations per epoch
    batch_size: int = 16
    max_train_rows: int = 200  # training rows whose clean loss is followed
    max_recital_rows: int = 400  # training rows, and as many test rows, tested for recital
    metric: str = ""  # exact_match, rouge_l, or path/to/file.py:function
    metric_rows: int = 100
    max_new_tokens: int = 64
    num_samples: int = 4  # side-by-side samples in the report
    embedding_model: str = ""  # of sentences, for the similarity of augmented rows; empty: none
    min_effect: float = 0.01  # nats per token: smaller differences do not matter
    folds: int = 5  # of the cross-validation that replaces small held-out parts


@dataclass(frozen=True)
class ControlSection:
    """The arm without regularization, trained on the same split for a fixed number of epochs."""

    fixed_epochs: float = 0.0  # 0: no control arm


@dataclass(frozen=True)
class HyperfitSection:
    """Overfitting on purpose; read by `heldout hyperfit` alone."""

    target_loss: float = 0.2  # nats per token on the sample, clean: training stops at or below
    num_samples: int = 2000  # windows drawn from the training rows; 0: all
    keep_last: int = 3  # checkpoints at the end of training that generation chooses from
    context_tokens: int = 32  # of a held-out text, to be continued
    new_tokens: int = 96  # of each continuation; none ends earlier
    num_contexts: int = 100  # from the test part
    num_validation_contexts: int = 32  # from the validation part, to choose a checkpoint by
    generation_batch: int = 64  # contexts at once; greedy text depends on it in the last bits
    top_p: float = 0.9
    min_p: float = 0.1
    repetition_penalty: float = 1.2
    blocked_ngram: int = 6  # tokens: the blocker lets no n-gram of the sample be completed
    max_repetition: float = 0.15  # share of repeated 4-grams that a checkpoint may have to be kept


@dataclass(frozen=True)
class Recipe:
    """All sections; ``regularizers`` and ``augment`` map names to parameters, in their order."""

    name: str = "default"
    description: str = ""
    data: DataSection = DataSection()
    model: ModelSection = ModelSection()
    train: TrainSection = TrainSection()
    search: SearchSection = SearchSection()
    eval: EvalSection = EvalSection()
    control: ControlSection = ControlSection()
    hyperfit: HyperfitSection = HyperfitSection()
    regularizers: dict[str, dict[str, Any]] = field(default_factory=dict)
    augment: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for rule in _RULES:
            section, key, holds, words = rule
            value = getattr(getattr(self, section), key)
            if not holds(value):
                raise UserError(f"{section}.{key} must be {words}, got {value!r}.")
        if self.train.batch_size % self.train.micro_batch_size:
            raise UserError(
                f"train.batch_size must be a multiple of train.micro_batch_size "
                f"({self.train.micro_batch_size}), got {self.train.batch_size}."
            )
        if self.train.optimizer == "schedule_free" and self.train.schedule != "constant":
            raise UserError(
                "train.optimizer=schedule_free averages in place of a falling rate: use it with "
                f"train.schedule=constant, got {self.train.schedule!r}."
            )
        if self.data.validation_share + self.data.test_share > 0.8:
            raise UserError(
                "data.validation_share plus data.test_share must leave at least .2 for training, "
                f"got {self.data.validation_share} + {self.data.test_share}."
            )

    @property
    def accumulation_steps(self) -> int:
        return self.train.batch_size // self.train.micro_batch_size

    def replace(self, **sections: dict[str, Any]) -> "Recipe":
        """A copy with fields of the named sections changed, checked like a fresh one."""
        changed = {
            name: dataclasses.replace(getattr(self, name), **values)
            for name, values in sections.items()
        }
        return dataclasses.replace(self, **changed)

    def to_toml(self) -> str:
        lines = [f"{key} = {_toml(getattr(self, key))}" for key in ("name", "description")]
        for section in _SECTIONS:
            lines += ["", f"[{section}]"]
            for item in dataclasses.fields(getattr(self, section)):
                value = getattr(getattr(self, section), item.name)
                if value is not None:
                    lines.append(f"{item.name} = {_toml(value)}")
        for kind in PLUGINS:
            for name, parameters in getattr(self, kind).items():
                lines += ["", f"[{kind}.{name}]"]
                lines += [f"{key} = {_toml(value)}" for key, value in parameters.items()]
        return "\n".join(lines) + "\n"


_SECTIONS = ("data", "model", "train", "search", "eval", "control", "hyperfit")
PLUGINS = ("regularizers", "augment")


def _share(value) -> bool:
    return 0 <= value < 0.8


def _rising(values) -> bool:
    return len(values) > 0 and list(values) == sorted(set(values))


_RULES = [
    ("data", "validation_share", _share, "at least 0 and under .8"),
    ("data", "test_share", _share, "at least 0 and under .8"),
    ("data", "near_duplicate_threshold", lambda v: 0 < v <= 1, "above 0 and at most 1"),
    ("data", "max_length", lambda v: v >= 8, "8 tokens or more"),
    ("data", "max_rows", lambda v: v >= 0, "0 (all) or more"),
    ("model", "lora_rank", lambda v: v >= 1, "1 or more"),
    ("model", "lora_alpha", lambda v: v >= 1, "1 or more"),
    ("train", "learning_rate", lambda v: v is None or 0 < v < 1, "above 0 and under 1"),
    ("train", "max_epochs", lambda v: v > 0, "above 0"),
    ("train", "seed", lambda v: 0 <= v < 2**32, "between 0 and 4294967295"),
    ("train", "adam_beta2", lambda v: 0 <= v < 1, "at least 0 and under 1"),
    ("train", "checkpoint_minutes", lambda v: v >= 0, "0 (each evaluation) or more"),
    ("data", "seed", lambda v: v >= 0, "0 or more"),
    ("train", "batch_size", lambda v: v >= 1, "1 or more"),
    ("train", "micro_batch_size", lambda v: v >= 1, "1 or more"),
    ("train", "warmup_steps", lambda v: v >= 0, "0 or more"),
    ("train", "max_grad_norm", lambda v: v >= 0, "0 (off) or more"),
    ("train", "threads", lambda v: v >= 0, "0 (automatic) or more"),
    ("search", "learning_rates", lambda v: all(0 < r < 1 for r in v), "rates between 0 and 1"),
    ("search", "epochs", lambda v: v > 0, "above 0"),
    ("search", "max_steps", lambda v: v >= 1, "1 or more"),
    ("search", "max_trials", lambda v: v >= 1, "1 or more"),
    ("search", "grids", lambda v: all(map(_rising, v.values())), "rising numbers under each key"),
    ("eval", "per_epoch", lambda v: v > 0, "above 0"),
    ("eval", "batch_size", lambda v: v >= 1, "1 or more"),
    ("eval", "max_train_rows", lambda v: v >= 2, "2 or more"),
    ("eval", "max_recital_rows", lambda v: v >= 2, "2 or more"),
    ("eval", "metric_rows", lambda v: v >= 2, "2 or more"),
    ("eval", "max_new_tokens", lambda v: v >= 1, "1 or more"),
    ("eval", "num_samples", lambda v: v >= 0, "0 or more"),
    ("eval", "min_effect", lambda v: v >= 0, "0 or more"),
    ("eval", "folds", lambda v: v >= 2, "2 or more"),
    ("control", "fixed_epochs", lambda v: v >= 0, "0 (off) or more"),
    ("hyperfit", "target_loss", lambda v: v > 0, "above 0"),
    ("hyperfit", "num_samples", lambda v: v >= 0, "0 (all) or more"),
    ("hyperfit", "keep_last", lambda v: v >= 1, "1 or more"),
    ("hyperfit", "context_tokens", lambda v: v >= 1, "1 or more"),
    ("hyperfit", "new_tokens", lambda v: v >= 8, "8 or more"),
    ("hyperfit", "num_contexts", lambda v: v >= 8, "8 or more"),
    ("hyperfit", "num_validation_contexts", lambda v: v >= 8, "8 or more"),
    ("hyperfit", "generation_batch", lambda v: v >= 1, "1 or more"),
    ("hyperfit", "top_p", lambda v: 0 < v <= 1, "above 0 and at most 1"),
    ("hyperfit", "min_p", lambda v: 0 < v < 1, "above 0 and under 1"),
    ("hyperfit", "repetition_penalty", lambda v: v > 1, "above 1"),
    ("hyperfit", "blocked_ngram", lambda v: v >= 2, "2 or more"),
    ("hyperfit", "max_repetition", _share, "at least 0 and under .8"),
]


def load_recipe(source: str | Path, overrides: typing.Sequence[str] = ()) -> Recipe:
    """Read a recipe by name (shipped with the package) or path, then apply ``key=value`` settings.

    Raises UserError for an unknown name, key or value.
    """
    source = str(source)
    if source.endswith(".toml") or "/" in source:
        path = Path(source)
        if not path.is_file():
            raise UserError(f"Recipe {source}: no such file. `heldout list` shows the ready ones.")
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise UserError(f"Recipe {source} is not UTF-8 text.") from None
    else:
        shipped = resources.files("heldout") / "recipes" / f"{source}.toml"
        if not shipped.is_file():
            raise UserError(f"Unknown recipe {source!r}{did_you_mean(source, recipe_names())}")
        text = shipped.read_text(encoding="utf-8")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"Recipe {source} is not TOML: {error}.") from None
    for setting in overrides:
        _apply(table, setting)
    return recipe_from_table(table)


def recipe_names() -> list[str]:
    """Names of the recipes shipped with the package."""
    folder = resources.files("heldout") / "recipes"
    return sorted(p.name[: -len(".toml")] for p in folder.iterdir() if p.name.endswith(".toml"))


def recipe_from_table(table: dict[str, Any]) -> Recipe:
    """Build and check a recipe from nested dicts as TOML gives them."""
    return _build(Recipe, table, "")


def _apply(table: dict[str, Any], setting: str) -> None:
    key, separator, text = setting.partition("=")
    if not separator or not key.strip():
        raise UserError(f"--set must be key=value, got {setting!r}.")
    *path, last = key.strip().split(".")
    for name in path:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise UserError(f"--set {key.strip()}: {name!r} is a value, not a section.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = _bare(text.strip())
    is_plugin = len(path) == 1 and path[0] in PLUGINS
    if is_plugin and last in table and value is False:
        del table[last]
        return
    if is_plugin and value is True:
        value = {}
    table[last] = value


def _bare(text: str) -> Any:
    """A word needs no quotes, and .5 is a number, though TOML has it otherwise; in lists too."""
    if text.startswith("[") and text.endswith("]"):
        return [_bare(item.strip()) for item in text[1:-1].split(",") if item.strip()]
    try:
        return float(text)
    except ValueError:
        return text


def _build(cls: type, table: dict[str, Any], prefix: str) -> Any:
    hints = get_type_hints(cls)
    known = [item.name for item in dataclasses.fields(cls)]
    values = {}
    for key, value in table.items():
        if key not in known:
            raise UserError(f"Unknown recipe key {(prefix + key)!r}{did_you_mean(key, known)}")
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, dict):
                raise UserError(f"{prefix}{key} is a section, got {value!r}.")
            values[key] = _build(typing.cast(type, hint), value, f"{prefix}{key}.")
        else:
            values[key] = _convert(value, hint, prefix + key)
    return cls(**values)


def _convert(value: Any, hint: Any, name: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        if value not in args:
            raise UserError(f"{name} must be one of {', '.join(map(repr, args))}, got {value!r}.")
        return value
    if origin in (typing.Union, types.UnionType):
        return _convert(value, next(a for a in args if a is not type(None)), name)
    if origin is tuple:
        items = value if isinstance(value, list) else [value]
        return tuple(_convert(item, args[0], name) for item in items)
    if origin is dict:
        if not isinstance(value, dict):
            raise UserError(f"{name} must be a table, got {value!r}.")
        if get_origin(args[1]) is tuple:
            value = _flat(value)
        if args[1] is Any:
            return value
        return {key: _convert(entry, args[1], f"{name}.{key}") for key, entry in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{name} must be a finite number, got {value!r}.")
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        words = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
        raise UserError(f"{name} must be {words[hint]}, got {value!r}.")
    return value


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Tables within tables as one table with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = prefix + key
        found |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    return repr(value)
