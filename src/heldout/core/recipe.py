"""A recipe: every choice of a run, in small frozen sections, read from TOML.

Unknown keys are errors that name the nearest known one. Any field can be set from the command line
with ``--set section.key=value``.
"""

import dataclasses
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w

from heldout.core.discovery import entries_of, replaced_by
from heldout.core.errors import UserError, did_you_mean
from heldout.core.own_classes import absent
from heldout.core.recipe_fields import (
    PATTERNS,
    POSITIVE,
    RATE,
    RATES,
    SHARE,
    TEMPLATE_ARGUMENTS,
    UP_TO_ONE,
    FieldRule,
    at_least,
    bare,
    build,
    rules_of,
)
from heldout.core.recipe_sections import check_sections
from heldout.core.search_space import Range


@dataclass(frozen=True)
class DataSection:
    """Where rows come from and how they are split."""

    columns: dict[str, str] = field(default_factory=dict)  # role -> column, e.g. text = "body"
    group: str = ""  # column whose equal values stay together in the split
    time: str = ""  # column of dates: train before validation before test; empty: at random
    validation: str = ""  # file with the validation rows; empty: split them off
    test: str = ""  # file with the sealed test rows; empty: split them off
    # of rows, to choose by, where no file is given
    validation_share: Annotated[float, SHARE] = 0.15
    test_share: Annotated[float, SHARE] = 0.15  # of rows, for the sealed test; likewise
    encoding: str = ""  # of text files, such as gb18030; empty: recognized
    learn_chosen: bool = False  # of preference data (DPO, ORPO, KTO), the good answers alone
    max_row_mib: Annotated[int, at_least(1)] = 64  # of a row or line
    max_unpack_ratio: Annotated[int, at_least(1)] = 200  # size of a packed file, beyond 64 MiB
    # of the chat template, where the caller gives none, e.g. enable_thinking = false
    template_arguments: Annotated[dict[str, Any], TEMPLATE_ARGUMENTS] = field(default_factory=dict)
    # regular expressions of text that no augmentation changes
    key_facts: Annotated[tuple[str, ...], PATTERNS] = ()
    # Jaccard similarity over pieces of eight letters
    near_duplicate_threshold: Annotated[float, UP_TO_ONE] = 0.45
    # tokens per training window; longer rows become several windows
    max_length: Annotated[int, at_least(8, "tokens")] = 512
    max_rows: Annotated[int, at_least(0, "(all)")] = 0  # of the data, that are read; 0: all
    seed: Annotated[int, at_least(0)] = 0  # of the split and of every sample of rows


@dataclass(frozen=True)
class ModelSection:
    """What is trained."""

    method: Literal["lora", "full"] = "lora"  # an adapter on frozen weights, or all weights
    adapter: Literal["lora", "dora", "rslora", "pissa", "olora"] = "lora"  # kind of adapter
    lora_rank: Annotated[int, at_least(1)] = 8  # of an adapter's matrices: its room
    lora_alpha: Annotated[int, at_least(1)] = 16  # an adapter counts alpha / rank times
    lora_targets: str = "all-linear"  # layers with an adapter: names, with commas
    # bits that a frozen weight is held in, needs heldout[quantized]; empty: 32
    load_in: Literal["", "4bit", "8bit"] = ""
    tie_weights: bool | None = None  # of both ends; None: as the model has it
    norm: Literal["", "rms", "layer"] = ""  # of a model from scratch; empty: as configured
    # of the norm in a model from scratch, see heldout.lm.norms; empty: as configured
    norm_position: Literal["", "pre", "post", "branch_output"] = ""
    gradient_checkpointing: bool = False  # less memory for activations, more time
    trust_remote_code: bool = False  # run code that a model's folder brings along


@dataclass(frozen=True)
class TrainSection:
    """The optimization."""

    learning_rate: Annotated[float | None, RATE] = None  # None: found by search
    max_epochs: Annotated[float, POSITIVE] = 20.0  # at most: early stopping may end it before
    # of a whole run of fit, from reading the rows to the report; 0: no limit
    max_minutes: Annotated[float, at_least(0, "(no limit)")] = 0.0
    batch_size: Annotated[int, at_least(1)] = 8  # rows per optimizer step
    # rows per forward; gradients are accumulated up to batch_size
    micro_batch_size: Annotated[int, at_least(1)] = 8
    # auto: no padded tokens are computed where that is exact; on: always; off: never
    padding: Literal["auto", "on", "off"] = "auto"
    # schedule_free averages weights, so that no rate has to fall
    optimizer: Literal["adamw", "schedule_free"] = "adamw"
    schedule: Literal["constant", "linear", "cosine"] = "constant"  # of the learning rate
    warmup_steps: Annotated[int, at_least(0)] = 10  # over which the rate rises; at most half of all
    # longer gradients are shortened to it; 0: off
    max_grad_norm: Annotated[float, at_least(0, "(off)")] = 1.0
    # how long Adam remembers squared gradients
    adam_beta2: Annotated[float, FieldRule(lambda v: 0 <= v < 1, "at least 0 and under 1")] = 0.999
    # to multiply in; auto: bfloat16 on a GPU that has it, else float32
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    # of the order of rows, dropout and new weights
    seed: Annotated[int, FieldRule(lambda v: 0 <= v < 2**32, "between 0 and 4294967295")] = 0
    # of each training; 0: the cores, divided by the trainings that go on at once
    threads: Annotated[int, at_least(0, "(automatic)")] = 0
    # trainings at once, where a job has several; 0: as cores, GPUs and free memory allow
    side_by_side: Annotated[int, at_least(0, "(automatic)")] = 0
    report_to: tuple[str, ...] = ()  # trackers: tensorboard, trackio, wandb, mlflow
    # least time between checkpoints to resume from
    checkpoint_minutes: Annotated[float, at_least(0, "(each evaluation)")] = 5.0


@dataclass(frozen=True)
class SearchSection:
    """The searches before the run: a short one for the learning rate, whole trainings of ranges."""

    # rates to try; empty: step by factors of 3 until neighbors are worse
    learning_rates: Annotated[tuple[float, ...], RATES] = ()
    # of a training that sets the learning rate; 0: as many as max_steps are
    epochs: Annotated[float, at_least(0, "(as max_steps)")] = 0.0
    # of a training that sets the learning rate, at most
    max_steps: Annotated[int, at_least(1)] = 100
    max_trials: Annotated[int, at_least(1)] = 5  # trainings of either search
    ranges: dict[str, Range] = field(default_factory=dict)  # key -> what to try, see Fit
    # how points of the ranges are chosen; all but coordinate need heldout[search]
    sampler: Literal["coordinate", "tpe", "gp", "random"] = "coordinate"
    at_once: Annotated[int, at_least(1)] = 2  # points chosen together, which may go side by side
    # epochs that a trial trains before it can be stopped as lost
    grace_epochs: Annotated[float, at_least(0)] = 2.0
    # trainings without each part of the recipe; drop: parts that do not pay are left out
    ablate: Literal["off", "show", "drop"] = "off"
    # more trainings, with other seeds, of points that cannot be told apart
    repeats: Annotated[int, at_least(0)] = 0


@dataclass(frozen=True)
class EvalSection:
    """How checkpoints are measured."""

    per_epoch: Annotated[float, POSITIVE] = 2.0  # evaluations per epoch
    batch_size: Annotated[int, at_least(1)] = 16  # rows that are measured at once
    # training rows whose clean loss is followed, at each evaluation as many as are held out
    max_train_rows: Annotated[int, at_least(2)] = 200
    # training rows, and as many test rows, tested for memorization
    max_recital_rows: Annotated[int, at_least(2)] = 400
    metric: str = ""  # exact_match, rouge_l, or path/to/file.py:function
    # test rows that the metric is measured on, at most
    metric_rows: Annotated[int, at_least(2)] = 100
    # of a sample; of a tokenizer that hardly knows the script as many as hold as much text
    max_new_tokens: Annotated[int, at_least(1)] = 64
    num_samples: Annotated[int, at_least(0)] = 4  # side-by-side samples in the report
    embedding_model: str = ""  # of sentences, for the similarity of augmented rows; empty: none
    # nats per token: smaller differences do not matter
    min_effect: Annotated[float, at_least(0)] = 0.01
    # of the cross-validation that replaces small held-out parts
    folds: Annotated[int, at_least(2)] = 5


@dataclass(frozen=True)
class ControlSection:
    """A condition without regularization: the same split, for a fixed number of epochs."""

    fixed_epochs: Annotated[float, at_least(0, "(off)")] = 0.0  # 0: none


@dataclass(frozen=True)
class HyperfitSection:
    """Overfitting on purpose; read by `heldout hyperfit` alone."""

    # nats per token on the sample, clean: training stops at or below
    target_loss: Annotated[float, POSITIVE] = 0.2
    # windows drawn from the training rows; 0: all
    num_samples: Annotated[int, at_least(0, "(all)")] = 2000
    # checkpoints at the end of training that generation chooses from
    keep_last: Annotated[int, at_least(1)] = 3
    context_tokens: Annotated[int, at_least(1)] = 32  # of a held-out text, to be continued
    # of each continuation; none ends earlier, and each of four blocks needs a 4-gram
    new_tokens: Annotated[int, at_least(16)] = 96
    num_contexts: Annotated[int, at_least(8)] = 100  # from the test part
    # from the validation part, to choose a checkpoint by
    num_validation_contexts: Annotated[int, at_least(8)] = 32
    # contexts at once; greedy text depends on it in the last bits
    generation_batch: Annotated[int, at_least(1)] = 64
    top_p: Annotated[float, UP_TO_ONE] = 0.9  # of nucleus sampling, a control of greedy text
    # of min-p sampling, another control
    min_p: Annotated[float, FieldRule(lambda v: 0 < v < 1, "above 0 and under 1")] = 0.1
    # of greedy text with a penalty, another control
    repetition_penalty: Annotated[float, FieldRule(lambda v: v > 1, "above 1")] = 1.2
    # tokens: the blocker lets no n-gram of the sample be completed; more of small tokens
    blocked_ngram: Annotated[int, at_least(2)] = 6
    # share of repeated 4-grams that a checkpoint may have to be kept
    max_repetition: Annotated[float, SHARE] = 0.15


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
        for section in _SECTIONS:
            fields = getattr(self, section)
            for key, rule in rules_of(fields.__class__).items():
                value = getattr(fields, key)
                if not rule.holds(value):
                    raise UserError(f"{section}.{key} must be {rule.words}, got {value!r}.")
        check_sections(self)

    @property
    def accumulation_steps(self) -> int:
        return self.train.batch_size // self.train.micro_batch_size

    @property
    def own_code(self) -> list[str]:
        """Settings that run code of a file or of a model's folder, as ``key=value``."""
        found = [f"eval.metric={self.eval.metric}"] if ":" in self.eval.metric else []
        if self.model.trust_remote_code:
            found.append("model.trust_remote_code=true")
        found += [f"{kind}.{name}" for kind in PLUGINS for name in absent(getattr(self, kind))]
        return found + [
            f"{kind}.{name}.trust_remote_code=true"
            for kind in PLUGINS
            for name, parameters in getattr(self, kind).items()
            if parameters.get("trust_remote_code")
        ]

    def replace(self, **sections: dict[str, Any]) -> "Recipe":
        """A copy with fields of the named sections changed, checked like a fresh one."""
        changed = {
            name: dataclasses.replace(getattr(self, name), **values)
            for name, values in sections.items()
        }
        return dataclasses.replace(self, **changed)

    def to_toml(self) -> str:
        """The recipe as text that reads as an equal one; None is left out, as TOML has none."""
        table = dataclasses.asdict(self)
        for section in _SECTIONS:
            table[section] = {
                key: value for key, value in table[section].items() if value is not None
            }
        return tomli_w.dumps(table)


_SECTIONS = ("data", "model", "train", "search", "eval", "control", "hyperfit")
PLUGINS = {"regularizers": "regularizer", "augment": "augmentation"}  # section -> kind
DEFAULT = "default"  # by the model, where a job knows it
_FILES = {DEFAULT: "lora"}


def load_recipe(source: str | Path, overrides: typing.Sequence[str] = ()) -> Recipe:
    """Read a recipe by name (shipped with the package) or path, then apply ``key=value`` settings.

    A setting takes the place of what it cannot stand beside, such as ``weight_decay.rate`` of a
    recipe's ``shrink_per_epoch``. Raises UserError for an unknown name, key or value.
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
        shipped = resources.files("heldout") / "recipes" / f"{_FILES.get(source, source)}.toml"
        if not shipped.is_file():
            raise UserError(
                f"Unknown recipe {source!r}{did_you_mean(source, [*recipe_names(), DEFAULT])}"
            )
        text = shipped.read_text(encoding="utf-8")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"Recipe {source} is not TOML: {error}.") from None
    except (ValueError, RecursionError):
        raise UserError(
            f"Recipe {source} cannot be read: a number has too many digits, or it is nested too "
            "deeply."
        ) from None
    table = _renamed(table)
    regularizers = table.get("regularizers")
    own = {
        (name, parameter)
        for name, parameters in (regularizers if isinstance(regularizers, dict) else {}).items()
        if isinstance(parameters, dict)
        for parameter in parameters
    }
    for setting in overrides:
        _apply(table, setting, own)
    try:
        return recipe_from_table(table)
    except UserError as error:
        if overrides or not source.endswith(".toml"):
            raise
        raise UserError(f"{source}: {error}") from None  # a file that nobody has just typed


def same_settings(kept: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether two notes of what a folder was made with agree, their recipes by value.

    Under ``recipe`` both hold TOML, which versions lay out differently.
    """

    def by_value(note: Mapping[str, Any]) -> dict[str, Any]:
        return {**note, "recipe": recipe_from_table(tomllib.loads(note["recipe"]))}

    try:
        return by_value(kept) == by_value(wanted)
    except (KeyError, tomllib.TOMLDecodeError, UserError):
        return False


def recipe_names() -> list[str]:
    """Names of the recipes shipped with the package."""
    folder = resources.files("heldout") / "recipes"
    return sorted(p.name[: -len(".toml")] for p in folder.iterdir() if p.name.endswith(".toml"))


def recipe_from_table(table: dict[str, Any]) -> Recipe:
    """Build and check a recipe from nested dicts as TOML gives them."""
    return build(Recipe, _renamed(table), "")


def _renamed(table: dict[str, Any]) -> dict[str, Any]:
    """With keys as they are called now: ``search.ranges`` was ``search.grids``."""
    search = table.get("search")
    if not isinstance(search, dict) or "grids" not in search or "ranges" in search:
        return table
    now = {"ranges" if key == "grids" else key: value for key, value in search.items()}
    return {**table, "search": now}


def _apply(table: dict[str, Any], setting: str, own: set[tuple[str, str]]) -> None:
    """Put the setting in; ``own``: parameters of regularizers that the recipe itself gives."""
    key, separator, text = setting.partition("=")
    if not separator or not key.strip():
        raise UserError(f"--set must be key=value, got {setting!r}.")
    names = key.strip().split(".")
    if names[:2] == ["search", "grids"]:
        names[1] = "ranges"
    *path, last = names
    for name in path:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise UserError(f"--set {key.strip()}: {name!r} is a value, not a section.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = bare(text.strip())
    is_plugin = len(path) == 1 and path[0] in PLUGINS
    if is_plugin and value is False:
        known = [entry.name for entry in entries_of(PLUGINS[path[0]])]
        if last not in (*table, *known):
            raise UserError(f"Unknown {PLUGINS[path[0]]} {last!r}{did_you_mean(last, known)}")
        table.pop(last, None)
        return
    if is_plugin and value is True:
        value = {}
    table[last] = value
    if len(path) == 2 and path[0] == "regularizers":
        own.discard((path[1], last))
        for other in replaced_by("regularizer", path[1], last):
            if (path[1], other) in own:
                table.pop(other, None)
    elif path == ["regularizers"]:
        own -= {each for each in own if each[0] == last}
